"""Find the pages of a PDF and the frames of a video: one file, several items.

report.pdf#page=3      clip.mp4#t=12.0
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from looktwice.errors import MediaError
from looktwice.sources.decoding import worker
from looktwice.sources.formats import BY_SUFFIX, PDF, Extra
from looktwice.sources.records import Source, Unreadable, name_to_id
from looktwice.sources.uri import failure, file_uri, open_file, part_uri

EVERY = 10.0
"""Seconds between two frames of a video."""

LEAST_SCENE = 1.0
"""Seconds that a scene of a video must last to be an item."""

MOST_PARTS = 10_000
"""Pages or frames of one file; the rest is not read, and the ledger says so."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Which frames of a video are items: one `every` so many seconds and, with `scenes`, the first of each scene."""

    every: float = EVERY
    scenes: bool = False

    def times(self, path: bytes) -> list[float]:
        """Return their times in tenths of a second. Raises MediaError."""
        shown = os.fsdecode(path)
        count = max(1, int(worker.length(shown) / self.every + 0.999))
        regular = [round(number * self.every, 1) for number in range(min(count, MOST_PARTS + 1))]
        return sorted({*regular, *(self._scenes(shown) if self.scenes else ())})

    def _scenes(self, path: str) -> Iterator[float]:
        for cut, after in pairwise([*worker.cuts(path, MOST_PARTS), math.inf]):
            if after - cut >= LEAST_SCENE:
                yield math.ceil(10 * cut - 1e-6) / 10  # not before the cut


def extra_of(path: bytes) -> Extra | None:
    """Return the extra that reads files of this suffix, None for all others."""
    return BY_SUFFIX.get(os.path.splitext(path)[1].decode("utf-8", "replace").lower())


def scan_parts(path: bytes, name: bytes, root: str, extra: Extra, frames: Frames) -> Iterator[Source | Unreadable]:
    """Yield the pages or frames of a file as items; ids are `name#page=N` or `name#t=SECONDS`."""
    uri = file_uri(path)
    try:
        if not extra.installed:
            raise extra.missing()
        open_file(path).close()
        fragments, left = _pages(path) if extra is PDF else _times(path, frames)
    except OSError as error:
        yield Unreadable.of(uri, root, failure(error, path), hides=f"{uri}#")
        return
    except MediaError as error:
        yield Unreadable.of(uri, root, error, hides=f"{uri}#")
        return
    for fragment in fragments:
        yield Source(f"{name_to_id(name)}#{fragment}", part_uri(uri, fragment), root)
    if left > 0:
        detail = f"{left:,} pages or frames are not read; {MOST_PARTS:,} of one file are"
        yield Unreadable(uri, root, "too-many", detail, hides=f"{uri}#")


def _pages(path: bytes) -> tuple[list[str], int]:
    count = worker.pages(os.fsdecode(path))
    return [f"page={number}" for number in range(1, min(count, MOST_PARTS) + 1)], count - MOST_PARTS


def _times(path: bytes, frames: Frames) -> tuple[list[str], int]:
    times = frames.times(path)
    return [f"t={time:.1f}" for time in times[:MOST_PARTS]], len(times) - MOST_PARTS
