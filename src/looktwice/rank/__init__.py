"""Sorting, ties and the tail: the one place where an answer gets its order."""

from looktwice.rank.entropy import Ties
from looktwice.rank.fusion import Fusion, below, fuse, tied_at_the_top
from looktwice.rank.ties import order

__all__ = ["Fusion", "Ties", "below", "fuse", "order", "tied_at_the_top"]
