"""The second look: how likely a frozen multimodal LLM finds that a candidate answers the query."""

from looktwice.score.load import load_scorer

__all__ = ["load_scorer"]
