"""`looktwice tune`: choose prompt and fusion on labelled queries, and say what that gains on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli import options
from looktwice.cli.calibrate import check_labels, naming_the_query, note_skipped, noted
from looktwice.cli.console import emit, note, progress, table
from looktwice.cli.eval.tables import interval
from looktwice.cli.groups import grouped
from looktwice.cli.outputs import check_outputs
from looktwice.cli.resume import kept_scores
from looktwice.cli.unused import refuse_looks, refuse_servers
from looktwice.errors import UsageError
from looktwice.files import followed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from looktwice.evaluate import Qrels
    from looktwice.experiment.gain import Gain
    from looktwice.experiment.labelled import Labelled
    from looktwice.rank import Tuned
    from looktwice.search.retriever import Retriever
    from looktwice.sources.queries import Queries


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("tune", short_help="Choose fusion and prompt, from marks or labels.")(tune)


@dataclass(frozen=True)
class Labels:
    """Labelled queries: the page's marks, or files of queries and of labels."""

    marks: Annotated[
        Path | None, typer.Option(help="Marks downloaded from the page: the archive, or the folder it unpacks to.")
    ] = None
    queries: Annotated[
        Path | None, typer.Option("--queries", help='In place of marks: JSON Lines of {"id", "image", "text"}.')
    ] = None
    qrels: Annotated[
        Path | None, typer.Option(help="In place of marks: labels in TREC format; unlisted items are not relevant.")
    ] = None

    @contextmanager
    def files(self) -> Iterator[tuple[Path, Path]]:
        """Yield the files of queries and labels. Raises UsageError unless they are named in one way."""
        from looktwice.experiment.labelled import unpacked

        if self.marks is not None and self.queries is None and self.qrels is None:
            with TemporaryDirectory() as made:
                yield unpacked(self.marks, Path(made))
        elif self.marks is None and self.queries is not None and self.qrels is not None:
            yield self.queries, self.qrels
        else:
            raise UsageError(
                "The labels are missing or named twice; pass --marks FILE, or both --queries FILE and --qrels FILE."
            )


@grouped
def tune(
    ctx: typer.Context,
    path: options.TablePath,
    *,
    labels: Labels,
    into: Annotated[Path, typer.Option("--out", help="File to write the choice to, for --tuned.")],
    calibration_out: Annotated[
        Path | None, typer.Option(help="Also fit a calibration of the chosen prompt, for --calibration with --tuned.")
    ] = None,
    try_prompt: Annotated[
        list[str] | None, typer.Option(metavar="PROMPT", help="Another prompt to try, beside --prompt. Repeatable.")
    ] = None,
    measure: Annotated[
        str, typer.Option(help="What the choice is to raise: mAP@100, success@1, nDCG@10, …")
    ] = "mAP@100",
    shortlist: options.Shortlist = 50,
    rerank: options.Rerank,
    middle: options.Middle,
    direction: options.Direction = "auto",
    tokens: options.StoredTokens,
    score_cache: options.ScoreCache = None,
    compute: options.Compute,
    urls: options.UrlOptions,
    json: options.Json = False,
) -> None:
    """Choose weights of the fusion, a logistic stack or a prompt on labelled queries, for `search --tuned`.

    Nothing is trained but the stack's few numbers. The gain is measured by cross-validation, on queries that chose
    nothing; those that share a relevant item stay together. If its 95 % interval holds 0, no file is written. The file
    holds for this encoder, model, prompt, mode and codec. An interrupted command continues when it is run again.

    Example: looktwice tune photos.lt --marks looktwice-marks.zip --out photos.tuned.json
    """
    from looktwice.evaluate import read_qrels
    from looktwice.experiment.choosing import Chooser
    from looktwice.rank import Tuned
    from looktwice.search.ranking_config import RankingConfig
    from looktwice.search.retriever import Retriever
    from looktwice.sources.queries import Queries

    _check(ctx, into, calibration_out, measure)
    compute.set_threads()
    rules: dict[str, Any] = {**middle.rules, **tokens.choice, **compute.placement}
    rules |= {"direction": direction, "ties": "coarse", "shortlist": shortlist, "urls": urls.allowed}
    with labels.files() as (asked_file, labels_file), kept_scores(score_cache, into) as cache:
        asked, grades = Queries(asked_file, urls.allowed), read_qrels(labels_file)
        answers, sources = {}, {}
        for prompt in dict.fromkeys([rerank.prompt, *(try_prompt or ())]):
            with closing(rerank.load(compute, cache=cache, prompt=prompt)) as look:
                opened = Retriever(path, scorer=look, **rules)
                refuse_looks(ctx, opened)
                check_labels(opened.table, asked, grades, labels_file)
                answers[prompt], sources[prompt] = _answers(opened, asked, grades, labels.marks is not None)
    found = Chooser(answers, RankingConfig.of(maxsim=opened.config.maxsim).fusion, measure).select()
    record = {"measure": measure, **found.record()}
    _show(record, json)
    refuse_chance(found.gain, measure, into)
    prompt = found.choice.prompt
    _save(Tuned(sources[prompt], prompt, str(found.choice.fusion), record), into, answers[prompt], calibration_out)
    refuse_skipped(asked, grades)


