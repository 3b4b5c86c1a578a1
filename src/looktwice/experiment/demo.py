"""Run the demo: index the bundled gallery, run its labelled queries, measure every stage, write the report.

    gallery/images/*.jpg   gallery/queries.jsonl   gallery/queries/*.jpg   gallery/qrels.txt (TREC)

The bundled gallery's text queries are names that training has met, in drawings by an artist whom it has not;
`demo_words` composes harder ones.

This module joins the work of `looktwice index`, `search` and `eval`, and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.encode import load_encoder
from looktwice.errors import UsageError
from looktwice.evaluate import read_qrels, write_run
from looktwice.evaluate.groups import measure_group
from looktwice.experiment.demo_words import word_queries
from looktwice.experiment.progress import Bar
from looktwice.experiment.tokens import store_tokens
from looktwice.indexing import IndexReport, index
from looktwice.rank import fuse
from looktwice.report import write_report
from looktwice.report.viewer import Viewer
from looktwice.search.answer import Answer
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.search.run_record import RunStats, run_manifest
from looktwice.sources import scan
from looktwice.sources.queries import Queries
from looktwice.store import Table

if TYPE_CHECKING:
    from looktwice.evaluate import Qrels, Run
    from looktwice.types import Encoder, Item

MEASURES = ("mAP@20", "success@1", "oracle@20")


@dataclass(frozen=True, slots=True)
class Demo:
    """The results: a row per kind of query and stage, the report's path, the manifest, the number of unscored pairs."""

    rows: list[dict[str, Any]]
    report: Path
    manifest: dict[str, Any]
    indexed: IndexReport
    unscored: int


def run_demo(
    folder: Path,
    look: MllmReranker,
    *,
    gallery: Path | None = None,
    encoder: str = "tiny-clip",
    shortlist: int = 50,
    fusion: str = "auto",
    maxsim: int = 1000,
    words: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    indexing: Bar,
    searching: Bar,
) -> Demo:
    """Run the demo in `folder`. Images indexed there before are not indexed again.

    With `words` it also asks for clip art, in composed scenes (see `demo_words`).

    Raises UsageError if the gallery is missing, and the errors of indexing and searching.
    """
    folder.mkdir(parents=True, exist_ok=True)
    composed = word_queries(folder / "words") if words else None
    gallery = gallery or bundled_gallery()
    queries, qrels = Queries(gallery / "queries.jsonl"), read_qrels(gallery / "qrels.txt")
    loaded = load_encoder(encoder, device=device, dtype=dtype)
    places = [gallery / "images", *([] if composed is None else [composed.scenes])]
    table, indexed, maxsim = fill_gallery(folder, look, places, loaded, maxsim, indexing)
    retriever = Retriever(table, loaded, look, fusion=fusion, shortlist=shortlist, maxsim=maxsim)
    more: Sequence[Item] = () if composed is None else composed.queries
    searching.total(len(queries) + len(more))
    answers = []
    for answer in retriever.search_many(chain(queries, more)):
        answers.append(answer)
        searching.at(len(answers))
    if not answers:
        raise UsageError(f"{gallery} has no readable query; pass another --gallery.")
    kinds = {} if composed is None else composed.kinds
    qrels |= {} if composed is None else composed.qrels
    rows = list(_rows(answers, qrels, kinds, table.info()["bytes_per_item"]))
    total = RunStats.total(answer.stats for answer in answers)
    manifest = run_manifest(answers[-1].settings, total)
    viewer = Viewer(retriever.loader.find, qrels, MEASURES, retriever.middle)
    report = _write(folder, answers, viewer, manifest, rows)
    return Demo(rows, report, manifest, indexed, total.requested - total.scored + len(queries.broken))


