"""Tell cheaply whether a table may have changed: opening its newest version takes milliseconds, this 0.1."""

from __future__ import annotations

import os
import time

from looktwice.store.location import LocalFolder, Location

YOUNG = 2.0
"""Seconds for which a change is young: a second one could still have the same time, as file systems count in ticks."""

BUCKET_SECONDS = 5.0
"""How often a table in a bucket is opened anew for searching: that takes a dozen requests."""


def stamp_of(location: Location) -> tuple[tuple[str, int], ...] | None:
    """Return the times of everything that a commit touches; None if they cannot tell.

    Equal stamps mean that nothing was committed in between; in a bucket, that it is too early to ask. Every commit of
    LanceDB adds a file to the folder `_versions` of its table, and the manifest is replaced as a whole.
    """
    if not isinstance(location, LocalFolder):
        return (("", int(time.monotonic() / BUCKET_SECONDS)),)
    folder = location.path
    try:
        tables = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".lance"))
        places = [folder / "manifest.json", *(folder / name / "_versions" for name in tables)]
        found = tuple((place.parent.name, place.stat().st_mtime_ns) for place in places)
    except OSError:
        return None
    return found if time.time() - max(at for _, at in found) / 1e9 > YOUNG else None
