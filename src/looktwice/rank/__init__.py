"""Sort scores, ties and the unscored tail. Only this package orders an answer."""

from looktwice.rank.fusion import below, fuse, tied_at_the_top
from looktwice.rank.fusion_rule import Fusion
from looktwice.rank.ordering import order
from looktwice.rank.tie_rule import Ties
from looktwice.rank.tuned import Tuned

__all__ = ["Fusion", "Ties", "Tuned", "below", "fuse", "order", "tied_at_the_top"]