def _write(
    folder: Path,
    answers: Sequence[Answer],
    viewer: Viewer,
    manifest: dict[str, Any],
    rows: list[dict[str, Any]],
) -> Path:
    """Write a TREC run for every stage, and the report; return the report's path."""
    write_run(folder / "shortlist.trec", _first(answers))
    if any(answer.middle for answer in answers):
        write_run(folder / "middle-look.trec", _middle(answers))
    write_run(folder / "second-look.trec", _second(answers))
    report = folder / "report.html"
    views = [viewer.view(answer) for answer in answers]
    write_report(report, title="looktwice demo", manifest=manifest, queries=views, summary=rows)
    return report


def fill_gallery(
    folder: Path, look: MllmReranker, images: list[Path], loaded: Encoder, maxsim: int, bar: Bar
) -> tuple[Table, IndexReport, int]:
    """Index images and store their tokens for a middle look; return also the depth that this look can have."""
    folder.mkdir(parents=True, exist_ok=True)
    table, indexed = _index(folder / "gallery.lt", images, loaded, bar)
    maxsim = maxsim if maxsim and store_tokens(table, look, "auto", bar) else 0
    if maxsim:
        store_tokens(table, look, "auto", bar, crops=True)
    return table, indexed, maxsim


def bundled_gallery() -> Path:
    """Return the folder of the bundled gallery. Raises UsageError if it is missing."""
    path = Path(str(resources.files("looktwice"))) / "assets" / "tiny" / "gallery"
    if not (path / "queries.jsonl").is_file():
        raise UsageError("This installation lacks the bundled gallery; reinstall looktwice.")
    return path


def _index(path: Path, images: list[Path], loaded: Encoder, bar: Bar) -> tuple[Table, IndexReport]:
    known = (path / "manifest.json").exists()
    table = Table.open(path, loaded.info) if known else Table.create(path, loaded.info)
    found = scan(images, roots=table.manifest.roots)
    bar.total(sum(1 for _ in found))
    return table, index(table, found, loaded, prune=True, progress=lambda report: bar.at(report.met))


def _rows(
    answers: Sequence[Answer], qrels: Qrels, kinds: Mapping[str, str], sizes: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield a row per stage for each kind of query: first look, middle look if there was one, second look.

    `kinds` names the kinds of composed queries, by query id.
    """
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(_kind(answer, kinds), []).append(answer)
    if len(groups) > 1:
        groups["all"] = list(answers)
    for kind, chosen in groups.items():
        labels = {answer.query.id: qrels.get(answer.query.id, {}) for answer in chosen}
        spent = RunStats.total(answer.stats for answer in chosen)
        first = spent.seconds["encode"] + spent.seconds["search"]
        middle = first + spent.seconds["maxsim"]
        second = middle + spent.seconds["read"] + spent.seconds["score"]
        stages: list[tuple[str, Run, float, float | None]] = [("first look", _first(chosen), first, None)]
        if any(answer.middle for answer in chosen):
            stages.append(("middle look", _middle(chosen), middle, None))
        stages.append(("second look", _second(chosen), second, spent.pairs_per_second))
        for ranking, run, seconds, rate in stages:
            measured = measure_group(run, labels, MEASURES)
            about = {"queries": f"{kind} ({len(chosen)})", "ranking": ranking}
            size = sizes["total"] - (sizes["tokens"] if ranking == "first look" else 0)
            costs = {"seconds": seconds, "pairs/s": rate, "bytes/item": size}
            yield about | {name: measured[name] for name in MEASURES} | costs


def _kind(answer: Answer, kinds: Mapping[str, str]) -> str:
    query = answer.query
    if query.id in kinds:
        return kinds[query.id]
    return "text" if query.image is None else "image and text" if query.text else "image"


def _first(answers: Sequence[Answer]) -> Run:
    return {answer.query.id: [(c.id, c.coarse) for c in answer.shortlist] for answer in answers}


def _middle(answers: Sequence[Answer]) -> Run:
    orders = {answer.query.id: fuse(answer.middle or answer.shortlist, None) for answer in answers}
    return {name: [(hit.id, hit.score) for hit in order] for name, order in orders.items()}


def _second(answers: Sequence[Answer]) -> Run:
    return {answer.query.id: [(hit.id, hit.score) for hit in answer.ranking] for answer in answers}
