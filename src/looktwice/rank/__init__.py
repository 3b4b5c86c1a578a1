"""Sorting, ties and the tail: the one place where an answer gets its order."""

from looktwice.rank.fusion import Fusion, fuse
from looktwice.rank.ties import order

__all__ = ["Fusion", "fuse", "order"]