def _check(ctx: typer.Context, into: Path, calibration: Path | None, measure: str) -> None:
    """Refuse files that cannot be written and an unknown measure now, not after the last query."""
    from looktwice.evaluate import Measure

    refuse_servers(ctx)
    Measure.parse(measure)
    check_outputs(into, None)
    if calibration is not None:
        check_outputs(calibration, None)
    if calibration == into:
        raise UsageError(f"--out and --calibration-out both name {into}; name two files.")


def _save(tuned: Tuned, into: Path, answers: Sequence[Labelled], calibration: Path | None) -> None:
    """Write what was chosen and, if a file is named, a calibration of the answers to its prompt."""
    from looktwice.rank.calibration import AUTO, fit

    tuned.save(followed(into))
    note(f"Tuned fusion: {into}")
    if calibration is not None:
        made = fit((pair for answer in answers for pair in answer.samples()), tuned.source, AUTO)
        made.save(followed(calibration))
        note(f"Calibration: {calibration} ({made.method})")


def refuse_chance(gain: Gain, measure: str, into: Path) -> None:
    """Raise UsageError for a gain that may be chance."""
    if not gain.claimed:
        why = f"No gain can be claimed: the interval of the gain in {measure} includes 0"
        raise UsageError(f"{why}, so {into} was not written; label more queries.")


def refuse_skipped(asked: Queries, labels: Qrels) -> None:
    """Name the queries that could not be read, and end with exit code 3 if there are any."""
    if note_skipped(asked, labels):
        raise typer.Exit(3)


def _answers(opened: Retriever, asked: Queries, labels: Qrels, judged: bool) -> tuple[list[Labelled], dict[str, Any]]:
    """Return the answers to labelled queries, and the settings they were made with."""
    from looktwice.experiment.labelled import Labelled
    from looktwice.rank.calibration import source_of
    from looktwice.search.run_record import RunStats

    answers: list[Labelled] = []
    source: dict[str, Any] = {}
    total, read = RunStats(), []  # type: tuple[RunStats, list[str]]
    with progress("queries", "queries", len(asked)) as bar, naming_the_query(read, total):
        for answer in opened.search_many(noted(asked.kinds_first(labels), read), k=opened.shortlist):
            if answer.error is not None:
                raise answer.error
            source = source_of(answer.settings)  # refuses mixed prompts at once, not after the last query
            answers.append(Labelled.of(answer, labels[answer.query.id], judged))
            total.add(answer.stats)
            bar.advance()
    return answers, source


def _show(record: dict[str, Any], json: bool) -> None:
    if json:
        emit(record)
        return
    show_gain(record, "default", "chosen, on other queries")
    note(f"Chosen on all {record['queries']:,} queries: prompt {record['prompt']}, fusion {record['fusion']}.")
    note(f"Chosen without each fifth: {'; '.join(record['folds'])}.")


def show_gain(record: Mapping[str, Any], before: str, after: str) -> None:
    """Print a measured gain as a table; `before` and `after` name what is compared."""
    head = ["measure", ">groups of queries", f">{before}", f">{after}", ">gain"]
    means = [f"{record[name]:.3f}" for name in ("before", "after")]
    table(head, [[record["measure"], record["groups"], *means, interval(record["gain"])]])
