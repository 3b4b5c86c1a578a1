"""`looktwice calibrate`: fit probabilities to the second look's scores, from labelled queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.console import emit, note, number, plural, progress, table
from looktwice.cli.groups import grouped
from looktwice.cli.outputs import check_outputs
from looktwice.cli.resume import kept_scores
from looktwice.cli.unused import refuse_looks, refuse_servers
from looktwice.errors import QueryError, UsageError
from looktwice.files import followed
from looktwice.rank.calibration import PRECISIONS

if TYPE_CHECKING:
    from looktwice.evaluate import Qrels
    from looktwice.rank.calibration import Sample
    from looktwice.search.retriever import Retriever
    from looktwice.search.run_record import RunStats
    from looktwice.sources.queries import Queries
    from looktwice.store import TableReader
    from looktwice.types import Item


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("calibrate", short_help="Fit probabilities to scores, from labels.")(calibrate)


@grouped
def calibrate(
    ctx: typer.Context,
    path: options.TablePath,
    *,
    queries: options.QueryFile,
    qrels: Annotated[
        Path, typer.Option(help="Labels in TREC format; pairs below 0 are skipped, unlisted ones are not relevant.")
    ],
    into: Annotated[Path, typer.Option("--out", help="File to write the calibration to.")],
    method: Annotated[
        str, typer.Option(help="platt (a smooth curve), isotonic (steps, for many labels) or auto (the better one).")
    ] = "platt",
    shortlist: options.Shortlist = 50,
    rerank: options.Rerank,
    direction: options.Direction = "auto",
    tokens: options.StoredTokens,
    score_cache: options.ScoreCache = None,
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """Score the shortlists of labelled queries and fit a calibration for `search --calibration`.

    A calibration maps scores to probabilities (--min-precision 0.95 shows only hits with that precision) and lets the
    second look stop early (--budget auto:0.01). It holds for this encoder, model, prompt, mode and codec; `search`
    refuses it with others. Quality is measured on queries that the fit has not seen. An interrupted command continues
    when it is run again.

    Example: looktwice calibrate photos.lt --queries q.jsonl --qrels qrels.txt --out photos.calibration.json
    """
    from looktwice.errors import UnknownName
    from looktwice.evaluate import read_qrels
    from looktwice.rank.calibration import AUTO, METHODS, fit
    from looktwice.search.retriever import Retriever
    from looktwice.sources.queries import Queries

    if method not in (*METHODS, AUTO):
        raise UnknownName("calibration method", method, (*METHODS, AUTO))
    refuse_servers(ctx)
    check_outputs(into, None)
    asked, labels = Queries(queries, urls.allowed), read_qrels(qrels)
    compute.set_threads()
    with kept_scores(score_cache, into) as cache:
        look = rerank.load(compute, cache=cache)
        rules = {"direction": direction, "ties": "coarse", **tokens.choice}
        opened = Retriever(path, scorer=look, shortlist=shortlist, urls=urls.allowed, **rules, **compute.placement)
        refuse_looks(ctx, opened)
        check_labels(opened.table, asked, labels, qrels)
        with closing(look):
            samples, source, total = _scored(opened, asked, labels, shortlist)
        made = fit(samples, source, method)
        made.save(followed(into))
    _show(made.quality, made.thresholds, json)
    note(f"Calibration: {into} ({made.method})")
    left_out = note_skipped(asked, labels)
    if without := total.requested - total.scored:
        note(f"{plural(without, 'pair')} got no score and {'was' if without == 1 else 'were'} skipped.")
    if left_out or without:
        raise typer.Exit(3)


def note_skipped(asked: Queries, labels: Qrels) -> int:
    """Name the queries that could not be read, and return their number; those without a label do not count."""
    left_out = asked.bad_lines | {name: why for name, why in asked.broken.items() if name in labels}
    for name, why in left_out.items():
        note(f"Query {name} was skipped: {why}.")
    return len(left_out)


def check_labels(table: TableReader, asked: Queries, labels: Qrels, qrels: Path) -> None:
    """Raise UsageError for labels that no fit can use, before anything is scored."""
    mine = {name: labels[name] for name in asked.ids if name in labels}
    if len(mine) < 2:
        some = ", ".join(map(repr, [*labels][:2]))
        raise UsageError(
            f"{qrels} has labels for {plural(len(mine), 'query', 'queries')} of the file, but two or more are "
            f"needed; use the same ids in both ({qrels} has {some}, …)."
        )
    check_items(table, mine, qrels)


def check_items(table: TableReader, labels: Qrels, qrels: Path) -> None:
    """Raise UsageError if the table has no item that the labels call relevant."""
    relevant = {item for grades in labels.values() for item, grade in grades.items() if grade > 0}
    if not relevant:
        raise UsageError(f"{qrels} calls no item relevant: none of these labels is above 0; check its last column.")
    if not table.lookup(relevant, ["id"]):
        some, own = (", ".join(map(repr, found)) for found in (sorted(relevant)[:2], _ids(table)))
        raise UsageError(
            f"{qrels} names items that {table.path} does not have ({some}); write the ids in {qrels} as the table "
            f"does ({own or 'it is empty'})."
        )


def _ids(table: TableReader) -> list[str]:
    return [str(row["id"]) for row in islice(table.rows(["id"]), 2)]


def _scored(
    opened: Retriever, asked: Queries, labels: Qrels, shortlist: int
) -> tuple[list[Sample], dict[str, Any], RunStats]:
    """Score the shortlists of labelled queries; return the pairs, the settings they were made with, and the counts."""
    from looktwice.rank.calibration import source_of
    from looktwice.search.run_record import RunStats

    samples: list[Sample] = []
    source: dict[str, Any] = {}
    total = RunStats()
    read: list[str] = []
    with progress("queries", "queries", len(asked)) as bar, naming_the_query(read, total):
        for answer in opened.search_many(noted(asked.kinds_first(labels), read), k=shortlist):
            if answer.error is not None:
                raise answer.error
            if answer.settings["second_look"]:  # refuses mixed prompts at once, not after the last query
                source = source_of(answer.settings)
            samples += answer.samples(labels[answer.query.id])
            total.add(answer.stats)
            bar.advance()
    return samples, source, total


def noted(queries: Iterable[Item], read: list[str]) -> Iterator[Item]:
    """Yield queries, and note their ids in `read`."""
    for query in queries:
        read.append(query.id)
        yield query


@contextmanager
def naming_the_query(read: list[str], total: RunStats) -> Iterator[None]:
    """Put the id of the query that was refused before the refusal; `total` counts the queries that are done."""
    try:
        yield
    except UsageError as error:
        name = error.query if isinstance(error, QueryError) else next(iter(read[total.queries :]), None)
        if name is None or repr(name) in str(error):
            raise
        raise UsageError(f"Query {name!r}: {error}") from error


def _show(quality: Mapping[str, Any], thresholds: Mapping[str, float], json: bool) -> None:
    if json:
        emit({**quality, "thresholds": thresholds})
        return
    points = [(number(mean), number(share), n) for mean, share, n in quality["reliability_after"]]
    table(["mean p, calibrated", ">share relevant", ">pairs"], points)
    error = quality["ece_after"]
    after = "unknown, as no fold leaves both kinds of labels" if error is None else f"{error:.4f} after"
    held = f", on {quality['held_out']:,} held-out pairs of {quality['pairs']:,}" if "held_out" in quality else ""
    note(f"Calibration error (ECE): {quality['ece_before']:.4f} before, {after}{held}.")
    for precision in PRECISIONS:
        least = thresholds.get(f"{precision:g}")
        if least is not None:
            note(f"--min-precision {precision:g} shows hits with p ≥ {least:.6g}.")
    missed = ", ".join(f"{precision:g}" for precision in PRECISIONS if f"{precision:g}" not in thresholds)
    if missed:
        note(f"Precisions that these labels cannot promise for other queries: {missed}; label more queries.")
