"""Mix the vectors of an item's image and text into one: a weighted sum, by name.

    +mix:0.3     0.7 of the image and 0.3 of the text, of items and of queries; both of unit length first
    +mix:mmeb    as the released code of RetLLM (2602.22278) does it for MMEB: items 0.7 and 0.3 of unit parts, and the
                 sum is left as short as it is; queries 0.8 and 0.2 of the features as they come out of the model

The cosine of a sum that is not rescaled would ignore its length. So its vectors get one more number, sqrt(1 − length²)
for items and 0 for queries: then the cosine of the longer vectors is the dot product of the short ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from looktwice.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from looktwice.types import FloatArray


@dataclass(frozen=True, slots=True)
class Mixing:
    """The text's share, in [0, 1], in items and in queries that also have an image.

    `raw`: the parts of queries keep the length that the model gave them. `short`: the sums of items keep their length.
    """

    name: str
    items: float
    queries: float
    raw: bool = False
    short: bool = False

    def __post_init__(self) -> None:
        for share in (self.items, self.queries):
            if not 0 <= share <= 1:
                raise UsageError(f"The weight of text must be from 0 to 1, not {share:g}.")

    @classmethod
    def parse(cls, name: str | None) -> Mixing:
        """Read a preset or the text's share; None is 0.5. Raises UnknownName, or UsageError out of range."""
        if name in PRESETS:
            return PRESETS[name]
        try:
            share = 0.5 if name is None else float(name)
        except ValueError:
            raise UnknownName("mixing", str(name), ("the text's share, such as 0.3", *PRESETS)) from None
        return cls(f"{share:g}", float(f"{share:g}"), float(f"{share:g}"))

    @property
    def description(self) -> str:
        """Return the description that a table stores and compares."""
        if self.name not in PRESETS:
            return f"text-weight={self.name}"
        of = "raw" if self.raw else "unit"
        left = ", not rescaled" if self.short else ""
        return (
            f"mix={self.name}: items {1 - self.items:g}/{self.items:g} unit{left}, "
            f"queries {1 - self.queries:g}/{self.queries:g} {of}"
        )

    def finish(self, sums: FloatArray, asked: bool) -> FloatArray:
        """Return sums [n, d] of parts as unit rows: [n, d], or [n, d + 1] with `short`. NaN marks no direction."""
        import numpy as np

        if not self.short:
            return unit(sums)
        lengths = np.linalg.norm(sums.astype(np.float64), axis=1)
        rest = np.sqrt(np.clip(1 - lengths**2, 0, None)) * (lengths > 0) if not asked else np.zeros(len(sums))
        rows = unit(sums) if asked else sums
        return unit(np.concatenate([rows, rest[:, None].astype(np.float32)], axis=1))


PRESETS = {preset.name: preset for preset in (Mixing("mmeb", 0.3, 0.2, raw=True, short=True),)}


def unit(rows: FloatArray) -> FloatArray:
    """Scale rows to unit length; rows without a direction become NaN. Norms are taken in float64.

    >>> import numpy as np
    >>> unit(np.float32([[3, 4], [0, 0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [nan, nan]]
    """
    import numpy as np

    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > 1e-12)
    scaled: FloatArray = np.where(usable, wide / np.where(usable, lengths, 1), np.nan).astype(np.float32)
    return scaled
