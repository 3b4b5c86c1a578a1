"""`looktwice calibrate`: learn from labelled queries what the second look's numbers mean."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.answers import check_outputs
from looktwice.cli.console import emit, note, number, plural, progress, table
from looktwice.cli.resume import kept_scores
from looktwice.files import followed


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("calibrate", short_help="Learn from labels what the scores mean.")(calibrate)


def calibrate(
    path: options.TablePath,
    queries: Annotated[Path, typer.Option(help='JSON Lines of {"id", "image", "text"}; paths relative to the file.')],
    qrels: Annotated[Path, typer.Option(help="Labels in TREC format; below 0: left out; not in it: not relevant.")],
    into: Annotated[Path, typer.Option("--out", help="Where the calibration goes.")],
    method: Annotated[str, typer.Option(help="platt (a smooth curve) or isotonic (steps, for many labels).")] = "platt",
    shortlist: options.Shortlist = 50,
    mllm: options.Mllm = "tiny-vl",
    prompt: options.Prompt = "auto",
    score_mode: options.ScoreMode = "p-label",
    retrace: options.Retrace = "off",
    prior: options.Prior = "off",
    direction: options.Direction = "auto",
    codec: options.Codec = "auto",
    score_cache: options.ScoreCache = None,
    allow_urls: options.AllowUrls = False,
    allow_private_urls: options.AllowPrivateUrls = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Score the shortlists of labelled queries and fit what `search --calibration` uses.

    That is: probabilities that can be trusted (--sure 0.95 shows such hits only) and a second look that stops early
    (--budget auto:0.01). A calibration holds for this encoder, model, prompt, mode and codec, and is refused elsewhere.
    Quality is measured on queries that the fit has not seen. An interrupted command goes on where it stopped when it is
    run again.

    Example: looktwice calibrate photos.lt --queries q.jsonl --qrels qrels.txt --out photos.calibration.json
    """
    from looktwice.errors import UnknownName
    from looktwice.evaluate import read_qrels
    from looktwice.models.device import set_threads
    from looktwice.rank.calibration import METHODS, fit, source_of
    from looktwice.search.mllm_reranker import MllmReranker
    from looktwice.search.retriever import Retriever
    from looktwice.search.run_record import RunStats
    from looktwice.sources.queries import Queries

    if method not in METHODS:
        raise UnknownName("calibration method", method, METHODS)
    check_outputs(into, None)
    urls = options.urls(allow_urls, allow_private_urls)
    asked, labels = Queries(queries, urls), read_qrels(qrels)
    set_threads(threads)
    method_of = {"score_mode": score_mode, "retrace": retrace, "prior": prior}
    with kept_scores(score_cache, into) as cache:
        look = MllmReranker(mllm, prompt=prompt, cache=cache, device=device, dtype=dtype, **method_of)
        retriever = Retriever(
            path,
            scorer=look,
            direction=direction,
            ties="coarse",
            shortlist=shortlist,
            codec=codec,
            urls=urls,
            device=device,
            dtype=dtype,
        )
        samples = []
        source: dict[str, Any] = {}
        total = RunStats()
        with closing(look), progress("queries", "queries", len(asked)) as bar:
            for answer in retriever.search_many(asked.kinds_first(labels), k=shortlist):
                if answer.error is not None:
                    raise answer.error
                if answer.settings["second_look"]:  # a prompt for another kind of query is refused now, not later
                    source = source_of(answer.settings)
                samples += answer.samples(labels[answer.query.id])
                total.add(answer.stats)
                bar.advance()
        made = fit(samples, source, method)
        made.save(followed(into))
    _show(made.quality, made.thresholds, json)
    note(f"Calibration: {into}")
    left_out = {name: why for name, why in asked.broken.items() if name in labels}
    for name, why in left_out.items():
        note(f"The query {name} was left out: {why}.")
    if without := total.requested - total.scored:
        note(f"{plural(without, 'pair')} got no score and {'was' if without == 1 else 'were'} left out.")
    if left_out or without:
        raise typer.Exit(3)


def _show(quality: Mapping[str, Any], thresholds: Mapping[str, float], json: bool) -> None:
    if json:
        emit({**quality, "thresholds": thresholds})
        return
    points = [(number(mean), number(share), n) for mean, share, n in quality["reliability_after"]]
    table(["mean p, calibrated", ">share relevant", ">pairs"], points)
    note(f"Calibration error (ECE): {quality['ece_before']:.4f} before, {quality['ece_after']:.4f} after.")
    for precision, least in thresholds.items():
        note(f"--sure {precision} shows hits from p = {least:.6g} on.")
