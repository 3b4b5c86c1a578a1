"""Write to the terminal or a pipe.

Answers go to stdout (a table for people, JSON Lines with --json); progress, notes and warnings go to stderr, so that a
pipe carries only the answer. Names come from other people's files, so control characters in them are shown as escapes.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from looktwice.checked import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

SENTENCES = 120
"""Width in columns without a terminal of tables of sentences, which people read."""

UNFOLDED = 100_000
"""Width in columns without a terminal: wider than any table, so that nothing folds."""

# Controls, half characters (undecodable file names), line separators and Unicode's format characters, which are
# invisible or reorder text. Persian and emoji need two joiners, U+200C and U+200D: they stay unless beside ASCII.
UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f\u2028-\u202e"
    r"\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e007f]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)


def safe(text: object) -> str:
    r"""Return text that is harmless to print on one line.

    >>> print(safe("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return UNSAFE.sub(lambda found: _escape(ord(found[0])), str(text))


def json_line(record: Mapping[str, Any]) -> str:
    r"""Return one line of JSON: NaN becomes null, unsafe characters become \u escapes, other scripts stay readable.

    >>> print(json_line({"id": "猫\x9b", "p": float("nan")}))
    {"id": "猫\u009b", "p": null}
    """
    text = json.dumps(plain(record), ensure_ascii=not _utf8(), allow_nan=False)
    return UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def emit(record: Mapping[str, Any]) -> None:
    """Write one record to stdout as JSON."""
    sys.stdout.write(json_line(record) + "\n")


def say(text: str) -> None:
    """Write one line of the answer to stdout."""
    stdout().print(safe(text), markup=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Write one line for people to stderr."""
    stderr().print(safe(text), markup=False, highlight=False, soft_wrap=True)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str | None = None,
    width: int | None = None,
) -> None:
    """Write a table to stdout.

    A column whose name starts with `>` is right-aligned. Cells fold on a terminal and are never cut off. Without a
    terminal they do not fold, unless a `width` in columns is given, for tables of sentences.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=any(columns))
    for column in columns:
        right = column.startswith(">")
        grid.add_column(
            Text(safe(column.removeprefix(">"))), justify="right" if right else "left", overflow="fold", no_wrap=right
        )
    for row in rows:
        grid.add_row(*(Text(safe("–" if cell is None else cell)) for cell in row))
    console = stdout() if width is None else _console(sys.stdout, width)
    with console.capture() as drawn:
        if title:  # a title of the grid's own would be folded to the width of its columns
            console.print(Text(safe(title), style="table.title"), soft_wrap=True)
        console.print(grid)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))


_cost: Callable[[float | None], str] | None = None


def show_cost(cost: Callable[[float | None], str] | None) -> None:
    """Show on all progress bars what the work costs: `cost` gets the seconds left, None while they are unknown."""
    global _cost
    _cost = cost


class TerminalBar:
    """A progress bar whose total may come late, as work begins while a folder is still being counted."""

    def __init__(self, bar: Progress, task: TaskID, unit: str) -> None:
        self._bar, self._task, self._unit = bar, task, unit

    @property
    def shown(self) -> bool:
        """Return whether the bar is visible."""
        return not self._bar.disable

    def advance(self, n: int = 1) -> None:
        """Add n to the count."""
        self.at(int(self._bar.tasks[0].completed) + n)

    def at(self, done: int) -> None:
        """Set the count."""
        self._bar.update(self._task, completed=done)
        task = self._bar.tasks[0]
        speed = task.finished_speed or task.speed
        cost = "" if _cost is None else _cost(task.time_remaining)
        self._bar.update(self._task, rate=f"{speed:.1f} {self._unit}/s {cost}" if speed else cost)

    def describe(self, what: str) -> None:
        """Set the description."""
        self._bar.update(self._task, description=safe(what))

    def total(self, n: int) -> None:
        """Set the total."""
        self._bar.update(self._task, total=n)


@contextmanager
def progress(what: str, unit: str, total: int | None = None) -> Iterator[TerminalBar]:
    """Show a bar with rate, time left and cost (`show_cost`) on stderr, if stderr is a terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr(), transient=True, disable=not sys.stderr.isatty()) as bar:
        yield TerminalBar(bar, bar.add_task(safe(what), total=total, rate=""), unit)


def stdout() -> Console:
    """Return the console for answers: as wide as the terminal; without one, so wide that nothing folds."""
    return _console(sys.stdout, UNFOLDED)


def stderr() -> Console:
    """Return the console for progress, notes and warnings."""
    return _console(sys.stderr, 160)


def mute_stdout() -> None:
    """Discard the rest of the answer, as its reader has closed the pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_warnings() -> None:
    """Show the library's warnings and its notes about downloads, costs and tokens on stderr, each text once."""
    import logging

    said: set[str] = set()

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if (text := record.getMessage()) not in said:
                said.add(text)
                note(text if record.levelno < logging.WARNING else f"{record.levelname.capitalize()}: {text}")

    logging.getLogger("looktwice").handlers[:] = [Notes()]
    for name in ("models.hub", "score.remote.spending", "experiment.tokens"):
        logging.getLogger(f"looktwice.{name}").setLevel(logging.INFO)


def number(value: float | None, digits: int = 3) -> str:
    """Format a number for a table; an unknown one as a dash."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def size(n: float) -> str:
    """Format a number of bytes for people.

    >>> size(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def plural(n: int, one: str, many: str | None = None) -> str:
    """Format a count with its noun.

    >>> plural(1, "query", "queries"), plural(1200, "item")
    ('1 query', '1,200 items')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _console(file: Any, width: int) -> Console:
    from rich.console import Console

    return Console(file=file, width=None if file.isatty() else width, emoji=False)  # :cat: may be part of a name


def _utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _escape(code: int) -> str:
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or _hex(code)


def _hex(code: int) -> str:
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
