"""`looktwice info`: show a table's contents and size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, size, table


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("info", short_help="Show a table's contents and size.")(info)


def info(path: options.TablePath, json: options.Json = False) -> None:
    """Show a table's items, encoder, columns, visual tokens, and the bytes of each part.

    Example: looktwice info photos.lt
    """
    from looktwice.store import Table

    facts = Table.open(path).info()
    if json:
        emit(facts)
        return
    table(["", ""], list(_facts(facts)))
    parts = [(part, size(n), size(facts["bytes_per_item"][part])) for part, n in facts["bytes"].items()]
    table(["part", ">on disk", ">per item"], parts)


def _facts(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from looktwice.sources import display

    yield "items", f"{facts['items']:,}"
    yield "failed", f"{facts['failed']:,}" + (f" (looktwice ledger {facts['path']})" if facts["failed"] else "")
    encoder = facts["encoder"]
    computed = f", computed in {' and '.join(facts['dtypes'])}" if facts["dtypes"] else ""
    yield "encoder", f"{encoder['name']}, revision {encoder['revision'][:12]}, {encoder['dim']} dimensions{computed}"
    yield "search", _search(facts["index"])
    yield "format", _format(facts["format"])
    if (kept := facts["previews"])["side"] or kept["count"]:
        now = f"up to {kept['side']} pixels" if kept["side"] else "off for new items"
        yield "previews", f"{kept['count']:,}, {now}"
    if facts["deleted"]:
        yield "deleted", f"{facts['deleted']:,} (looktwice index --restore brings them back)"
    yield "columns", ", ".join(f"{name}:{kind}" for name, kind in facts["columns"].items()) or "none"
    for root in facts["roots"]:
        yield "indexed", display(root)
    for entry in facts["token_sets"]:
        made_by = f"{entry['mllm']}, revision {entry['revision'][:12]}, {entry['preprocessing']}"
        scaled = (
            f", images scaled by {entry['resampler']}" if "resampler" in entry else ""
        )  # older tables did not record it
        yield f"tokens {entry['codec']}", made_by + scaled


def _format(number: int) -> str:
    from looktwice.store.manifest import FORMAT

    return str(number) if number == FORMAT else f"{number}; the next write to the table upgrades it to {FORMAT}"


def _search(index: Mapping[str, Any]) -> str:
    if index["kind"] == "exact":
        return "exact"
    settings = f"{index['partitions']} partitions, {index['nprobes']} probed, refine {index['refine']}"
    return f"{index['kind']}: recall@100 {index['recall']:.4f} on {index['sample']} of its own rows; {settings}"
