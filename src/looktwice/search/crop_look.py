"""Show the model the crop of a candidate that matched best, beside the whole image; the larger p counts.

A thing that is small in an image is large in a crop of it. The crop's tokens are stored already (`add-tokens --crops`),
so no vision tower runs for it. Each candidate whose best match is a crop costs a second pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from looktwice.errors import UsageError
from looktwice.score import Scorer
from looktwice.score.readout.probability import scatter
from looktwice.search.examples import combine
from looktwice.search.middle_stage import MiddleStage
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.ranking_config import BOTH, RankingConfig
from looktwice.search.run_record import RunStats
from looktwice.search.token_choice import AUTO, CandidateLoader
from looktwice.sources.loader import CandidateRef, ImageLoader, LoadError
from looktwice.token_index.crop_loader import CropLoader, crop_ref
from looktwice.token_index.crops import has_crops
from looktwice.token_index.sets import demand_tokens, is_late
from looktwice.token_index.tower import is_tower
from looktwice.types import SCORED, Candidate, Item, PairScores


class CropLook(CandidateLoader):
    """A loader of crops that also asks about them. Raises UsageError if the middle look has no crops of an MLLM."""

    def __init__(self, middle: MiddleStage | None, whole: CandidateLoader) -> None:
        entries = [] if middle is None or middle.tower is not None else middle.table.manifest.tokens
        if middle is None or not any(map(_can_be_shown, entries)):
            raise UsageError(
                "--shown both shows the crop that matched best in a middle look; add --maxsim 1000, and store crops "
                "with looktwice add-tokens --crops."
            )
        super().__init__(table=middle.table)
        self._middle, self._whole = middle, whole

    @classmethod
    def of(cls, config: RankingConfig, middle: MiddleStage | None, whole: CandidateLoader) -> CropLook | None:
        """Return what a ranking needs to show crops, too; None if it shows whole images only."""
        return cls(middle, whole) if config.shown == BOTH else None

    def add(
        self,
        reranker: MllmReranker,
        query: Item,
        shortlist: Sequence[Candidate],
        candidates: Sequence[CandidateRef | LoadError],
        scores: PairScores,
        stats: RunStats,
        among: Sequence[CandidateRef | LoadError],
    ) -> PairScores:
        """Return the scores with the larger p of image and crop, for the scored candidates that have a crop.

        `among` are all candidates of the request: crops are shown with the prompt of the whole images.
        """
        crops = {one.id: one.crop for one in shortlist if one.crop is not None}
        chosen = [
            (row, crop_ref(ref, crops[ref.id]))
            for row, (ref, status) in enumerate(zip(candidates, scores.status, strict=True))
            if isinstance(ref, CandidateRef) and ref.id in crops and status in SCORED
        ]
        own = RunStats()
        found = reranker.score(query, [ref for _, ref in chosen], self, own, among)
        if found is None:
            return scores
        for stage, spent in own.seconds.items():
            stats.seconds[stage] += spent
        stats.middle["crops shown"] += own.scored
        rows = [row for row, _ in chosen]
        return combine([scores, scatter(len(scores.p), found.label_logits.shape[1], [(rows, found)], "missing")], "max")

    def _make(self, scorer: Scorer) -> ImageLoader:
        codec = None if self._middle.codec == AUTO else self._middle.codec
        whole = self._whole.for_scorer(scorer)
        return CropLoader(self._middle.table, demand_tokens(scorer), codec, whole)


def _can_be_shown(entry: Mapping[str, Any]) -> bool:
    """Return whether a token set holds crops that an MLLM can be shown."""
    return has_crops(entry) and not is_tower(entry) and not is_late(entry)
