"""The records that stages hand to one another, and the protocols where they meet.

This module knows no model, no file format and no database. Records are frozen; arrays inside them are not copied.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:  # Pillow, NumPy and torch load where they are used: `looktwice --help` must stay fast
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

log = logging.getLogger(__name__)

MOST_TEXT = 50_000
"""Characters of a text that models see, some 12,000 tokens: attention to megabytes would never end."""

FloatArray: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"


class Choice(NamedTuple):
    """One value that an option takes: its name, what it is, and what it needs ("": nothing more)."""

    name: str
    what: str
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """What is indexed, or asked: an image, a text, or both.

    `image` is upright RGB as `images.load` returns it. `sha256` is the hash of the file's bytes (hex) and `uri` says
    where they lie; both are None for things that only live in memory. `tokens` carries stored visual tokens, in which
    case `image` may be None although the item is an image.
    """

    id: str
    image: Image | None = None
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    uri: str | None = None
    sha256: str | None = None
    tokens: VisualTokens | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """An h × w rectangle of visual tokens, row by row.

    Where a codec dropped tokens, each that is left keeps the position of the top-left corner of its `stride` ×
    `stride` cell in the model's own `grid` (rows, columns); `grid` None says that nothing was dropped. With `newlines`
    the model inserts one learned token after every row (at position `grid` columns of that row).
    """

    kind: Literal["global", "tile"]
    h: int
    w: int
    stride: int = 1
    grid: tuple[int, int] | None = None
    newlines: bool = False

    @property
    def rows_cols(self) -> tuple[int, int]:
        """The model's own rows and columns: what positions are counted in."""
        return self.grid or (self.h, self.w)


@dataclass(frozen=True, slots=True)
class Newline:
    """One learned end-of-row token that the model itself inserts, where it does not follow every row of a block."""


@dataclass(frozen=True, slots=True)
class TextIds:
    """Ordinary tokens between blocks, such as row and column markers."""

    ids: tuple[int, ...]


Layout: TypeAlias = tuple[Block | Newline | TextIds, ...]


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """What a vision tower hands the language model, already in its input space.

    `features` is [T, d]; `levels` is [L, T, d] for models that feed further layers (DeepStack), else None. The blocks
    of `layout`, in order, account for exactly T tokens: sum of h·w.
    """

    features: Tensor
    levels: Tensor | None
    layout: Layout


@dataclass(frozen=True, slots=True)
class TokensInfo:
    """What a table must remember of stored visual tokens in order to refuse others.

    `width` is d; `levels` the number of DeepStack levels that travel with the tokens; `resampler` what scaled the
    images, which is told but makes no other tokens.
    """

    mllm: str
    revision: str
    preprocessing: str
    width: int
    levels: int
    resampler: str = field(default="Pillow", compare=False)


Status: TypeAlias = Literal["ok", "missing", "failed", "parse_error"]


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores of one query against n candidates, in the order given.

    `p` [n] in [0, 1]; `label_logits` [n, l], log-sum-exp over each label's variants; `entropy` [n] in nats over the
    full vocabulary; `off_mass` [n] in [0, 1], what is not on the labels; `argmax_id` [n] int64 (-1: unknown). NaN in
    `entropy` or `off_mass` says that it is unknown: a server may show a few log-probabilities only. `status` says which
    rows hold a score: a row that is not "ok" has p = NaN, never a number that looks like a score.
    """

    p: FloatArray
    label_logits: FloatArray
    entropy: FloatArray
    off_mass: FloatArray
    argmax_id: np.ndarray[Any, np.dtype[np.int64]]
    status: tuple[Status, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One entry of a shortlist: an id and its coarse score (cosine)."""

    id: str
    coarse: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One row of an answer. `rank` counts from 1; `scored` says whether the second look saw this candidate."""

    id: str
    rank: int
    score: float
    coarse: float
    p: float | None
    scored: bool
    explain: Mapping[str, Any] | None = None


def has_words(text: str | None) -> bool:
    """Whether a text shows anything: blank is as good as none."""
    return bool(text and text.strip())


def shortened(text: str) -> str:
    """Return what a tokenizer gets of a text; where that is not all, a warning says so."""
    if len(text) > MOST_TEXT:
        _warn_of_cut(len(text))
    return text[:MOST_TEXT]


@cache
def _warn_of_cut(length: int) -> None:
    log.warning("A text of %s characters is cut: models see the first %s.", f"{length:,}", f"{MOST_TEXT:,}")


def text_is_utf8(text: str) -> bool:
    """Whether a text can be stored: JSON can smuggle in half characters (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What a table must remember of its encoder in order to refuse another.

    `queries` is a name of the same encoder that gives queries a size of their own (None: they have none). `dtype` is
    what it computes in here (None: unknown). Neither is compared: such vectors fit the same table.
    """

    name: str
    revision: str
    preprocessing: str
    dim: int
    queries: str | None = field(default=None, compare=False)
    dtype: str | None = field(default=None, compare=False)

    def record(self) -> dict[str, Any]:
        """Return what identifies the encoder as plain data, `queries` only where it has one."""
        own = {"name": self.name, "revision": self.revision, "preprocessing": self.preprocessing, "dim": self.dim}
        return own if self.queries is None else {**own, "queries": self.queries}


@runtime_checkable
class Encoder(Protocol):
    """Turns items into vectors."""

    @property
    def info(self) -> EncoderInfo: ...

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Return (n, d) float32 rows of unit length, in the order of `items`; n = 0 gives (0, d).

        A row that could not be given a direction (zero or NaN) is returned as NaN: the caller ledgers it.
        """
        ...


@runtime_checkable
class _PairScorer(Protocol):
    """The seam before `looktwice.Scorer`: any object of this shape still passes as a scorer, for one release."""

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score every candidate against one query; permuting candidates permutes scores."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return what a run's manifest says of this scorer."""
        ...


def __getattr__(name: str) -> Any:
    if name == "PairScorer":
        warnings.warn("looktwice.types.PairScorer is now looktwice.Scorer.", DeprecationWarning, stacklevel=2)
        return _PairScorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
