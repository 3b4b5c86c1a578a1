"""`looktwice index`: fill a table, or bring it up to date."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.buckets import parse_address
from looktwice.cli import options, tokens
from looktwice.cli.cluster import Distribution
from looktwice.cli.console import TerminalBar, emit, note, plural, progress, say, size
from looktwice.cli.folders import FolderOptions, among, changes, needs_extras, passed_over
from looktwice.cli.groups import grouped, names
from looktwice.cli.kept import KeepOptions, tell_kept
from looktwice.cli.options import DEFAULT_CODEC, DEFAULT_ENCODER
from looktwice.cli.presets import Preset, note_drawings
from looktwice.cli.unused import is_given, refuse_unused
from looktwice.errors import Mismatch, UsageError

if TYPE_CHECKING:
    from looktwice.indexing import IndexReport
    from looktwice.models.cluster import Cluster
    from looktwice.sources import Scan
    from looktwice.store import Table
    from looktwice.types import Encoder


Sources = Annotated[list[str], typer.Argument(metavar="PATH", help="Folders, images, globs, .jsonl, .parquet, .tar.")]
OwnEncoder = Annotated[
    str | None,
    typer.Option(
        help="A name (see `looktwice models`), a folder, a hub id "
        f"[default: the table's; for a new table {DEFAULT_ENCODER}]."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME:TYPE", help="A metadata key to filter on: int, float, str or bool. Repeatable."),
]
Prune = Annotated[
    bool,
    typer.Option("--prune", help="Remove items whose files are gone; items of a folder that is empty now are kept."),
]


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("index", short_help="Fill a table from folders and files, or bring it up to date.")(index)


@grouped
def index(
    ctx: typer.Context,
    path: options.TablePath,
    sources: Sources,
    *,
    encoder: OwnEncoder = None,
    column: Columns = None,
    prune: Prune = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and index files as they change.")] = False,
    max_failures: options.MaxFailures = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images encoded at once.")] = 64,
    mllm: Annotated[str | None, typer.Option(help="Also store this MLLM's visual tokens; see add-tokens.")] = None,
    codec: Annotated[str, typer.Option(help="With --mllm: how its first tokens are kept.")] = DEFAULT_CODEC,
    preset: Preset = None,
    kept: KeepOptions,
    folders: FolderOptions,
    limits: options.ImageLimits,
    spread: Distribution,
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """Fill a table from folders (with subfolders), image files, PDFs, videos, globs, .jsonl lists, Parquet
    files and .tar archives, here or in buckets.

    A .jsonl line is {"id", "image", "text", "metadata"}. Unreadable files go to the ledger, the others are indexed, and
    the exit code is 3. Run the same command again after an interruption, or when files have changed: it skips files
    that are in the table with the same bytes.

    Example: looktwice index photos.lt ~/Pictures --column year:int
    """
    from looktwice.store import parse_columns

    columns = parse_columns(column or ())
    _check(ctx, mllm, codec, folders, prune, kept, sources if watch else ())
    known = kept.known(path)
    roots = () if known is None else known.manifest.roots
    scan = partial(folders.scan, urls=urls.allowed, roots=roots, columns=_filterable(known, columns))
    found = scan(sources)
    compute.set_threads()
    encodes, cluster = encoder_for(encoder, known, compute), spread.connect(ctx)
    if spread.dry_run:
        return spread.plan(cluster, _plan(path, known, encodes, found), json)
    opened = _with_columns(kept.table(path, known, encodes.info, columns), columns)
    settings: dict[str, Any] = dict(batch_size=batch_size, max_failures=max_failures, prune=prune, restore=kept.restore)
    settings["encode"] = _on_cluster(cluster, opened, encodes, batch_size, compute)
    note_drawings(mllm, opened.manifest.encoder.name, new=known is None)
    report = _fill(opened, found, encodes, scan(sources), settings)
    built = _build_index(opened, cluster)
    if not json:
        _tell(opened, report, built)
    training = {"max_failures": max_failures, "urls": urls.allowed}
    how: dict[str, Any] = {"named": is_given(ctx, "codec"), "quiet": json, "cluster": cluster}
    filled = mllm and tokens.fill(opened, mllm, codec, limits, training, compute, **how)
    if json:
        emit({**_record(opened, report, built), "tokens": tokens.record(filled) if filled else None})
    if watch:
        _watch(opened, sources, scan, encodes, settings)
    if report.failed or (filled and filled.failed):
        raise typer.Exit(3)


def _filterable(known: Table | None, columns: Mapping[str, type]) -> dict[str, type]:
    """Return the metadata keys that --where may name: not those of --exif, which come with the image."""
    from looktwice.sources.exif import COLUMNS

    have = {} if known is None else known.columns
    return {**{name: kind for name, kind in have.items() if name not in COLUMNS}, **columns}


def _on_cluster(
    cluster: Cluster | None, table: Table, encoder: Encoder, batch_size: int, compute: options.Compute
) -> Any:
    """Return how a plan is encoded on a cluster; None without one."""
    if cluster is None:
        return None
    from looktwice.indexing.distributed import EncodingJob

    return EncodingJob.of(table, encoder.info, batch_size=batch_size, **compute.placement).on(cluster)


def _plan(path: Path, known: Table | None, encoder: Encoder, found: Scan) -> dict[str, Any]:
    """Return what would be indexed; the sources are listed, but not read."""
    have = 0 if known is None else len(known)
    met = sum(1 for _ in found)
    return {"table": str(parse_address(path) or path), "items_now": have, "sources": met, "encoder": encoder.info.name}


def _watch(
    table: Table, sources: list[str], scan: Callable[..., Scan], encoder: Encoder, settings: dict[str, Any]
) -> None:
    """Index files as they change, until Ctrl-C."""
    for changed in changes(sources, Path(table.path)):
        _refresh(table, scan([one for one in sources if Path(one).exists()]), changed, encoder, settings)


def _check(
    ctx: typer.Context,
    mllm: str | None,
    codec: str,
    folders: FolderOptions,
    prune: bool,
    kept: KeepOptions,
    watched: Sequence[str],
) -> None:
    """Refuse wrong values, and options that do not go together, before anything is loaded."""
    from looktwice.codecs import parse_codec

    kept.side  # noqa: B018  # raises for a side that no preview has
    for name, value in (("--limit", folders.limit), ("--where", folders.where)):
        if prune and value is not None:
            raise UsageError(f"{name} leaves items out, so nothing may be pruned; leave out {name}, or --prune.")
    if there := next(filter(parse_address, watched), None):
        raise UsageError(f"--watch follows folders of this machine only, not {there}; leave it out.")
    if mllm is None:
        refuse_unused(ctx, ("codec", *names(options.ImageLimits)), "without --mllm", "add --mllm NAME, or leave it out")
    else:
        parse_codec(codec)


def _fill(opened: Table, found: Scan, encoder: Encoder, counted: Scan, settings: dict[str, Any]) -> IndexReport:
    """Index the items of `found`, with a progress bar whose total comes from `counted`."""
    from looktwice.indexing import index as bring_up_to_date

    with progress("indexing", "items") as bar:
        if bar.shown:
            _count(counted, bar)
        report = bring_up_to_date(opened, found, encoder, progress=lambda so_far: bar.at(so_far.met), **settings)
    if found.left_out:
        note(f"{plural(found.left_out, 'item')} did not pass --where.")
    return report


def _refresh(opened: Table, found: Scan, changed: set[bytes], encoder: Encoder, settings: dict[str, Any]) -> None:
    """Index changed files. With --prune a deletion means a whole run, as only that knows what is gone."""
    from looktwice.indexing import index as bring_up_to_date

    whole = settings["prune"] and not all(map(os.path.lexists, changed))
    sources = found if whole else list(among(found, changed))
    if not sources:
        return
    report = bring_up_to_date(opened, sources, encoder, **{**settings, "prune": whole})
    _tell(opened, report, _build_index(opened))


def encoder_for(name: str | None, known: Table | None, compute: options.Compute) -> Encoder:
    """Load the named encoder, by default the table's own at its revision. `eval` calls this too."""
    from looktwice.encode import demand_same_model, load_encoder

    if known is not None and name is not None:
        demand_same_model(name, known.manifest.encoder, known.path)
    if known is None or name is not None:
        made = load_encoder(name or DEFAULT_ENCODER, **compute.placement)
    else:
        mine = known.manifest.encoder
        made = load_encoder(mine.name, revision=mine.revision, **compute.placement)
    if known is not None:
        known.manifest.check(made.info, known.path)
    return made


