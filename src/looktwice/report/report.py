"""Write the report: one HTML file that opens from disk and needs no network.

The file holds each image once, in a sheet at its end, and shows it by reference. The template escapes all text; ids
never become addresses, names of elements, or style.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.errors import UsageError
from looktwice.files import write_whole
from looktwice.report import drawing
from looktwice.report.views import QueryView, ResultView

if TYPE_CHECKING:
    from jinja2 import Environment

_SIGNATURES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
    b"ftypavif": "image/avif",
}
# Control characters, half surrogate pairs, direction overrides: they cannot be written, or change the text beside them.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


@dataclass(slots=True)
class _Sheet:
    """The images of the file, each once."""

    numbers: dict[bytes, int] = field(default_factory=dict)

    def add(self, image: bytes | None) -> int | None:
        return None if image is None else self.numbers.setdefault(image, len(self.numbers))

    def addresses(self) -> Iterator[str]:
        for image in self.numbers:
            yield f"data:{_mime(image)};base64,{base64.b64encode(image).decode('ascii')}"


def write_report(
    path: str | Path,
    *,
    title: str,
    manifest: Mapping[str, Any],
    queries: Sequence[QueryView],
    summary: Sequence[Mapping[str, Any]] | None = None,
    tables: Sequence[tuple[str, Sequence[Mapping[str, Any]]]] = (),
    plots: Sequence[tuple[str, str, str]] = (),
    tally: tuple[int, int, int] | None = None,
    total: int | None = None,
    columns: int = 10,
) -> None:
    """Write one self-contained HTML file; the same arguments give the same bytes.

    `summary` is a table with one mapping per row; the keys of the first row are its head. Each of `tables` is a title
    and such a table. `plots` are (title, SVG, caption). If `queries` are only some of all queries, `tally` counts those
    that gained, lost and stayed, and `total` counts all. `manifest` may be nested. `columns` is the number of
    candidates side by side; the list below has twice as many and every relevant one. If all queries have measures of
    both orders, they are sorted from the largest gain to the largest loss. The file appears whole or not at all. Raises
    UsageError for a thumbnail of an unknown format or a path that is not writable.
    """
    if columns < 1:
        raise UsageError(f"columns must be at least 1, not {columns}.")
    measure = _shared_measure(queries)
    ranked = sorted(queries, key=lambda view: -_gain(view, measure)) if measure else list(queries)
    sheet = _Sheet()
    given = {id(view): place for place, view in enumerate(queries)}
    blocks = [_block(view, given[id(view)], measure, sheet, columns) for view in ranked]
    script, style = (_package_text(name) for name in ("report.js", "report.css"))
    page = _environment().get_template("template.html").render(
        title=title,
        manifest=_sections(manifest),
        summary=_table(summary),
        tables=[(name, _table(rows)) for name, rows in tables if rows],
        plots=[(name, _svg(drawn), caption) for name, drawn, caption in plots],
        queries=blocks,
        measure=measure,
        tally=tally or _tally(blocks),
        total=total or len(blocks),
        opened=len(blocks) if len(blocks) <= 12 else 6,
        pictures=list(sheet.addresses()),
        height=drawing.HEIGHT,
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip
    write_whole(Path(path), page.encode())


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("looktwice", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment


def _printable(value: Any) -> Any:
    """Escape characters that a file cannot hold, in every string that the template prints; keep our own markup."""
    if type(value) is not str:
        return value
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


def _block(view: QueryView, given: int, measure: str | None, sheet: _Sheet, columns: int) -> dict[str, Any]:
    """Return the template's data of one query. Texts need room: without any image, five stand side by side."""
    columns = columns if any(r.thumbnail for r in view.results) else min(columns, 5)
    before = sorted((r for r in view.results if r.before <= columns), key=lambda r: r.before)
    after = sorted((r for r in view.results if r.after <= columns), key=lambda r: r.after)
    rows = _telling(view.results, 2 * columns)
    shown = max(len(before), len(after))
    return {
        "id": view.id,
        "text": view.text,
        "picture": sheet.add(view.thumbnail),
        "given": given,
        "before": [_cell(r, sheet) for r in before],
        "after": [_cell(r, sheet) for r in after],
        "columns": shown,
        "width": shown * drawing.COLUMN,
        "threads": drawing.threads(view.results, shown),
        "ticks": drawing.ticks(view.results),
        "length": min(len(view.results), 20),
        "labelled": any(r.relevant is not None for r in view.results),
        "looked": any(r.p is not None or r.note not in ("", "not scored") for r in view.results),
        "relevant": view.relevant,
        "found": sum(bool(r.relevant) for r in view.results),
        "rows": rows,
        "matched": any(r.maxsim is not None for r in view.results),
        "matches": [(name, _svg(drawn)) for name, drawn in view.matches],
        "omitted": len(view.results) - len(rows),
        "measures": [(name, view.before[name], view.after[name]) for name in view.before if name in view.after],
        "value": (view.before[measure], view.after[measure], _gain(view, measure)) if measure else None,
        "moved": sum(abs(r.before - r.after) for r in after),
    }


