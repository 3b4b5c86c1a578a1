"""Every format in, upright RGB out; everything broken gives one of the fixed words."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from looktwice.errors import MediaError
from looktwice.sources import images, jpeg
from looktwice.sources.decoding import modes, pillow
from looktwice.sources.prefetch import DecodingBudget

RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(0, 255, (48, 64, 3), dtype=np.uint8))


pillow_heif.register_heif_opener()


def as_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def load_array(data: bytes) -> np.ndarray:
    return np.asarray(images.load(data)[0]).astype(int)


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(MediaError) as caught:
        images.load(data, **options)
    assert caught.value.reason in images.REASONS
    assert caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("kind", images.FORMATS)
def test_formats(kind: str) -> None:
    image, size = images.load(as_bytes(NOISE, kind))
    assert (image.mode, image.size, size) == ("RGB", (64, 48), (64, 48))
    if kind in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(np.asarray(image), np.asarray(NOISE))


@pytest.mark.parametrize("kind", images.FORMATS)
def test_every_format_begins_as_the_look_at_large_files_expects(kind: str) -> None:
    assert images.begins_like_image(as_bytes(NOISE, kind)[:12])
    assert not images.begins_like_image(bytes(12)) and not images.begins_like_image(b"RIFF____WAVE")


@pytest.mark.parametrize("kind", images.FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_cut_off(kind: str, share: float) -> None:
    data = as_bytes(NOISE, kind)
    assert reason(data[: int(len(data) * share)]) in ("truncated", "corrupt", "not-an-image")
    if share > 0.1:
        assert reason(data[: int(len(data) * share)]) == "truncated"


@pytest.mark.parametrize(
    "data, word",
    [
        (b"", "empty"),
        (b"Not a picture at all, whatever its name says.", "not-an-image"),
        (b"\x00\x01\x02\x03" * 40, "not-an-image"),
        (b"%PDF-1.7\n" + b"x" * 100, "not-an-image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not-an-image"),  # Pillow would start Ghostscript
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt " + b"\0" * 40, "not-an-image"),
    ],
)
def test_not_a_picture(data: bytes, word: str) -> None:
    assert reason(data) == word


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"password=hunter2\n" * 9, "text"),
        (b"\x01hunter2" * 9, "data of another kind"),
        (b"%PDF-1.7 hunter2", "a PDF"),
        (b"version https://git-lfs.github.com/spec/v1\nhunter2", "a pointer of Git LFS, not the file itself"),
        (b"\0\0\0\x14ftypqt  hun1qt  " + b"hunter2" * 9, "a video"),
    ],
)
def test_what_is_no_picture_is_named_and_not_quoted(data: bytes, kind: str) -> None:
    with pytest.raises(MediaError) as caught:
        images.load(data)
    assert caught.value.detail == f"it is {kind}" and "hunter2" not in str(caught.value)
    assert bytes(data[:4]).hex(" ") not in str(caught.value)


@pytest.mark.parametrize("place", [41, 60, 5000])
def test_broken_data_is_never_half_a_picture(place: int) -> None:
    data = bytearray(as_bytes(NOISE, "PNG", compress_level=1))
    data[place] ^= 255
    assert reason(bytes(data)) in ("corrupt", "truncated")


def png(width: int, height: int, depth: int = 8, raw: bytes = b"") -> bytes:
    """A PNG in colour by hand; without `raw` it claims a size and has hardly any data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [13_400, 20_000, 60_000])
def test_decompression_bomb(side: int) -> None:
    assert side * side > images.MAX_PIXELS
    assert reason(png(side, side)) == "too-large"


@pytest.mark.parametrize(("side", "word"), [(16, None), (16_384, "too-large"), (65_536, "too-large")])
def test_tiff_whose_tile_is_larger_than_any_picture(side: int, word: str | None) -> None:
    tile = zlib.compress(bytes(256))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: len(tile)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<I", 8 + len(tile)) + tile + struct.pack("<H", len(tags)) + entries + bytes(4)
    if word is None:
        assert images.load(data)[1] == (16, 16)
    else:
        assert reason(data) == word


def scans(side: int, more: int, *, kind: str = "RGB") -> bytes:
    """A progressive JPEG whose last scan stands there `more` times again."""
    data = as_bytes(Image.new(kind, (side, side)), "JPEG", progressive=True)
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * more + data[-2:]


def test_jpeg_scans_are_counted_before_decoding() -> None:
    plain = jpeg.count_scans(scans(16, 0))
    assert plain == scans(16, 0).count(b"\xff\xda") > 1
    assert images.load(scans(16, jpeg.MOST_SCANS - plain))[1] == (16, 16)
    assert reason(scans(16, jpeg.MOST_SCANS - plain + 1)) == "too-large"
    began = time.perf_counter()
    assert reason(scans(4096, 80_000)) == "too-large"
    assert time.perf_counter() - began < 5


