"""Where a run of many queries keeps its scores until its run file is written, so that it can be interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from looktwice.cli.answers import has_room_beside
from looktwice.cli.console import note

KEPT = "What was finished is kept; the same command goes on from there."
LOST = "Nothing is kept; with --run or --score-cache the same command would go on from there."
SUFFIX = ".scores"
_BESIDE = ("", "-wal", "-shm", "-journal")  # what SQLite keeps beside its file


@contextmanager
def kept_scores(given: Path | None, run: Path | None, many: bool = True) -> Iterator[Path | None]:
    """The score cache to use: the one `given`, or one of the run file's own, which goes when that has been written.

    The latter is RUN.scores; RUN must have room beside it, as no device has. It stays where the work inside ends early,
    so that the same command goes on from there. An interruption says whether it does, and of `many` queries what would
    make it so.
    """
    own = run.with_name(run.name + SUFFIX) if given is None and run is not None and has_room_beside(run) else None
    if own is not None and own.exists():
        note(f"Going on where an earlier run stopped: {own}")
    try:
        yield own or given
    except KeyboardInterrupt:
        told = [KEPT] if own or given else [LOST] if many else []
        raise KeyboardInterrupt(*told) from None
    except typer.Exit:  # the run file is there; some items failed
        _remove(own)
        raise
    _remove(own)


def _remove(path: Path | None) -> None:
    if path is None:
        return
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
