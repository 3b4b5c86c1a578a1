"""Where a run of many queries keeps its scores until its run file is written, so that it can be interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from looktwice.cli.console import note

SUFFIX = ".scores"
_BESIDE = ("", "-wal", "-shm", "-journal")  # what SQLite keeps beside its file


@contextmanager
def kept_scores(given: Path | None, run: Path | None) -> Iterator[Path | None]:
    """The score cache to use: the one `given`, or one of the run file's own, which goes when that has been written.

    The latter is RUN.scores. It stays where the work inside ends early, so that the same command goes on from there.
    """
    if given is not None or run is None:
        yield given
        return
    own = run.with_name(run.name + SUFFIX)
    if own.exists():
        note(f"Going on where an earlier run stopped: {own}")
    try:
        yield own
    except typer.Exit:  # the run file is there; some items failed
        _remove(own)
        raise
    _remove(own)


def _remove(path: Path) -> None:
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
