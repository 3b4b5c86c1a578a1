"""Score pairs by the rerank route of a server: a trained re-ranker behind vLLM, Jina, Cohere or `looktwice serve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from looktwice.errors import ServerError
from looktwice.score.remote.direct import DirectAnswer, DirectScorer, Form, probability
from looktwice.score.remote.wording import clean
from looktwice.types import Item

PARTS, FLAT = "parts", "flat"


class RerankScorer(DirectScorer):
    """Takes the relevance scores of a re-ranker, which has a question of its own; the prompt says what is shown.

    A document is a text; with an image it is a list of chat parts (vLLM) or a flat object (Jina).
    """

    path = "rerank"
    forms = (PARTS, FLAT)
    chunk = 32

    def body(self, form: Form, model: str, query: Item, candidates: Sequence[Item]) -> tuple[str, dict[str, Any]]:
        """Return a request; see DirectScorer."""
        documents = [self._document(form, candidate) for candidate in candidates]
        return "/rerank", {"model": model, "query": self._document(form, query), "documents": documents}

    def answers(self, reply: Mapping[str, Any], n: int) -> Sequence[DirectAnswer]:
        """Return the relevance scores by index; see DirectScorer."""
        rows = reply.get("results")
        found: dict[int, DirectAnswer] = {}
        for row in rows if isinstance(rows, list) else ():
            index = row.get("index") if isinstance(row, Mapping) else None
            if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < n or index in found:
                raise ServerError("The server's results do not name each document once; use another server.", True)
            value = row.get("relevance_score", row.get("score"))
            found[index] = probability(value, "relevance score")
        return [found.get(i, ServerError("The server left this candidate out of its results.")) for i in range(n)]

    def _document(self, form: Form, item: Item) -> Any:
        if item.image is None and item.tokens is None:
            return clean(item.text or "")
        url = self.images.encode(item).url
        if form == FLAT:
            return {"image": url} | ({"text": clean(item.text)} if item.text else {})
        text = [{"type": "text", "text": clean(item.text)}] if item.text else []
        return {"content": [{"type": "image_url", "image_url": {"url": url}}, *text]}
