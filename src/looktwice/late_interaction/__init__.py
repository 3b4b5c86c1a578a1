"""Compare two sets of visual tokens, token by token: the maths of the middle look.

    s(q, x) = Σᵢ wᵢ · maxⱼ cos(qᵢ, xⱼ),   wᵢ ∝ max(0, 1 − mean over the collection of maxⱼ cos(qᵢ, ·))^power

cos is taken after the vote of neighbours (`agreement`). A query token that matches something in every image, such as
plain ground, counts little. MaxSim without weights is ColBERT's late interaction (Khattab and Zaharia, SIGIR 2020).
This package knows arrays: no images, codecs or tables.
"""

from looktwice.late_interaction.agreement import agreed
from looktwice.late_interaction.maxsim import rarity, scores_of, unit_rows, weights_of
from looktwice.late_interaction.packed import Packed, PackedInt8, PackedProducts, PackedRows

__all__ = [
    "Packed",
    "PackedInt8",
    "PackedProducts",
    "PackedRows",
    "agreed",
    "rarity",
    "scores_of",
    "unit_rows",
    "weights_of",
]
