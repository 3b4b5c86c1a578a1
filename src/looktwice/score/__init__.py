"""Score query-candidate pairs: how likely a frozen multimodal LLM finds that a candidate answers the query."""

from looktwice.score.base import Scorer, ScorerWrapper, TokenMaker
from looktwice.score.config import ScorerConfig
from looktwice.score.load import load_scorer

__all__ = ["Scorer", "ScorerConfig", "ScorerWrapper", "TokenMaker", "load_scorer"]