def _with_columns(table: Table, columns: Mapping[str, type]) -> Table:
    """Return a table that has these columns, and perhaps those of --exif. Raises Mismatch if it has others."""
    from looktwice.sources.exif import COLUMNS

    own = {name: kind for name, kind in table.columns.items() if COLUMNS.get(name) is not kind or name in columns}
    if columns and dict(columns) != own:
        have = ", ".join(f"{name}:{kind.__name__}" for name, kind in table.columns.items()) or "none"
        raise Mismatch(
            f"{table.path} has other columns ({have}); add some with: looktwice columns {table.path} add NAME:TYPE"
        )
    return table


def _count(scan: Scan, bar: TerminalBar) -> None:
    """Count items in a daemon thread beside the work, so that the bar can show the time left."""
    Thread(target=lambda: bar.total(sum(1 for _ in scan)), daemon=True).start()


def _build_index(table: Table, cluster: Cluster | None = None) -> Mapping[str, Any] | None:
    if not table.index_is_due:
        return None
    note(f"Building the search index of {len(table):,} items …")
    return table.build_index(None if cluster is None else cluster.map).as_mapping()


def _record(table: Table, report: IndexReport, built: Mapping[str, Any] | None) -> dict[str, Any]:
    per_item = table.info()["bytes_per_item"]
    return {**asdict(report), "items": len(table), "bytes_per_item": per_item["total"], "index": built}


