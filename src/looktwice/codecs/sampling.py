"""Sample the top-left token of each cell (2604.13268, index compression; 2 × 2 cells there)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from looktwice.codecs.cells import Cells


@dataclass(frozen=True, slots=True)
class Sampling(Cells):
    """The top-left token of each cell: `sample2`, `sample2:replicate`, `sample4:released`…"""

    word: ClassVar[str] = "sample"
    representative: ClassVar[Literal["mean", "first"]] = "first"

    __str__ = Cells.__str__