def test_jpeg_scans_times_pixels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = scans(256, 90)
    count = jpeg.count_scans(data)
    monkeypatch.setattr(jpeg, "MOST_SCANNED_PIXELS", 256 * 256 * count)
    assert images.load(data)[1] == (256, 256)
    monkeypatch.setattr(jpeg, "MOST_SCANNED_PIXELS", 256 * 256 * count - 1)
    assert reason(data) == "too-large"


def test_jpeg_scans_in_profiles_and_behind_the_end_do_not_count() -> None:
    data = scans(16, 0)
    noise = b"\xff\xe5\xea\x60" + b"\xff\xda" * 29_999
    assert images.load(data[:2] + noise + data[2:] + b"\xff\xda" * 9999)[1] == (16, 16)
    assert reason(data[:2] + b"\xff\xfe\0\2" * 20_000 + data[2:]) == "too-large"


@given(st.binary(max_size=200))
def test_counting_scans_of_anything_ends(data: bytes) -> None:
    assert 0 <= jpeg.count_scans(b"\xff\xd8\xff" + data) <= 70


@pytest.mark.parametrize(
    ("size", "word"),
    [
        ((170_000_000, 1), "too-long"),
        ((100_001, 600), "too-long"),
        ((201, 1), "too-long"),
        ((1, 201), "too-long"),
        ((200, 1), None),
        ((2, 400), None),
    ],
)
def test_shapes_that_models_would_blow_up(size: tuple[int, int], word: str | None) -> None:
    if word is None:
        assert images.load(as_bytes(Image.new("RGB", size), "PNG"))[1] == size
    else:
        assert reason(png(*size)) == word
    if word and size[0] < 1000:
        with pytest.raises(MediaError, match=word):
            images.upright(Image.new("RGB", size))


