"""Compare vectors of images that are read whole with those of images reduced for the encoder.

    python scripts/compare_reading.py FOLDER... --encoder tiny-clip

Only images that are reduced count: those whose shorter side has at least four times the encoder's. Prints cosines and
how many images keep their nearest neighbour among all, as one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from looktwice import load_encoder
from looktwice.errors import MediaError
from looktwice.sources import images
from looktwice.sources.reading import Reading
from looktwice.types import Encoder, Item


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Vectors of whole and of reduced images.")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--encoder", default="tiny-clip")
    options = parser.parse_args(argv)
    encoder = load_encoder(options.encoder, device="cpu", dtype="float32")
    found = list(pairs(options.folders, encoder))
    whole, reduced = (np.stack(part) for part in zip(*found, strict=True))
    cosines = (whole * reduced).sum(1)
    same = nearest(whole) == nearest(reduced)
    quantiles = {
        name: round(float(np.quantile(cosines, q)), 5) for name, q in (("min", 0), ("p5", 0.05), ("median", 0.5))
    }
    print(json.dumps({"images": len(found), "encoder": options.encoder, **quantiles, "same_nearest": int(same.sum())}))


def pairs(folders: Sequence[Path], encoder: Encoder) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the vector of each image read whole, and of the same image reduced."""
    reading = Reading(side=encoder.info.side)
    seen = set()
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.suffix.lower() not in images.SUFFIXES or (data := path.read_bytes()) in seen:
            continue
        seen.add(data)
        try:
            whole = images.load(data)[0]
            if reading.factor(whole.size) > 1:
                both = encoder.encode([Item("whole", whole), Item("reduced", images.load(data, reading)[0])])
                yield both[0], both[1]
        except MediaError:
            continue


def nearest(vectors: np.ndarray) -> np.ndarray:
    """Return the row of the nearest other vector for each."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -1)
    best: np.ndarray = likeness.argmax(1)
    return best


if __name__ == "__main__":
    main()
