"""Say how images are read for one table, so that its items and its queries are read alike."""

from __future__ import annotations

from dataclasses import dataclass

OLDEST, NEWEST = 1, 2
"""Versions of the rules by which files become pixels.

1: colour profiles are ignored; an image above `images.WORKING_PIXELS` is reduced by a whole factor.
2: colours are those of the embedded profile in sRGB; an image is also reduced to at least twice the encoder's side.
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """The version of the rules, and the side in pixels that the model reads (None: the whole image)."""

    version: int = NEWEST
    side: int | None = None

    @property
    def colours(self) -> bool:
        """Return whether embedded colour profiles count."""
        return self.version >= 2

    def factor(self, size: tuple[int, int]) -> int:
        """Return by which whole factor an image of this size is reduced: its shorter side keeps twice `side`."""
        if self.version < 2 or self.side is None:
            return 1
        return max(1, min(size) // (2 * self.side))


WHOLE = Reading()
"""The newest rules, without a reduction: what the second look reads."""
