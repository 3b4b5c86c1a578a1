"""`looktwice maxsim`: say whether a middle look helps on a table, and what its tokens are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, number, table
from looktwice.cli.groups import grouped, names
from looktwice.cli.unused import refuse_servers, refuse_unused
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.search.probe import Probe


PROBING = {*names(options.Rerank, options.Compute, options.UrlOptions), "codec", "zoom", "queries", "depth", "seed"}
"""Parameters that only a probe uses."""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("maxsim", short_help="Tell whether a middle look over stored tokens helps.")(maxsim)


@grouped
def maxsim(
    ctx: typer.Context,
    path: options.TablePath,
    *,
    probe: Annotated[
        bool, typer.Option("--probe", help="Compare the middle look's order with the second look's, on a sample.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Note the verdict: where it helps, searches use a middle look by default.")
    ] = False,
    rerank: options.Rerank,
    codec: Annotated[
        str, typer.Option(help="Stored visual tokens to compare: auto (the only ones), or a codec.")
    ] = "auto",
    zoom: options.Zoom = None,
    queries: Annotated[int, typer.Option(min=2, help="Number of the table's images to use as queries.")] = 16,
    depth: Annotated[int, typer.Option(min=2, help="Number of nearest images to compare with each query.")] = 48,
    seed: Annotated[int, typer.Option(help="Random seed of the sample.")] = 0,
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """List the token sets that a middle look can use, or tell with --probe whether it helps; no labels are needed.

    The probe searches with images of the table, scores their nearest others by all three looks, and prints how well the
    first and the middle look agree with the second: Kendall's τ, and the share of its best five among their first five.

    Example: looktwice maxsim photos.lt --probe --keep
    """
    from looktwice.store import Table

    opened = Table.open(path)
    if not probe:
        if keep:
            raise UsageError("--keep notes the verdict of a probe; add --probe.")
        refuse_unused(ctx, PROBING, "without --probe", "add --probe, or leave it out")
        _list(opened.manifest.tokens, json)
        return
    from looktwice.search.probe import keep as kept
    from looktwice.search.probe import probe as compare

    refuse_servers(ctx)
    compute.set_threads()
    look = rerank.load(compute)
    with closing(look):
        sample: dict[str, Any] = {"queries": queries, "depth": depth, "seed": seed, "urls": urls.allowed}
        found = compare(opened, look, codec=codec, zoom=bool(zoom), **sample)
    _tell(found, json)
    if keep:
        kept(opened, found)
        note(f"Noted in {opened.path}: {_said(found.verdict)}.")


def _list(sets: tuple[Mapping[str, Any], ...], json: bool) -> None:
    from looktwice.token_index.crops import has_crops

    rows = [
        {
            "mllm": entry["mllm"],
            "codec": entry["codec"],
            "crops": has_crops(entry),
            "sample": entry.get("rarity", {}).get("images"),
            "verdict": entry.get("maxsim", {}).get("verdict", "not probed"),
        }
        for entry in sets
    ]
    if not rows:
        note("The table stores no visual tokens; add some with: looktwice add-tokens")
    for row in rows if json else ():
        emit(row)
    if rows and not json:
        cells = [
            [row["mllm"], row["codec"], "yes" if row["crops"] else "no", row["sample"] or "none", row["verdict"]]
            for row in rows
        ]
        table(["mllm", "codec", "crops", ">images in sample", "middle look"], cells)


def _said(verdict: str) -> str:
    return "it is unclear whether a middle look helps" if verdict == "unclear" else f"a middle look {verdict}"


def _tell(found: Probe, json: bool) -> None:
    if json:
        emit(found.record())
        return
    title = f"agreement with the second look: {found.pairs:,} pairs of {found.queries} queries"
    table(
        ["order", ">τ", ">best 5"], [[row.order, number(row.tau), number(row.best)] for row in found.rows], title=title
    )
    gain = found.gain
    note(f"τ changes by {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]: {_said(found.verdict)}.")
