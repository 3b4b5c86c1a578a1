"""looktwice where sentence-transformers expects a model of its own, so that its evaluators run on pictures and texts.

    from looktwice.integrations.sentence_transformers import AsCrossEncoder, AsSentenceTransformer
    CrossEncoderRerankingEvaluator(samples)(AsCrossEncoder(Reranker("tiny-vl")))
    InformationRetrievalEvaluator(queries, corpus, relevant)(AsSentenceTransformer("tiny-clip", Reranker("tiny-vl")))

Written against sentence-transformers 6.2, and imports nothing of it. `Reranker` itself has the conventions of
`CrossEncoder` for people; its evaluators pass further arguments and cannot take NaN. Queries and documents are what
`looktwice.search.inputs` says: a text, a path, a PIL image, or a dict of image and text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.encode import load_encoder
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


class Card:
    """Where evaluators leave their figures: `evaluations` holds (evaluator's name, figures)."""

    def __init__(self) -> None:
        self.evaluations: list[tuple[str, dict[str, Any]]] = []

    def set_evaluation_metrics(self, evaluator: Any, metrics: Mapping[str, Any], *args: Any) -> None:
        """What evaluators call when they are done."""
        self.evaluations.append((type(evaluator).__name__, dict(metrics)))


class AsCrossEncoder:
    """A Reranker for evaluators of cross-encoders."""

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker
        self.model_card_data = Card()
        self.unscored = 0

    def predict(
        self,
        sentences: Sequence[Sequence[QueryLike]],
        prompt_name: str | None = None,
        show_progress_bar: bool = False,
        **ignored: Any,
    ) -> FloatArray:
        """One probability per (query, document) pair. Pairs without one get UNSCORED and are counted in `unscored`.

        Raises UsageError for a `prompt_name`: the prompt is the Reranker's.
        """
        _own_prompt(prompt_name)
        p = self.reranker.predict(
            [(query, document) for query, document in sentences], show_progress_bar=show_progress_bar
        )
        self.unscored += int(np.isnan(p).sum())
        return np.nan_to_num(p, nan=UNSCORED)


class AsSentenceTransformer:
    """An encoder, and where `reranker` is given a second look at its first `shortlist`, for evaluators of retrieval.

    What `encode_query` and `encode_document` return are numbers of what was encoded; `similarity` knows what they stand
    for. Candidates that were not looked at, or got no score, stay below those that did.
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
            raise UsageError(f"The shortlist must hold at least 1 candidate, not {shortlist}.")
        self.fusion, self.shortlist = Fusion.parse(fusion), shortlist
        self.similarity_fn_name = "cosine" if reranker is None else "second-look"
        self.model_card_data = Card()
        self._asked: list[QueryLike] = []  # as given: pictures in files are read again when they are looked at
        self._vectors: list[FloatArray] = []

    def encode_document(self, sentences: Sequence[QueryLike], prompt_name: str | None = None, **ignored: Any) -> Tensor:
        """Encode documents; returns their numbers, [n, 1]. Raises UsageError for what cannot be read."""
        return self._encode(self.encoder, sentences, prompt_name, ignored)

    def encode_query(self, sentences: Sequence[QueryLike], prompt_name: str | None = None, **ignored: Any) -> Tensor:
        """Encode queries, as `encode_document`; some encoders take them in another way."""
        return self._encode(getattr(self.encoder, "for_queries", self.encoder), sentences, prompt_name, ignored)

    def _encode(
        self, encoder: Encoder, sentences: Sequence[QueryLike], prompt_name: str | None, options: Mapping[str, Any]
    ) -> Tensor:
        import torch

        _own_prompt(prompt_name)
        if options.get("prompt") is not None or options.get("truncate_dim") is not None:
            raise UsageError("Vectors are used as the encoder makes them; leave out prompt and truncate_dim.")
        first = len(self._vectors)
        for start in range(0, len(sentences), 64):
            items = [as_item(one, f"input {start + i}") for i, one in enumerate(sentences[start : start + 64])]
            self._vectors += list(np.nan_to_num(encoder.encode(items)))  # no direction: matches nothing
            if self.reranker is not None:
                self._asked += list(sentences[start : start + 64])
        return torch.arange(first, len(self._vectors), dtype=torch.float64)[:, None]

    def similarity(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Scores of every query against every document, [queries, documents], float32."""
        import torch

        asked, shown = ([int(number) for number in part[:, 0]] for part in (queries, documents))
        cosines = np.stack([self._vectors[i] for i in asked]) @ np.stack([self._vectors[i] for i in shown]).T
        if self.reranker is not None:
            cosines = np.stack([self._looked(i, shown, row) for i, row in zip(asked, cosines, strict=True)])
        return torch.from_numpy(cosines.astype(np.float32))

    def _looked(self, query: int, documents: Sequence[int], cosines: FloatArray) -> FloatArray:
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
        raise UsageError("The prompt is set where the Reranker is made; leave out the evaluator's prompt names.")
