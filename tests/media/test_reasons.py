"""True reasons for files that cannot be read, and nothing on the terminal."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from by_hand import tiff
from PIL import Image

from looktwice.errors import MediaError
from looktwice.sources import images


def saved(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(out, kind, **options)
    return out.getvalue()


def failure(data: bytes) -> MediaError:
    with pytest.raises(MediaError) as caught:
        images.load(data)
    assert caught.value.reason in images.REASONS
    return caught.value


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_jpeg_of_12_bits() -> None:
    data = saved("JPEG")
    frame = data.index(b"\xff\xc0")
    found = failure(patched(data, frame + 4, b"\x0c"))
    assert found.reason == "unsupported" and "12 bits" in found.detail


@pytest.mark.parametrize("at", [5, 7])
def test_jpeg_without_height_or_width(at: int) -> None:
    data = saved("JPEG")
    found = failure(patched(data, data.index(b"\xff\xc0") + at, b"\0\0"))
    assert found.reason == "corrupt" and " 0" in found.detail + " "


def test_lossless_jpeg() -> None:
    data = saved("JPEG")
    assert failure(patched(data, data.index(b"\xff\xc0") + 1, b"\xc3")).reason == "unsupported"


@pytest.mark.parametrize(("at", "new"), [(16, bytes(4)), (20, bytes(4)), (24, b"\x07"), (25, b"\x09"), (28, b"\x05")])
def test_png_headers(at: int, new: bytes) -> None:
    import zlib

    data = patched(saved("PNG"), at, new)
    data = patched(data, 29, zlib.crc32(data[12:29]).to_bytes(4))
    assert failure(data).reason == "corrupt"


def test_unknown_compression_of_a_tiff() -> None:
    values = np.zeros((4, 4), np.uint8)
    found = failure(tiff(values, 8, more={259: (3, [4711])}))
    assert found.reason == "unsupported"


def test_bmp_of_unknown_compression() -> None:
    assert failure(patched(saved("BMP"), 30, b"\x09")).reason == "unsupported"


def test_messages_of_libtiff_are_part_of_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(saved("TIFF", compression="tiff_lzw"))
    data[60:400] = os.urandom(340)
    found = failure(bytes(data))
    assert found.reason in ("corrupt", "truncated") and "tempfile.tif" in found.detail
    assert capfd.readouterr() == ("", "")


def test_compressed_tiffs_are_read_in_the_other_process(tmp_path: Path) -> None:
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        image, size = images.load(saved("TIFF", compression=compression))
        assert size == (64, 48)
        plain = np.asarray(images.load(saved("TIFF"))[0]).astype(int)
        near = np.abs(np.asarray(image).astype(int) - plain).mean()
        assert near == 0 or (compression == "jpeg" and near < 60)


def test_what_a_whole_png_lacks_is_damage_and_what_a_cut_one_lacks_is_not() -> None:
    data = saved("PNG")
    assert failure(data[:300]).reason == "truncated"
    assert failure(patched(data, 12, b"JUNK")).reason == "corrupt"
