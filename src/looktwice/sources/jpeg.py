"""Estimate the cost of decoding a JPEG from its markers.

A progressive JPEG may hold any number of scans: each takes eleven bytes, and each goes over every block of the image.
"""

from __future__ import annotations

import re

from looktwice.errors import MediaError

MOST_SCANS = 500
"""Largest number of scans; cameras and programs write at most a few dozen."""

MOST_SCANNED_PIXELS = 2**33
"""Largest product of pixels and scans, about eight seconds of decoding."""

MOST_SEGMENTS = 10_000
"""Largest number of segments: each costs a step of Python, and colour profiles and thumbnails need a few hundred."""

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
            raise MediaError(
                "too-large", f"the JPEG has more than {MOST_SCANS} scans; save it again as a baseline JPEG"
            )
        at = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2]))
    raise MediaError("too-large", f"the JPEG has more than {MOST_SEGMENTS:,} segments; save it again without metadata")
