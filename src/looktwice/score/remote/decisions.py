"""Score pairs by the decisions route of a server: P(yes) of one question per candidate over the query as evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from looktwice.errors import ServerError
from looktwice.score.remote.direct import DirectAnswer, DirectScorer, Form, probability
from looktwice.score.remote.questions import question
from looktwice.score.remote.wording import clean
from looktwice.types import Item


class DecisionsScorer(DirectScorer):
    """Asks OpenAI's decisions route, or one of its shape: the query once, and a predicate for each candidate."""

    path = "decisions"
    chunk = 16

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for a run's manifest; see Scorer."""
        return {**super().settings(), "question": question(self.prompt)}

    def body(self, form: Form, model: str, query: Item, candidates: Sequence[Item]) -> tuple[str, dict[str, Any]]:
        """Return a request; see DirectScorer."""
        evidence = {"type": "message", "role": "user", "content": self._parts("Query:", query)}
        asked = [{"type": "input_text", "text": question(self.prompt)}]
        questions = [
            {"type": "predicate", "name": str(i), "instructions": [*self._parts("Candidate:", candidate), *asked]}
            for i, candidate in enumerate(candidates)
        ]
        return "/decisions", {"model": model, "input": [evidence], "questions": questions}

    def answers(self, reply: Mapping[str, Any], n: int) -> Sequence[DirectAnswer]:
        """Return each candidate's probability, found by the name of its question; see DirectScorer."""
        rows = self._by_name(reply)
        return [_answer(rows.get(str(i))) for i in range(n)]

    def off_masses(self, reply: Mapping[str, Any], n: int) -> Sequence[float]:
        """Return what a server says of its answers beside yes and no; see DirectScorer."""
        rows = self._by_name(reply)
        values = [rows.get(str(i), {}).get("off_mass") for i in range(n)]
        return [float(v) if isinstance(v, int | float) and 0 <= v <= 1 else np.nan for v in values]

    def _by_name(self, reply: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        rows = reply.get("answers")
        if not isinstance(rows, list):
            raise ServerError("The server's answer holds no decisions; check the address.", stops=True)
        named = [row for row in rows if isinstance(row, Mapping) and isinstance(row.get("name"), str)]
        found = {str(row["name"]): row for row in named}
        if len(found) < len(named):
            raise ServerError("The server answers one question twice; use another server.", stops=True)
        return found

    def _parts(self, title: str, item: Item) -> list[dict[str, Any]]:
        text = f"{title} {clean(item.text)}" if item.text else title
        parts: list[dict[str, Any]] = [{"type": "input_text", "text": text}]
        if item.image is not None or item.tokens is not None:
            parts.append({"type": "input_image", "image_url": self.images.encode(item).url})
        return parts


def _answer(row: Mapping[str, Any] | None) -> DirectAnswer:
    if row is None:
        return ServerError("The server left the question about this pair unanswered.")
    if row.get("type") == "refusal":
        return ServerError("The server declined to answer for this pair.")
    return probability(row.get("probability"), "probability")
