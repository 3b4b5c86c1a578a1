"""Explain one pair: what the model answered, how the score is made up, and what of the candidate mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from looktwice.encode import query_encoder
from looktwice.errors import QueryError
from looktwice.rank import fuse
from looktwice.score import Scorer
from looktwice.score.prompting import built_in
from looktwice.search.first_look import FirstLook
from looktwice.search.retriever import Retriever
from looktwice.serve.hits import plain
from looktwice.serve.jobs import Emit
from looktwice.serve.occlusion import occlusion_map
from looktwice.serve.problems import Problem
from looktwice.serve.scorers import QueuedReranker
from looktwice.serve.tables import prompted
from looktwice.sources.loader import ImageLoader, LoadError
from looktwice.types import SCORED, Candidate, FloatArray, Item, PairScores


@dataclass(frozen=True)
class ExplainedPair:
    """A query and a candidate, each an item or the id of one. `retriever` is that of the table, if one is needed.

    `text` takes the place of the text of a query that is an id.
    """

    query: Item | str
    candidate: Item | str
    retriever: Retriever | None
    text: str | None = None


@dataclass(frozen=True)
class Explanation:
    """One explanation to make; `run` makes it, on a thread that may block."""

    reranker: QueuedReranker
    pair: ExplainedPair
    prompt: str | None
    cells: int

    def run(self, emit: Emit) -> dict[str, Any]:
        """Return the body of the answer."""
        query, _ = self._item(self.pair.query, "query.item", None)
        query = query if self.pair.text is None else replace(query, text=self.pair.text)
        stand_in, _ = self._item(self.pair.candidate, "candidate.item", None)
        scorer = prompted(self.reranker, self.prompt).scorer_for(query, [stand_in])
        candidate, size = self._item(self.pair.candidate, "candidate.item", scorer)
        query = self._shown(query, scorer)
        candidate = _with_tokens(scorer, candidate)
        scores = scorer.score(query, [candidate])
        if scores.status[0] not in SCORED:
            raise Problem(422, "not_scored", f"The pair got no score ({scores.status[0]}).")
        p = float(scores.p[0])
        found = {"p": p, **self._score(query, scores), "labels": _labels(scorer, scores), "map": None}
        if self.cells and candidate.tokens is not None and size is not None:

            def p_of(variants: Sequence[Item]) -> FloatArray:
                return scorer.score(query, variants).p

            found["map"] = occlusion_map(p_of, candidate, size, p, self.cells).record()
        return {**found, "prompt": scorer.settings().get("prompt"), "model": plain(scorer.settings().get("mllm"))}

    def _item(self, given: Item | str, param: str, scorer: Scorer | None) -> tuple[Item, tuple[int, int] | None]:
        """Return an item and the size of its image. With `scorer` a stored one has its stored tokens, if any."""
        if isinstance(given, Item):
            return given, None if given.image is None else given.image.size
        retriever = self._demand_table(param)
        rows = retriever.table.lookup([given], ["id", "width", "height"])
        if not rows:
            raise Problem(404, "unknown_item", "The table has no item of this id.", param)
        entry = retriever.loader.find([given])[0]
        loader = ImageLoader(0) if scorer is None else retriever.loader.for_scorer(scorer)
        found = next(iter(next(iter(loader.load([entry])))))
        if isinstance(found, LoadError):
            raise Problem(409, "image_missing", f"The item's image cannot be read ({found.why.reason}).", param)
        return found, (rows[0]["width"], rows[0]["height"]) if rows[0]["width"] else None

    def _demand_table(self, param: str) -> Retriever:
        if self.pair.retriever is None:
            raise Problem(400, "table_needed", "An id needs a table.", param)
        return self.pair.retriever

    def _shown(self, query: Item, scorer: Scorer) -> Item:
        """Return the query as a search shows it: through the codec of the stored tokens, if there are any."""
        if self.pair.retriever is None or isinstance(self.pair.candidate, Item):
            return query
        return self.pair.retriever.loader.for_scorer(scorer).query(query)

    def _score(self, query: Item, scores: PairScores) -> dict[str, Any]:
        """Return each look's part of the score; without a table there is no coarse score."""
        retriever, name = self.pair.retriever, self.pair.candidate
        if retriever is None or isinstance(name, Item):
            (hit,) = fuse([Candidate("candidate", 0.0)], scores, "p-only", explain=True)
            return {"contributions": None, **_numbers(hit.explain or {})}
        coarse = _cosine(retriever, query, name)
        (hit,) = fuse([Candidate(name, coarse)], scores, retriever.config.fusion, explain=True)
        fusion = retriever.config.fusion
        parts: dict[str, Any] = {"fusion": str(fusion), "coarse": coarse, "score": hit.score}
        if fusion.method == "linear":
            parts |= fusion.parts(coarse, None, float(scores.p[0]))
        return {"contributions": parts, **_numbers(hit.explain or {})}


def _cosine(retriever: Retriever, query: Item, name: str) -> float:
    import numpy as np

    vector = FirstLook(retriever.table, query_encoder(retriever.encoder), 1).vector(query)
    if isinstance(vector, QueryError):
        raise vector
    stored = retriever.table.get([name])[0].vector
    return float(vector @ stored / (np.linalg.norm(vector) * np.linalg.norm(stored)))


def _with_tokens(scorer: Scorer, candidate: Item) -> Item:
    """Return the candidate with its visual tokens, if the scorer can make them."""
    maker = scorer.tokens()
    if maker is None or candidate.tokens is not None or candidate.image is None:
        return candidate
    return replace(candidate, tokens=maker.visual_tokens([candidate])[0])


def _numbers(explain: Mapping[str, Any]) -> dict[str, Any]:
    return {"entropy": explain.get("entropy"), "off_mass": explain.get("off_mass")}


def _labels(scorer: Scorer, scores: PairScores) -> list[dict[str, Any]]:
    """Return the labels with their share among themselves and their probability among all tokens."""
    (hit,) = fuse([Candidate("candidate", 0.0)], scores, "p-only", explain=True)
    made_of = hit.explain or {}
    shares, off = made_of.get("labels") or [], made_of.get("off_mass")
    prompt = built_in.PROMPTS.get(str(scorer.settings().get("prompt")))
    known = [] if prompt is None else prompt.labels
    if len(known) != len(shares):
        return [{"name": str(number), "share": share} for number, share in enumerate(shares)]
    return [
        {
            "name": label.name,
            "value": label.value,
            "share": share,
            "probability": None if off is None else share * (1 - off),
        }
        for label, share in zip(known, shares, strict=True)
    ]
