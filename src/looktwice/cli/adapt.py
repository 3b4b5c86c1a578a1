"""`looktwice adapt`: learn a linear adaptation of a table's encoder, and say what it gains on other queries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from looktwice.cli import options
from looktwice.cli.calibrate import check_labels
from looktwice.cli.console import emit, note, progress
from looktwice.cli.groups import grouped
from looktwice.cli.outputs import check_outputs
from looktwice.cli.tune import Labels, refuse_chance, refuse_skipped, show_gain
from looktwice.errors import QueryError, UsageError
from looktwice.files import followed, write_whole

if TYPE_CHECKING:
    from looktwice.evaluate import Qrels
    from looktwice.experiment.adapting import AskedVectors
    from looktwice.search.retriever import Retriever
    from looktwice.sources.queries import Queries


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("adapt", short_help="Adapt an encoder's vectors, from marks or labels.")(adapt)


@grouped
def adapt(
    path: options.TablePath,
    *,
    labels: Labels,
    into: Annotated[Path, typer.Option("--out", help="File to write the adaptation to (.npz).")],
    measure: Annotated[str, typer.Option(help="What it is to raise: mAP@100, success@1, nDCG@10, …")] = "mAP@100",
    depth: Annotated[int, typer.Option(min=1, help="Number of the first look's best to order anew.")] = 200,
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """Learn a linear adaptation of a table's encoder from labelled queries, for `index --encoder NAME+linear:FILE`.

    Directions in which queries differ from their relevant items count less in it. No MLLM is loaded. The gain of the
    first look is measured by cross-validation, on queries that taught nothing. If its 95 % interval holds 0, no file is
    written.

    Example: looktwice adapt photos.lt --marks looktwice-marks.zip --out photos.npz
    """
    from looktwice.encode.name import LINEAR, parse
    from looktwice.evaluate import Measure, read_qrels
    from looktwice.experiment.adapting import adapt as learn
    from looktwice.search.retriever import Retriever
    from looktwice.sources.queries import Queries

    check_outputs(into, None)
    if into.suffix != ".npz":
        raise UsageError(f"--out {into} must end in .npz, by which `index` knows the form of an adaptation.")
    Measure.parse(measure)  # refuses a misspelt one now, not after the last query
    compute.set_threads()
    with labels.files() as (asked_file, labels_file):
        asked, grades = Queries(asked_file, urls.allowed), read_qrels(labels_file)
        opened = Retriever(path, shortlist=depth, urls=urls.allowed, **compute.placement)
        name = opened.table.manifest.encoder.name
        if parse(name).linear is not None:
            raise UsageError(f"{path} has vectors of {name}, which are adapted already; adapt a table without {LINEAR}")
        check_labels(opened.table, asked, grades, labels_file)
        found = learn(list(_asked(opened, asked, grades, labels.marks is not None)), measure)
    record = {"measure": measure, **found.gain.record()}
    emit(record) if json else show_gain(record, "first look", "adapted, on other queries")
    refuse_chance(found.gain, measure, into)
    write_whole(followed(into), found.file)
    note(f"Adaptation: {into}; use it with: looktwice index NEW.lt FOLDER --encoder {name}{LINEAR}{into}")
    refuse_skipped(asked, grades)


def _asked(opened: Retriever, asked: Queries, labels: Qrels, judged: bool) -> Iterator[AskedVectors]:
    """Yield the vectors of labelled queries, of the first look's best and of the relevant items."""
    from looktwice.encode import query_encoder
    from looktwice.encode.mixing import unit
    from looktwice.experiment.adapting import AskedVectors
    from looktwice.search.first_look import FirstLook
    from looktwice.search.retriever import BATCH
    from looktwice.sources.loader import in_chunks

    first_look = FirstLook(opened.table, query_encoder(opened.encoder), opened.shortlist)
    with progress("queries", "queries", len(asked)) as bar:
        for batch in in_chunks(asked.kinds_first(labels), BATCH):
            for found in first_look.at(batch):
                if isinstance(query := found.query, QueryError):
                    raise query
                grades = dict(labels[query.id])
                there = [row["id"] for row in opened.table.lookup(grades, ["id"])]
                ids = list(dict.fromkeys([*(candidate.id for candidate in found.shortlist), *there]))
                vector, items = unit(found.vector[None])[0], opened.table.vectors(ids)
                yield AskedVectors(query.id, vector, ids, len(found.shortlist), items, grades, judged)
                bar.advance()
