"""What a table keeps beside vectors: previews, EXIF columns, and the memory of what was deleted. Options of `index`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from looktwice.cli.console import note, plural
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.indexing import IndexReport
    from looktwice.store import Table
    from looktwice.types import EncoderInfo


@dataclass(frozen=True)
class KeepOptions:
    """What the table keeps."""

    previews: Annotated[
        str | None,
        typer.Option(
            help="Longest side in pixels of the small images that the table keeps, or off. To change a side, turn them "
            "off first [default: the table's; for a new table 512].",
            show_default=False,
        ),
    ] = None
    exif: Annotated[
        bool,
        typer.Option("--exif", help="Keep columns of date, camera, lens, place and keywords; a table stays with it."),
    ] = False
    restore: Annotated[
        bool, typer.Option("--restore", help="Bring back items that were removed with looktwice delete.")
    ] = False

    @property
    def side(self) -> int | None:
        """Return the side of previews, 0 for off, None if it was not given. Raises UsageError."""
        from looktwice.store.manifest import LEAST_SIDE, MOST_SIDE

        text = self.previews
        if text is None or text == "off":
            return None if text is None else 0
        if not text.isdecimal() or not LEAST_SIDE <= int(text) <= MOST_SIDE:
            raise UsageError(f"--previews is {text!r}; give off, or a side of {LEAST_SIDE} to {MOST_SIDE:,} pixels.")
        return int(text)

    def known(self, path: Path) -> Table | None:
        """Open a table that is there. Raises UsageError for another side than that of the previews it keeps.

        They would stay as they are. Off removes them, and a side fills in those of a table that keeps none.
        """
        from looktwice.store import Table, exists

        known = Table.open(path) if exists(path) else None
        now = 0 if known is None else known.manifest.previews
        if known is not None and now and self.side and self.side != now:
            raise UsageError(
                f"--previews {self.side} would not change the previews of {known.path}, which have {now} pixels; leave "
                f"it out, or remove them first: run the same command with --previews off, then with {self.side}."
            )
        return known

    def table(self, path: Path, known: Table | None, encoder: EncoderInfo, columns: Mapping[str, type]) -> Table:
        """Return the known table, or a new one, that keeps what was asked for."""
        from looktwice.sources.exif import COLUMNS
        from looktwice.sources.previews import SIDE
        from looktwice.store import Table

        side, exif = self.side, COLUMNS if self.exif else {}
        if known is None:
            return Table.create(path, encoder, {**columns, **exif}, previews=SIDE if side is None else side)
        if exif:
            known.add_columns(exif)
        if side is not None:
            known.note_previews(side)
        return known


def tell_kept(table: Table, report: IndexReport) -> None:
    """Say which items were passed over, and which values did not fit their column."""
    if report.deleted:
        were, them = ("item was", "it") if report.deleted == 1 else ("items were", "them")
        note(f"{report.deleted:,} deleted {were} skipped; pass --restore to bring {them} back.")
    for column, n in report.unfit.items():
        note(f"{plural(n, 'value')} did not fit the column {column}:{table.columns[column].__name__}; null there.")
