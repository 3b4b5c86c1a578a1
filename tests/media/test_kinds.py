"""Right pixels for rare kinds of files: the six cases, and the whole kind of each."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from by_hand import png, tiff
from PIL import Image, ImageCms

from looktwice.errors import MediaError
from looktwice.sources import images
from looktwice.sources.reading import Reading

CASES = Path(__file__).parent / "cases"


def pixels(data: bytes, **options: object) -> np.ndarray:
    return np.asarray(images.load(data, **options)[0]).astype(int)


def case(name: str, **options: object) -> np.ndarray:
    return pixels((CASES / name).read_bytes(), **options)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def reason(data: bytes) -> str:
    with pytest.raises(MediaError) as caught:
        images.load(data)
    return caught.value.reason


def test_png_with_a_transparent_grey_of_two_bits() -> None:
    assert case("g2_trns.png")[0, :, 0].tolist() == [0, 255, 170, 255]


def test_tiff_of_12_bits() -> None:
    assert np.array_equal(case("gray12_ramp.tif")[0, :, 0], np.arange(256))


def test_white_is_zero_at_16_bits() -> None:
    found = case("gray16_whitezero.tif")
    assert np.array_equal(found, case("gray16_blackzero.tif"))
    assert found[0, 0].tolist() == [0] * 3 and found[0, -1].tolist() == [255] * 3


def test_colour_map_of_8_bits() -> None:
    found = case("palette_8bit_colormap.tif")
    assert found.max() == 255 and len(np.unique(found.reshape(-1, 3), axis=0)) > 2


def test_grey_with_premultiplied_alpha() -> None:
    assert len(np.unique(case("gray_assoc_alpha.tif"))) == 1
    values = np.array([[[50, 100], [0, 0], [200, 255]]], np.uint8)  # 50 of 100: 127.5 at 39 %
    for order in "<>":
        found = pixels(tiff(values, 8, extra=1, order=order))[0, :, 0]
        assert np.abs(found - [50 + 155, 255, 200]).max() <= 1


def test_profile_to_srgb() -> None:
    assert np.abs(case("adobe_green.png")[0, 0] - [0, 201, 37]).max() <= 2
    assert case("adobe_green.png", reading=Reading(version=1))[0, 0].tolist() == [100, 200, 60]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [0, 1])
def test_png_transparency_of_grey_at_every_depth(bits: int, clear: int) -> None:
    top = 2**bits - 1
    samples = np.array([[0, 1, top, top - 1]], np.uint16)
    right = np.where(samples == clear, 255, np.rint(samples.astype(float) * 255 / top)).astype(int)
    assert np.array_equal(pixels(png(samples, bits, 0, clear=[clear]))[..., 0], right)


@pytest.mark.parametrize("bits", [8, 16])
def test_png_transparency_of_colours(bits: int) -> None:
    """At 16 bits a colour that differs in its lower byte only is another colour."""
    unit = 1 if bits == 8 else 257
    samples = np.array([[[10, 20, 30], [10, 20, 31], [200, 100, 50]]], np.uint16) * unit
    if bits == 16:
        samples[0, 1] = samples[0, 0] + [0, 0, 1]
    found = pixels(png(samples, bits, 2, clear=samples[0, 0].tolist()))
    assert found[0, 0].tolist() == [255] * 3
    assert found[0, 1].tolist() == ([10, 20, 31] if bits == 8 else [10, 20, 30])
    assert found[0, 2].tolist() == [200, 100, 50]


def test_png_transparency_of_an_interlaced_image() -> None:
    samples = np.array([[[10, 20, 30]]], np.uint16) * 257
    assert pixels(png(samples, 16, 2, clear=[2570, 5140, 7710], interlaced=True)).tolist() == [[[255] * 3]]
    assert pixels(png(samples, 16, 2, clear=[2570, 5140, 7711], interlaced=True)).tolist() == [[[10, 20, 30]]]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey_tiffs_of_every_depth(bits: int, photometric: int, order: str) -> None:
    top = 2**bits - 1
    samples = np.linspace(0, top, 16).astype(np.uint16).reshape(2, 8)
    grey = np.rint(samples.astype(float) * 255 / top).astype(int)
    found = pixels(tiff(samples, bits, photometric=photometric, order=order))[..., 0]
    assert np.array_equal(found, grey if photometric else 255 - grey)


@pytest.mark.parametrize("order", "<>")
def test_float_tiff_in_which_zero_is_white(order: str) -> None:
    samples = np.array([[0, 0.2, 1]], np.float32)
    assert pixels(tiff(samples, 32, sample_format=3, photometric=0, order=order))[0, :, 0].tolist() == [255, 204, 0]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_8_and_16_bits(bits: int, wide: bool) -> None:
    count = 2**bits
    table = np.stack([np.linspace(0, 255, count), np.linspace(255, 0, count), np.full(count, 77)]).astype(int)
    colours = (table * 257 if wide else table).ravel().tolist()
    found = pixels(tiff(np.arange(count).reshape(2, -1), bits, photometric=3, colours=colours))
    assert np.array_equal(found.reshape(-1, 3), table.T)


@pytest.mark.parametrize("bits", [8, 16])
def test_signed_samples_are_refused(bits: int) -> None:
    samples = np.array([[0, 1, 100, 120]], np.int32)
    assert reason(tiff(samples, bits, sample_format=2)) == "unsupported"


def test_lab_is_converted() -> None:
    samples = (
        np.array([[[0, 0, 0], [255, 0, 0], [136, 81, 70]]], np.int32) & 255
    )  # black, white, red (L 53, a 81, b 70)
    found = pixels(tiff(samples.astype(np.uint8), 8, photometric=8))
    assert found[0, 0].max() <= 2 and found[0, 1].min() > 252
    assert found[0, 2, 0] > 240 and found[0, 2, 1:].max() < 40


def gamma(power: float, grey: bool = False) -> bytes:
    """A profile with sRGB's primaries (or grey) and a plain power curve, by hand."""
    import struct

    def s15(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(power * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + s15(0.9642, 1, 0.8249)
    tags = {b"wtpt": white}
    if grey:
        tags[b"kTRC"] = curve
    else:
        tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
        for name, values in {
            b"rXYZ": (0.4361, 0.2225, 0.0139),
            b"gXYZ": (0.3851, 0.7169, 0.0971),
            b"bXYZ": (0.1431, 0.0606, 0.7141),
        }.items():
            tags[name] = b"XYZ " + bytes(4) + s15(*values)
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data
    size = place + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", b"GRAY" if grey else b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + s15(0.9642, 1, 0.8249) + bytes(48)
    return head[:128] + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_profiles_count_in_every_format(kind: str) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    linear = gamma(1.0)
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind in ("JPEG", "AVIF", "HEIF") else {}
    image = Image.new("RGB", (32, 32), (55, 55, 55))
    found = pixels(saved(image, kind, icc_profile=linear, **options))[16, 16]
    assert np.abs(found - 128).max() <= 3  # linear 0.216 is sRGB 0.5
    plain = pixels(saved(image, kind, **options))[16, 16]
    assert np.abs(plain - 55).max() <= 3


def test_profile_of_grey_palette_alpha_and_cmyk() -> None:
    grey = Image.new("L", (4, 4), 55)
    assert abs(pixels(saved(grey, "PNG", icc_profile=gamma(1.0, grey=True)))[0, 0, 0] - 128) <= 2
    palette = Image.new("RGB", (4, 4), (55, 55, 55)).quantize(4)
    assert abs(pixels(saved(palette, "PNG", icc_profile=gamma(1.0)))[0, 0, 0] - 128) <= 2
    clear = Image.new("RGBA", (2, 1), (55, 55, 55, 255))
    clear.putpixel((1, 0), (55, 55, 55, 0))
    assert np.abs(pixels(saved(clear, "PNG", icc_profile=gamma(1.0)))[0, :, 0] - [128, 255]).max() <= 2
    # a profile of another space than the pixels' is ignored
    assert pixels(saved(grey, "PNG", icc_profile=gamma(1.0)))[0, 0, 0] in (55, *range(126, 131))
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.array_equal(pixels(saved(cyan, "JPEG", icc_profile=gamma(1.0))), pixels(saved(cyan, "JPEG")))


def test_srgb_profiles_and_broken_ones_change_nothing() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (own, b"x" * 500, own[:200], gamma(1.0)[:150]):
        assert np.array_equal(pixels(saved(noise, "PNG", icc_profile=profile)), np.asarray(noise))


def test_reading_names_a_version() -> None:
    assert Reading().version == 2
    assert Reading(1, 10).factor((1000, 1000)) == 1 and Reading(2, 10).factor((1000, 400)) == 20
    assert Reading(2, None).factor((10_000, 10_000)) == 1 and Reading(2, 100).factor((399, 1000)) == 1
