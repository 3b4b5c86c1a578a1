"""Run the evaluators of sentence-transformers on images and texts with looktwice.

    from looktwice.integrations.sentence_transformers import AsCrossEncoder, AsSentenceTransformer
    CrossEncoderRerankingEvaluator(samples)(AsCrossEncoder(Reranker("tiny-vl")))
    InformationRetrievalEvaluator(queries, corpus, relevant)(AsSentenceTransformer("tiny-clip", Reranker("tiny-vl")))

This module follows sentence-transformers 6.2, and imports nothing of it. `Reranker` has the conventions of
`CrossEncoder`, but evaluators pass further arguments and cannot handle NaN. Queries and documents have the forms of
`looktwice.search.inputs`: a text, a path, a PIL image, or a dict of image and text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.encode import load_encoder, query_encoder
from looktwice.errors import UsageError
from looktwice.experiment.systems import scores_of
from looktwice.rank import Fusion, fuse
from looktwice.search.inputs import QueryLike, as_item
from looktwice.types import Candidate

if TYPE_CHECKING:
    from torch import Tensor

    from looktwice.search.reranker import Reranker
    from looktwice.types import Encoder, FloatArray

UNSCORED = -1.0  # below every probability
TAIL = 3.0  # fused scores and cosines lie in [-1, 1]: a cosine lowered by this is below every score, in any chunk


class ModelCard:
    """A model card that evaluators write to: `evaluations` holds (evaluator's name, figures)."""

    def __init__(self) -> None:
        self.evaluations: list[tuple[str, dict[str, Any]]] = []

    def set_evaluation_metrics(self, evaluator: Any, metrics: Mapping[str, Any], *args: Any) -> None:
        """Store the figures of an evaluator, which calls this when it is done."""
        self.evaluations.append((type(evaluator).__name__, dict(metrics)))


class AsCrossEncoder:
    """A Reranker for evaluators of cross-encoders."""

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker
        self.model_card_data = ModelCard()
        self.unscored = 0

    def predict(
        self,
        sentences: Sequence[Sequence[QueryLike]],
        prompt_name: str | None = None,
        show_progress_bar: bool = False,
        **ignored: Any,
    ) -> FloatArray:
        """Return one probability per (query, document) pair. Pairs without one get UNSCORED; `unscored` counts them.

        Raises UsageError for a `prompt_name`, as the Reranker has the prompt.
        """
        _own_prompt(prompt_name)
        p = self.reranker.predict(
            [(query, document) for query, document in sentences], show_progress_bar=show_progress_bar
        )
        self.unscored += int(np.isnan(p).sum())
        return np.nan_to_num(p, nan=UNSCORED)


class AsSentenceTransformer:
    """An encoder for evaluators of retrieval, and with `reranker` a second look at its first `shortlist` candidates.

    `encode_query` and `encode_document` return indices of encoded items, which `similarity` looks up. Unscored
    candidates rank below scored ones.
    """

    def __init__(
        self,
        encoder: Encoder | str,
        reranker: Reranker | None = None,
        *,
        fusion: Fusion | str | float = "0.5",
        shortlist: int = 50,
    ) -> None:
        self.encoder: Encoder = load_encoder(encoder) if isinstance(encoder, str) else encoder
        self.reranker = reranker
        if shortlist < 1:
            raise UsageError(f"shortlist must be at least 1, not {shortlist}.")
        self.fusion, self.shortlist = Fusion.parse(fusion), shortlist
        self.similarity_fn_name = "cosine" if reranker is None else "second-look"
        self.model_card_data = ModelCard()
        self._asked: list[QueryLike] = []  # as given: image files are read again for the second look
        self._vectors: list[FloatArray] = []

    def encode_document(self, sentences: Sequence[QueryLike], prompt_name: str | None = None, **ignored: Any) -> Tensor:
        """Encode documents and return their indices, [n, 1]. Raises UsageError for an unreadable one."""
        return self._encode(self.encoder, sentences, prompt_name, ignored)

    def encode_query(self, sentences: Sequence[QueryLike], prompt_name: str | None = None, **ignored: Any) -> Tensor:
        """Encode queries and return their indices, [n, 1]. Some encoders encode queries in another way."""
        return self._encode(query_encoder(self.encoder), sentences, prompt_name, ignored)

    def _encode(
        self, encoder: Encoder, sentences: Sequence[QueryLike], prompt_name: str | None, options: Mapping[str, Any]
    ) -> Tensor:
        import torch

        _own_prompt(prompt_name)
        if options.get("prompt") is not None or options.get("truncate_dim") is not None:
            raise UsageError("prompt and truncate_dim are not supported; leave them out.")
        first = len(self._vectors)
        for start in range(0, len(sentences), 64):
            items = [as_item(one, f"input {start + i}") for i, one in enumerate(sentences[start : start + 64])]
            self._vectors += list(
                np.nan_to_num(encoder.encode(items))
            )  # a NaN vector would break sorting; zeros match nothing
            if self.reranker is not None:
                self._asked += list(sentences[start : start + 64])
        return torch.arange(first, len(self._vectors), dtype=torch.float64)[:, None]

    def similarity(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Return the scores of every query against every document, [queries, documents], float32."""
        import torch

        asked, shown = ([int(number) for number in part[:, 0]] for part in (queries, documents))
        cosines = np.stack([self._vectors[i] for i in asked]) @ np.stack([self._vectors[i] for i in shown]).T
        if self.reranker is not None:
            cosines = np.stack([self._reranked(i, shown, row) for i, row in zip(asked, cosines, strict=True)])
        return torch.from_numpy(cosines.astype(np.float32))

    def _reranked(self, query: int, documents: Sequence[int], cosines: FloatArray) -> FloatArray:
        assert self.reranker is not None
        best = np.argsort(-cosines, kind="stable")[: self.shortlist]
        candidates = [Candidate(str(place), float(cosines[place])) for place in best]
        p = self.reranker.predict([(self._asked[query], self._asked[documents[place]]) for place in best])
        scores = cosines - TAIL
        for hit in fuse(candidates, scores_of([None if np.isnan(x) else float(x) for x in p]), self.fusion):
            if hit.scored:
                scores[int(hit.id)] = hit.score
        return scores


def _own_prompt(name: str | None) -> None:
    if name is not None:
        raise UsageError("The Reranker has its own prompt; leave out the evaluator's prompt names.")
