"""Compare what looktwice reads of image files with libvips, pixel by pixel; list every difference with its reason.

    python scripts/compare_pixels.py FOLDER... --json differences.jsonl

It needs libvips (Debian: libvips42) and pyvips, which are no part of the project. Both sides give the
first image, upright, in 8-bit sRGB over white.
The table at the end counts files by what came out. docs/lab/pixels.md says which files it ran over.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from looktwice.errors import MediaError
from looktwice.sources import images

SUFFIXES = images.SUFFIXES
NEAR = 2
"""Largest difference of a channel that counts as equal: decoders round differently."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="write one line per file")
    parser.add_argument("--most", type=int, default=10_000, help="files to compare")
    options = parser.parse_args(argv)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    lines = []
    for path in list(files(options.folders))[: options.most]:
        found = compare(path)
        lines.append(found)
        counts[found["format"]][found["outcome"]] += 1
        if found["outcome"] not in ("equal", "near", "both refuse"):
            print(json.dumps(found), file=sys.stderr)
    if options.json:
        options.json.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table(counts)


def files(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield files whose name ends like an image, each content once."""
    seen = set()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                data = path.read_bytes()
                if data not in seen and len(data) < 2**25:
                    seen.add(data)
                    yield path


def compare(path: Path) -> dict[str, Any]:
    """Return what both sides make of a file."""
    about: dict[str, Any] = {"file": str(path), "format": path.suffix.lower()}
    began = time.perf_counter()
    mine, why = read_mine(path)
    about["seconds"] = round(time.perf_counter() - began, 3)
    theirs, their_why = read_vips(path)
    if mine is None or theirs is None:
        outcome = "both refuse" if mine is None and theirs is None else "vips reads" if mine is None else "vips refuses"
        return {**about, "outcome": outcome, "mine": why, "vips": their_why}
    if mine.shape != theirs.shape:
        return {**about, "outcome": "other size", "mine": mine.shape[1::-1], "vips": theirs.shape[1::-1]}
    apart = np.abs(mine.astype(int) - theirs.astype(int))
    worst, share = int(apart.max()), float((apart.max(-1) > NEAR).mean())
    outcome = "equal" if worst == 0 else "near" if worst <= NEAR else "differs"
    return {
        **about,
        "outcome": outcome,
        "worst": worst,
        "share": round(share, 4),
        "mean": round(float(apart.mean()), 3),
    }


def read_mine(path: Path) -> tuple[np.ndarray | None, str]:
    try:
        return np.asarray(images.load(path.read_bytes())[0]), ""
    except MediaError as error:
        return None, str(error)


def read_vips(path: Path) -> tuple[np.ndarray | None, str]:
    """Read a file with libvips: to sRGB by its profile, over white, upright."""
    try:
        image = pyvips.Image.new_from_file(str(path), fail_on="truncated")
        if image.get_typeof("icc-profile-data"):
            image = by_profile(image)
        image = over_white(image).autorot().colourspace("srgb")
        image = image.cast("uchar", shift=image.format == "ushort")
        return np.asarray(image.numpy()).reshape(image.height, image.width, -1)[..., :3], ""
    except pyvips.Error as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return None, lines[-1].strip()[:200]


def by_profile(image: Any) -> Any:
    how = {"embedded": True, "intent": "relative", "black_point_compensation": True, "depth": 8}
    try:
        return image.icc_transform("srgb", **how).copy_memory()
    except pyvips.Error:
        return image


def over_white(image: Any) -> Any:
    white = 65535 if image.format == "ushort" else 255
    return image.flatten(background=white) if image.hasalpha() else image


def table(counts: dict[str, Counter[str]]) -> None:
    columns = ("equal", "near", "both refuse", "differs", "other size", "vips reads", "vips refuses")
    print("| format | files | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for kind in sorted(counts):
        row = counts[kind]
        print(f"| {kind} | {row.total()} | " + " | ".join(str(row[name]) for name in columns) + " |")
    whole = sum((Counter(row) for row in counts.values()), Counter())
    print(f"| all | {whole.total()} | " + " | ".join(str(whole[name]) for name in columns) + " |")


if __name__ == "__main__":
    main()