def test_few_pixels_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many small ones as there are threads; a large one alone."""
    now, most, lock = [], [0], threading.Lock()
    monkeypatch.setattr(pillow, "BUDGET", DecodingBudget(64 * 48 * 2))
    original = pillow._decoded

    def slow(image: Image.Image, *rest: object) -> object:
        with lock:
            now.append(image.width * image.height)
            most.append(sum(now))
        time.sleep(0.02)
        with lock:
            now.remove(image.width * image.height)
        return original(image, *rest)

    monkeypatch.setattr(pillow, "_decoded", slow)
    small, large = as_bytes(NOISE, "PNG"), as_bytes(Image.new("RGB", (100, 100)), "PNG")
    with ThreadPoolExecutor(6) as pool:
        sizes = [size for _, size in pool.map(images.load, [small, small, large, small, small, small])]
    assert sizes.count((64, 48)) == 5 and max(most) == 10_000 and 64 * 48 * 2 in most
    with pytest.raises(MediaError):
        images.load(b"\x89PNG\r\n\x1a\n")
    assert pillow.BUDGET._held == 0


def test_pixel_cap_is_exact() -> None:
    data = as_bytes(NOISE, "PNG")
    assert images.load(data, max_pixels=64 * 48)[1] == (64, 48)
    assert reason(data, max_pixels=64 * 48 - 1) == "too-large"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    """The corner that EXIF says is upper left ends up there; sizes 5 to 8 are turned on their side."""
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = 255
    stored = {  # what a camera held that way would have written
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, size = images.load(as_bytes(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif))
    assert size == image.size == (6, 4)
    assert np.array_equal(np.asarray(image), upright)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_senseless_orientation_counts_as_upright(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert images.load(as_bytes(NOISE, "JPEG", exif=exif))[1] == (64, 48)


def test_damaged_exif_does_not_cost_the_picture() -> None:
    data = as_bytes(NOISE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 20)
    assert images.load(data)[1] == (64, 48)


def test_alpha_is_over_white() -> None:
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (200, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 200, 128))
    assert load_array(as_bytes(image, "PNG")).tolist() == [[[255, 255, 255], [127, 127, 227]]]


def test_grey_with_alpha() -> None:
    image = Image.new("LA", (2, 1), (10, 255))
    image.putpixel((0, 0), (10, 0))
    assert load_array(as_bytes(image, "PNG")).tolist() == [[[255] * 3, [10] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_transparent_entry(kind: str) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([9, 9, 9, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert load_array(as_bytes(image, kind, transparency=0)).tolist() == [[[255] * 3, [200, 100, 50]]]


def test_transparent_colour_without_alpha_channel() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (4, 5, 6))
    assert load_array(as_bytes(image, "PNG", transparency=(1, 2, 3))).tolist() == [[[255] * 3, [4, 5, 6]]]


@pytest.mark.parametrize("mode, value, rgb", [("1", 1, 255), ("L", 99, 99), ("P", 0, 0)])
def test_grey_modes(mode: str, value: int, rgb: int) -> None:
    assert load_array(as_bytes(Image.new(mode, (2, 2), value), "PNG")).tolist() == [[[rgb] * 3] * 2] * 2


def test_cmyk() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    red, green, blue = load_array(as_bytes(cyan, "JPEG", quality=95))[8, 8]
    assert red < 10 and green > 245 and blue > 245


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    assert load_array(as_bytes(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    "values, grey",
    [
        (np.array([[0, 51, 255]], np.int32), [0, 51, 255]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[0, 0.2, 1]], np.float32), [0, 51, 255]),
        (np.array([[0, 51.0, 255]], np.float32), [0, 51, 255]),
    ],
)
def test_deep_grey(values: np.ndarray, grey: list[int]) -> None:
    assert load_array(as_bytes(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == grey


@pytest.mark.parametrize("worst", [-1.0, 70_000.0, float("nan"), float("inf")])
def test_heights_in_metres_are_refused(worst: float) -> None:
    assert reason(as_bytes(Image.fromarray(np.array([[0, worst]], np.float32)), "TIFF")) == "unsupported"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_several(kind: str) -> None:
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    options = {} if kind == "TIFF" else {"duration": 100}
    if kind == "WEBP":
        options["lossless"] = True
    assert load_array(as_bytes(red, kind, save_all=True, append_images=[blue], **options))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_huge_pictures_are_reduced_and_keep_their_stated_size(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "WORKING_PIXELS", 64 * 48 // 20)
    left_half = np.zeros((48, 64, 3), np.uint8)
    left_half[:, :32] = 255
    image, size = images.load(as_bytes(Image.fromarray(left_half), kind))
    assert size == (64, 48)
    assert image.width * image.height <= pillow.WORKING_PIXELS
    pixels = np.asarray(image).astype(int)
    assert pixels[:, 0].min() > 250 and pixels[:, -1].max() < 5


@pytest.mark.parametrize("kind", ["I;16", "I", "F", "LA", "RGBA", "RGB", "P"])
def test_huge_pictures_are_converted_block_by_block(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen-bit ones at the pixel cap took 2.4 GB."""
    values = np.random.default_rng(0).integers(0, 256, (61, 130, 4), dtype=np.uint8)
    deep = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    if kind in deep:
        image = Image.fromarray(values[..., 0].astype(deep[kind]))
    else:
        image = Image.fromarray(values if "A" in kind else values[..., :3]).convert(kind)
    assert image.mode == kind
    monkeypatch.setattr(pillow, "WORKING_PIXELS", 1000)
    expected = np.asarray(images.upright(image.copy()))
    monkeypatch.setattr(modes, "BLOCK", (7, 5))
    sizes, converted = [], modes.converted
    monkeypatch.setattr(modes, "converted", lambda part, tones: sizes.append(part.size) or converted(part, tones))
    assert np.array_equal(np.asarray(images.upright(image)), expected)
    whole = (7 // 3) * 3, (5 // 3) * 3  # of groups of 3 x 3 pixels, which become one
    assert (max(width for width, _ in sizes), max(height for _, height in sizes)) == whole


def test_thumbnail_fits_and_never_enlarges() -> None:
    for side, expected in [(32, (32, 24)), (200, (64, 48))]:
        small = Image.open(io.BytesIO(images.thumbnail(NOISE, side)))
        assert (small.format, small.size) == ("JPEG", expected)


@given(st.binary(max_size=200), st.sampled_from([b"", *(as_bytes(NOISE, kind)[:60] for kind in images.FORMATS)]))
def test_any_bytes_give_a_picture_or_a_reason(tail: bytes, head: bytes) -> None:
    try:
        assert images.load(head + tail)[0].mode == "RGB"
    except MediaError as error:
        assert error.reason in images.REASONS


@given(st.sampled_from(images.FORMATS), st.data())
def test_any_damage_gives_a_picture_or_a_reason(kind: str, data: st.DataObject) -> None:
    broken = bytearray(as_bytes(NOISE, kind))
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert images.load(bytes(broken))[0].mode == "RGB"
    except MediaError as error:
        assert error.reason in images.REASONS


def test_tiff_whose_directory_is_cut_off() -> None:
    assert reason(b"II*\0" + (10_000).to_bytes(4, "little") + b"x" * 500) == "unsupported"


def test_16_bit_colour() -> None:
    """Pillow cannot write it, so here is one by hand: a PNG of two pixels, 16 bits per channel."""
    raw = b"\0" + struct.pack(">6H", 65535, 128 * 257, 0, 257, 0, 65535)
    assert load_array(png(2, 1, 16, raw)).tolist() == [[[255, 128, 0], [1, 0, 255]]]