def _tell(table: Table, report: IndexReport, built: Mapping[str, Any] | None) -> None:
    rate = f", {report.met / report.seconds:,.0f} items/s" if report.seconds and report.met else ""
    counts = (
        (n, name)
        for name in ("added", "updated", "unchanged", "failed", "accepted", "pruned")
        if (n := getattr(report, name))
    )
    done = ", ".join(f"{n:,} {name}" for n, name in counts) or "no changes"
    say(f"{table.path}: {done} ({report.seconds:.1f} s{rate})")
    each = f", {size(table.info()['bytes_per_item']['total'])} each" if len(table) else ""
    say(f"{plural(len(table), 'item')}{each}; encoder {table.manifest.encoder.name}")
    if built:
        say(f"search index: {built['kind']}, recall@100 {built['recall']:.4f} on {built['sample']} of its own rows")
    tell_kept(table, report)
    for sentence in passed_over(report.ignored):
        note(sentence)
    if report.skipped:
        note(needs_extras(report.skipped, table.path))
    if gone := report.gone - report.pruned:
        where = "has lost its file" if gone == 1 else "have lost their files"
        fix = "" if report.withheld else f"; pass --prune to remove {'it' if gone == 1 else 'them'}"
        note(f"{plural(gone, 'item')} of the table {where}{fix}.")
    for place in report.withheld:
        note(f"Not pruned: {place} is empty and may be unmounted; mount it, or remove its items with: looktwice delete")
    for place, n in report.unseen.items():
        note(
            f"Not pruned: {plural(n, 'item')} of {place} may be in its unreadable part; "
            f"repair it first (looktwice ledger {table.path})."
        )
    if report.failed:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(report.reasons.items(), key=lambda r: -r[1]))
        note(f"{report.failed:,} failed: {reasons}; list them with: looktwice ledger {table.path}")
    if not len(table):
        note("The table is empty, as no readable image was found; check the paths and the ledger.")
