"""Damaged images, PDFs and videos of every kind. Runs inside a job."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "media")]


def attack(folder: str, seed: str, count: str) -> list[str]:
    """Read damaged files; return what went wrong: anything but an image or a known reason."""
    import mutations

    wrong = []
    for number, (kind, data) in enumerate(mutations.files(int(count), int(seed))):
        try:
            mutations.read(kind, data, Path(folder))
        except BaseException:
            wrong.append(f"{kind} {seed} {number}: {traceback.format_exc(limit=-3)}")
    return wrong
