"""What a JPEG would cost to decode, told from its markers: a progressive one may hold any number of scans, each of
eleven bytes and each going over every block of the picture."""

from __future__ import annotations

import re

from looktwice.errors import MediaError

MOST_SCANS = 500
"""Cameras and programs write at most a few dozen."""

MOST_SCANNED_PIXELS = 2**33
"""Pixels times scans; these take about eight seconds."""

MOST_SEGMENTS = 10_000
"""Each is a step of Python here and in Pillow; colour profiles, thumbnails and depth maps take a few hundred."""

_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd8\xff])")  # of those that a length follows, and the end
_SCAN, _END = b"\xda", b"\xd9"


def count_scans(data: bytes) -> int:
    """Return how many scans a JPEG holds. Raises MediaError (`too-large`) above MOST_SCANS and MOST_SEGMENTS."""
    scans, at = 0, 2
    for _ in range(MOST_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or found[1] == _END:
            return scans
        scans += found[1] == _SCAN
        if scans > MOST_SCANS:
            raise MediaError("too-large", f"a JPEG of more than {MOST_SCANS} scans")
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2]))
    raise MediaError("too-large", f"a JPEG of more than {MOST_SEGMENTS:,} segments")
