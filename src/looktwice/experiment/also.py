"""Score the shortlists of a run with other rerankers, so that each is one more row beside the second look.

Every one sees the same candidates with the same prompt, is fused by the same rule, and has its λ chosen on the same
queries. Its answers lie in OUT/also/NAME and are continued after a stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from looktwice.checked import finite
from looktwice.errors import UsageError
from looktwice.evaluate import Result
from looktwice.evaluate.compare import compare
from looktwice.evaluate.datasets import Dataset
from looktwice.experiment.answers import Answers, digest, prompt_hash
from looktwice.experiment.counts import compared
from looktwice.experiment.progress import Bar
from looktwice.experiment.stored import StoredAnswer
from looktwice.experiment.systems import System, slug
from looktwice.rank import Fusion
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.search.run_record import RunStats
from looktwice.search.token_choice import CandidateLoader
from looktwice.sources import Urls
from looktwice.types import SCORED

FIRST = ("encode", "search", "maxsim")
"""Stages whose seconds every reranker shares."""


@dataclass(frozen=True)
class Other:
    """Another reranker's answers, its row and the row of its p alone."""

    answers: Sequence[StoredAnswer]
    system: System
    alone: System

    @property
    def rows(self) -> dict[str, Sequence[StoredAnswer]]:
        """Return the answers by the name of each of its rows."""
        return {self.system.name: self.answers, self.alone.name: self.answers}

    @classmethod
    def of(cls, name: str, answers: Sequence[StoredAnswer], fusion: Fusion, depth: int) -> Other:
        """Return the rows of a reranker with a fusion."""
        return cls(answers, System(name, fusion, depth), System(f"{name}, p alone", Fusion("linear", 0.0), depth))


def name_of(look: MllmReranker) -> str:
    """Return the name of a reranker's row."""
    return look.mllm if isinstance(look.mllm, str) else type(look.mllm).__name__


def check_names(looks: Sequence[MllmReranker]) -> None:
    """Raise UsageError for rerankers whose rows or folders would be the same."""
    slugs = [slug(name_of(look)) for look in looks]
    if len(set(slugs)) < len(slugs) or set(slugs) & {"shortlist", "middle-look", "second-look"}:
        raise UsageError(
            "Two re-rankers of --also have the same name, or one is named like a row of the run (shortlist, …); "
            "leave it out."
        )


def rescored(
    dataset: Dataset,
    answers: Sequence[StoredAnswer],
    look: MllmReranker,
    retriever: Retriever,
    folder: Path,
    urls: Urls,
    bar: Bar,
) -> list[StoredAnswer]:
    """Return the answers with the scores of another reranker in place of the second look's.

    Finished ones are read from `folder`/also. Raises Mismatch if those are of other shortlists or another model.
    """
    shown = digest([(answer.query, answer.ids[: len(answer.p)]) for answer in answers])
    settings = {"mllm": name_of(look), "prompt": look.prompt, **prompt_hash(look), "shortlists": shown}
    kept = Answers(folder / "also" / slug(name_of(look)), settings)
    loader = CandidateLoader.for_table(retriever.table, urls)
    queries = {query.id: query for query in dataset.queries}
    bar.total(len(answers))
    for done, answer in enumerate(answers, start=1):
        if answer.query not in kept.rows:
            stats = RunStats()
            query = retriever.reader.read(queries[answer.query].load(), answer.query)
            with stats.time("read"):
                found = loader.find(answer.ids[: len(answer.p)])
            scores = look.score(query, retriever.config.direction.candidates(found), loader, stats)
            kept.keep(_with_scores(answer, scores, stats), {"second_look": look.settings()})
        bar.at(done)
    return [kept.rows[answer.query] for answer in answers]


def _with_scores(answer: StoredAnswer, scores: Any, stats: RunStats) -> StoredAnswer:
    rows = range(0 if scores is None else len(scores.p))
    p = tuple(float(scores.p[i]) if scores.status[i] in SCORED else None for i in rows)
    entropy = tuple(finite(scores.entropy[i]) for i in rows)
    gone = tuple(answer.ids[i] for i in rows if scores.status[i] == "missing")
    spent = {stage: round(stats.seconds[stage], 5) for stage in ("read", "score")}
    seconds = {stage: answer.seconds[stage] for stage in FIRST if stage in answer.seconds} | spent
    return replace(answer, p=p, entropy=entropy, second={}, seconds=seconds, missing=gone)


def told(
    names: Sequence[str], found: Mapping[str, Result], measure: str, first: str, last: str
) -> Iterator[dict[str, Any]]:
    """Yield the paired differences of each of these systems from the shortlist and from the second look."""
    values = {name: result.per_query[measure] for name, result in found.items()}
    for name in names:
        own = values[name]
        yield {
            "system": name,
            "measure": measure,
            "against_shortlist": compared(compare(own, values[first])),
            "against_second_look": compared(compare(own, values[last])),
        }