def _cell(result: ResultView, sheet: _Sheet) -> dict[str, Any]:
    return {"result": result, "picture": sheet.add(result.thumbnail), "move": drawing.move(result)}


def _telling(results: Sequence[ResultView], depth: int) -> list[ResultView]:
    rows = [r for r in results if r.relevant or min(r.before, r.after) <= depth]
    return sorted(rows, key=lambda r: r.after)


def _shared_measure(queries: Sequence[QueryView]) -> str | None:
    """Return the first measure that every query has for both orders."""
    if not queries:
        return None
    return next((n for n in queries[0].before if all(n in v.before and n in v.after for v in queries)), None)


def _gain(view: QueryView, measure: str | None) -> float:
    return view.after[measure] - view.before[measure] if measure else 0.0


def _tally(blocks: Sequence[Mapping[str, Any]]) -> tuple[int, int, int]:
    """Count the queries that gained, lost, and stayed."""
    gains = [block["value"][2] for block in blocks if block["value"]]
    return sum(g > 0 for g in gains), sum(g < 0 for g in gains), sum(g == 0 for g in gains)


def _table(rows: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """Return a table as head, rows, and flags for the columns of text, which are left-aligned."""
    if not rows:
        return None
    head = list(rows[0])
    words = [place == 0 or all(isinstance(row.get(name), str) for row in rows) for place, name in enumerate(head)]
    return {"head": head, "words": words, "rows": [[row.get(name) for name in head] for row in rows]}


def _svg(text: str) -> str:
    """Return an SVG as a data URL, so that its style cannot affect the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode('utf-8', 'replace')).decode('ascii')}"


def _sections(manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the manifest as titled lists: plain values first, then one list for each nested mapping."""
    entries = {str(key): _named(value) for key, value in manifest.items()}
    plain = {key: value for key, value in entries.items() if not isinstance(value, Mapping)}
    nested = [(key, list(_flat(value))) for key, value in entries.items() if isinstance(value, Mapping)]
    return [*([("run", list(_flat(plain)))] if plain else []), *nested]


def _named(value: Any) -> Any:
    """Turn a list of mappings into one mapping: a single one as it is, several under their numbers."""
    if isinstance(value, list | tuple) and value and all(isinstance(entry, Mapping) for entry in value):
        return value[0] if len(value) == 1 else {str(n): entry for n, entry in enumerate(value, start=1)}
    return value


def _flat(mapping: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in ((key, _named(value)) for key, value in mapping.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _number(value)


def _number(value: Any) -> str:
    """Format integers with thin spaces between thousands, other numbers to about four digits, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ", ".join(map(_number, value)) if isinstance(value, list | tuple) else str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if value and not 0.001 <= abs(value) < 100_000:
        return f"{value:.4g}"
    return f"{value:.{3 if abs(value) < 10 else 1}f}"


def _mime(image: bytes) -> str:
    for signature, mime in _SIGNATURES.items():
        if image.startswith(signature) or (signature == b"ftypavif" and image[4:12] == signature):
            return mime
    raise UsageError(
        f"A thumbnail of {len(image)} bytes has an unknown format; encode it with sources.images.thumbnail."
    )


def _package_text(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")
