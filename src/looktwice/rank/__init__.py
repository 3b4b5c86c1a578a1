"""Sort scores, ties and the unscored tail. Only this package orders an answer."""

from looktwice.rank.fusion import below, fuse, tied_at_the_top
from looktwice.rank.fusion_rule import Fusion
from looktwice.rank.ordering import order
from looktwice.rank.tie_rule import Ties

__all__ = ["Fusion", "Ties", "below", "fuse", "order", "tied_at_the_top"]
