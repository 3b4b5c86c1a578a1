"""Keep the scores of a run of many queries until its run file is written, so that it survives an interruption."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import typer

from looktwice.cli.console import note
from looktwice.cli.outputs import has_room_beside
from looktwice.errors import UsageError

KEPT = "Finished work is kept; run the same command again to continue."
LOST = "Nothing is kept; pass --run or --score-cache to be able to continue an interrupted command."
SUFFIX = ".scores"
_FEW = 3  # queries: an image, a text and both
_BESIDE = ("", "-wal", "-shm", "-journal")  # files that SQLite keeps beside its own


@contextmanager
def kept_scores(given: Path | None, run: Path | None, many: bool = True) -> Iterator[Path | None]:
    """Yield the score cache to use: `given`, or RUN.scores beside the run file of `many` queries.

    RUN.scores is removed when the work is finished, and stays after an interruption, so that the same command can
    continue. A device such as /dev/stdout has no RUN.scores. An interruption says whether scores are kept; for many
    queries without a cache, it names the options that keep them. A refusal after a few queries removes RUN.scores.
    """
    own = None
    if many and given is None and run is not None and has_room_beside(run):
        own = run.with_name(run.name + SUFFIX)
    known = own is not None and own.exists()
    if known:
        note(f"Continuing an interrupted run with the scores in {own}")
    try:
        yield own or given
    except KeyboardInterrupt:
        advice = [KEPT] if own or given else [LOST] if many else []
        raise KeyboardInterrupt(*advice) from None
    except UsageError:  # the same command would be refused again
        if not known:
            _remove_few(own)
        raise
    except typer.Exit:  # the run file is written, though some items failed
        _remove(own)
        raise
    _remove(own)


def _remove_few(path: Path | None) -> None:
    """Remove the scores of a refused command, unless they are of more queries than one of each kind."""
    if path is None or not path.exists():
        return
    if _queries_in(path, _FEW + 1) <= _FEW:
        _remove(path)
    else:
        note(f"The scores so far are kept in {path}")


def _remove(path: Path | None) -> None:
    if path is None:
        return
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _queries_in(path: Path, most: int) -> int:
    """Return how many queries a cache holds scores of, counted up to `most`; 0 for a file that is not a cache."""
    try:
        with closing(sqlite3.connect(path)) as db:
            found = db.execute("SELECT count(*) FROM (SELECT DISTINCT query FROM scores LIMIT ?)", (most,))
            return int(found.fetchone()[0])
    except sqlite3.Error:
        return 0
