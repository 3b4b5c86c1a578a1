"""Pool each cell into the mean of its tokens (2604.13268, index compression; 2 × 2 average pooling there)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from looktwice.codecs.cells import Cells


@dataclass(frozen=True, slots=True)
class Pooling(Cells):
    """The mean of each cell: `pool2`, `pool2:zero`, `pool3:replicate:released`…"""

    word: ClassVar[str] = "pool"
    representative: ClassVar[Literal["mean", "first"]] = "mean"

    __str__ = Cells.__str__
