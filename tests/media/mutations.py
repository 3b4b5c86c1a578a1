"""Damage files of every format, from a seed, and read them.

    python tests/media/mutations.py --count 10000

Each file must become an image or a reason within the time limit. The table counts what came out; `crashed` are decoders
that ended in their own process, which costs one file.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from looktwice.errors import MediaError
from looktwice.sources import Unreadable, images, scan
from looktwice.sources.decoding import worker

Samples = dict[str, list[bytes]]
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
DOCUMENTS = (".pdf", ".mp4", ".webm")


def samples() -> Samples:
    """Small whole files of every format and of several kinds each, by suffix."""
    import pillow_heif
    import pillow_jxl  # noqa: F401
    from test_parts import RED, dng, make_pdf, make_video

    pillow_heif.register_heif_opener()
    dice = np.random.default_rng(0)
    noise = Image.fromarray(dice.integers(0, 256, (40, 56, 3), np.uint8))
    smooth = noise.resize((112, 80), Image.Resampling.BICUBIC)

    def saved(image: Image.Image, kind: str, **options: object) -> bytes:
        out = io.BytesIO()
        image.save(out, kind, **options)
        return out.getvalue()

    frames = {"save_all": True, "append_images": [smooth.rotate(180), smooth.rotate(9)]}
    found = {
        ".jpg": [saved(smooth, "JPEG"), saved(smooth, "JPEG", progressive=True), saved(smooth.convert("CMYK"), "JPEG")],
        ".png": [
            saved(noise, "PNG"),
            saved(smooth.convert("P"), "PNG", transparency=3),
            saved(smooth, "PNG", **frames),
        ],
        ".webp": [saved(smooth, "WEBP"), saved(smooth, "WEBP", lossless=True), saved(smooth, "WEBP", **frames)],
        ".gif": [saved(smooth, "GIF"), saved(smooth, "GIF", **frames)],
        ".bmp": [saved(noise, "BMP"), saved(smooth.convert("P"), "BMP")],
        ".tif": [
            saved(noise, "TIFF"),
            *(saved(smooth, "TIFF", compression=c) for c in ("tiff_lzw", "jpeg", "packbits")),
        ],
        ".avif": [saved(smooth, "AVIF"), saved(smooth, "AVIF", **frames)],
        ".heic": [saved(smooth, "HEIF"), saved(smooth.convert("RGBA"), "HEIF")],
        ".jxl": [saved(smooth, "JXL"), saved(noise, "JXL", lossless=True)],
        ".dng": [dng(), dng((120, 80), 6)],
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        found[".pdf"] = [make_pdf(place / "a.pdf", RED, RED).read_bytes()]
        found[".mp4"] = [make_video(place / "a.mp4", 3).read_bytes()]
    return found


def mutated(whole: bytes, other: bytes, dice: np.random.Generator) -> bytes:
    """Return a file with one to six damages; half of them lie in the first 200 bytes, where headers are."""
    data = bytearray(whole)
    for _ in range(int(dice.integers(1, 7))):
        if not data:
            break
        end = min(len(data), 200) if dice.random() < 0.5 else len(data)
        at = int(dice.integers(0, end))
        DAMAGES[int(dice.integers(0, len(DAMAGES)))](data, at, other, dice)
    return bytes(data)


def _flip(data: bytearray, at: int, other: bytes, dice: np.random.Generator) -> None:
    data[at] ^= 1 << int(dice.integers(0, 8))


def _byte(data: bytearray, at: int, other: bytes, dice: np.random.Generator) -> None:
    data[at] = int(dice.integers(0, 256))


def _number(data: bytearray, at: int, other: bytes, dice: np.random.Generator) -> None:
    value, size = EXTREMES[int(dice.integers(0, len(EXTREMES)))], int(dice.choice([2, 4]))
    data[at : at + size] = (value & (256**size - 1)).to_bytes(size, "big" if dice.random() < 0.5 else "little")


def _cut(data: bytearray, at: int, other: bytes, dice: np.random.Generator) -> None:
    del data[at:]


def _remove(data: bytearray, at: int, other: bytes, dice: np.random.Generator) -> None:
    del data[at : at + int(dice.integers(1, 64))]


def _repeat(data: bytearray, at: int, other: bytes, dice: np.random.Generator) -> None:
    data[at:at] = data[at : at + int(dice.integers(1, 400))] * int(dice.integers(1, 20))


def _splice(data: bytearray, at: int, other: bytes, dice: np.random.Generator) -> None:
    start = int(dice.integers(0, len(other)))
    data[at : at + 200] = other[start : start + 200]


DAMAGES: tuple[Callable[[bytearray, int, bytes, np.random.Generator], None], ...] = (
    _flip,
    _flip,
    _byte,
    _byte,
    _number,
    _number,
    _remove,
    _repeat,
    _splice,
    _cut,
)


def files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` damaged files with their suffixes, the formats in turn."""
    dice, found = np.random.default_rng(seed), samples()
    kinds = sorted(found)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        whole = found[kind][int(dice.integers(0, len(found[kind])))]
        stranger = found[kinds[int(dice.integers(0, len(kinds)))]]
        yield kind, mutated(whole, stranger[int(dice.integers(0, len(stranger)))], dice)


def read(kind: str, data: bytes, folder: Path) -> str:
    """Return what becomes of a file: "image", or a reason word. Anything else is raised."""
    try:
        if kind not in DOCUMENTS:
            assert images.load(data)[0].mode == "RGB"
            return "image"
        path = folder / f"x{kind}"
        path.write_bytes(data)
        for one in list(scan([path]))[:2]:
            if isinstance(one, Unreadable):
                raise MediaError(one.reason, one.detail)
            images.load(one.read())
        return "image"
    except MediaError as error:
        known = {*images.REASONS, "too-many", "missing"}
        assert error.reason in known, error
        return "crashed" if "crashed" in error.detail else error.reason


def memory() -> float:
    """Return the most memory in GiB that this process or one of its ended decoders has had."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20


def run(count: int, seed: int) -> tuple[dict[str, Counter[str]], float]:
    """Read `count` damaged files; return counts by format and outcome, and the longest time."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for kind, data in files(count, seed):
            began = time.perf_counter()
            counts[kind][read(kind, data, Path(folder))] += 1
            slowest = max(slowest, time.perf_counter() - began)
    worker.POOL.end()  # so that their memory is counted
    return counts, slowest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    counts, slowest = run(options.count, options.seed)
    words = sorted({word for row in counts.values() for word in row}, key=lambda word: (word != "image", word))
    print("| format | files | " + " | ".join(words) + " |")
    print("|---" * (len(words) + 2) + "|")
    for kind, row in sorted(counts.items()):
        print(f"| {kind} | {row.total()} | " + " | ".join(str(row[word]) for word in words) + " |")
    print(f"{time.perf_counter() - began:.0f} s; slowest {slowest:.2f} s; {memory():.2f} GiB", file=sys.stderr)


if __name__ == "__main__":
    main()
