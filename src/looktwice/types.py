"""Define the records that stages pass to each other, and the protocols between them.

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
"""Longest text in characters that models see, about 12,000 tokens: attention to megabytes would never end."""

FloatArray: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"


class Choice(NamedTuple):
    """One value of an option: its name, its meaning, and its requirement ("": none)."""

    name: str
    what: str
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """An item or a query: an image, a text, or both.

    `image` is upright RGB as `images.load` returns it. `sha256` is the hash (hex) of the bytes at `uri`; both are None
    for items in memory only. `tokens` carries stored visual tokens; then `image` may be None although the item is an
    image. `preview`: the image is the table's small copy, as the original is not at hand; `sha256` is that of the copy.
    """

    id: str
    image: Image | None = None
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    uri: str | None = None
    sha256: str | None = None
    tokens: VisualTokens | None = None
    preview: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """An h × w rectangle of visual tokens, row by row.

    If a codec dropped tokens, each kept token has the position of the top-left corner of its `stride` × `stride` cell
    in the model's own `grid` (rows, columns); `grid` None means that no token was dropped. With `newlines` the model
    inserts one learned token after every row (at position `grid` columns of that row).
    """

    kind: Literal["global", "tile"]
    h: int
    w: int
    stride: int = 1
    grid: tuple[int, int] | None = None
    newlines: bool = False

    @property
    def rows_cols(self) -> tuple[int, int]:
        """Return the model's own rows and columns, in which positions are counted."""
        return self.grid or (self.h, self.w)


@dataclass(frozen=True, slots=True)
class Newline:
    """One learned end-of-row token that the model itself inserts, for models that do not end every row with one."""


@dataclass(frozen=True, slots=True)
class TextIds:
    """The ordinary tokens between blocks, such as row and column markers."""

    ids: tuple[int, ...]


Layout: TypeAlias = tuple[Block | Newline | TextIds, ...]


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """The output of a vision tower, in the input space of the language model.

    `features` is [T, d]; `levels` is [L, T, d] for models that feed further layers (DeepStack), else None. The blocks
    of `layout`, in order, account for exactly T tokens: sum of h·w.
    """

    features: Tensor
    levels: Tensor | None
    layout: Layout


@dataclass(frozen=True, slots=True)
class TokensInfo:
    """The identity of stored visual tokens, by which a table refuses others.

    `width` is d. `levels` is the number of DeepStack levels stored with the tokens. `resampler` names the library that
    scaled the images; it is reported but not compared.
    """

    mllm: str
    revision: str
    preprocessing: str
    width: int
    levels: int
    resampler: str = field(default="Pillow", compare=False)


Status: TypeAlias = Literal["ok", "bounded", "missing", "failed", "parse_error"]
SCORED: tuple[Status, ...] = ("ok", "bounded")
"""Statuses of rows whose p may be ranked: known, or known to lie in an interval."""


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores of one query against n candidates, in the order given.

    `p` [n] in [0, 1]; `label_logits` [n, l], log-sum-exp over each label's variants; `entropy` [n] in nats over the
    full vocabulary; `off_mass` [n] in [0, 1], the probability outside the labels; `argmax_id` [n] int64 (-1: unknown).
    NaN in `entropy` or `off_mass` means unknown: a server may return only a few log-probabilities. `status` says which
    rows hold a score. A "bounded" row has the middle of an interval as its p; `bounds` [n, 2] holds its lower and upper
    end (NaN in other rows; None: no row is bounded). Any other row that is not "ok" has p = NaN, never a number that
    looks like a score.
    """

    p: FloatArray
    label_logits: FloatArray
    entropy: FloatArray
    off_mass: FloatArray
    argmax_id: np.ndarray[Any, np.dtype[np.int64]]
    status: tuple[Status, ...]
    bounds: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One entry of a shortlist: an id and its coarse score (cosine).

    `maxsim` is the score of the middle look (None: it did not run). `estimated` says that this one has no usable
    tokens: its `maxsim` is that of its neighbour, so that it keeps its coarse place. `crop` is the number of the stored
    crop that matched best (None: the whole image did, or no crops are stored).
    """

    id: str
    coarse: float
    maxsim: float | None = None
    estimated: bool = False
    crop: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One row of an answer. `rank` counts from 1; `scored` says whether the second look scored this candidate.

    `folded` are the ids of its near-duplicates, best first, if the search folded them. `maxsim` is the score of the
    middle look, None if it did not run or did not see this candidate. `uri`, `text` and `metadata` are those of the
    item, in the hits of a Retriever.
    """

    id: str
    rank: int
    score: float
    coarse: float
    p: float | None
    scored: bool
    explain: Mapping[str, Any] | None = None
    folded: tuple[str, ...] = ()
    maxsim: float | None = None
    uri: str | None = None
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Return "ok" for a scored candidate, "not scored" below the second look, else why there is no score."""
        return str((self.explain or {}).get("status", "ok" if self.scored else "not scored"))


def has_words(text: str | None) -> bool:
    """Return whether a text has more than white space."""
    return bool(text and text.strip())


def shortened(text: str) -> str:
    """Return the part of a text that the tokenizer gets, and warn if it was cut."""
    if len(text) > MOST_TEXT:
        _warn_of_cut(len(text))
    return text[:MOST_TEXT]


@cache
def _warn_of_cut(length: int) -> None:
    log.warning(
        "A text of %s characters is too long, so models see only the first %s; shorten it.",
        f"{length:,}",
        f"{MOST_TEXT:,}",
    )


def text_is_utf8(text: str) -> bool:
    """Return whether a text can be stored as UTF-8; JSON may contain lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """The identity of an encoder, by which a table refuses others.

    `queries` is the name of the same encoder with a size for queries (None: the same size). `dtype` is the dtype that
    it computes in (None: unknown). `side` is how many pixels of an image's side it reads (None: any number). None of
    them is compared, as such vectors fit the same table.
    """

    name: str
    revision: str
    preprocessing: str
    dim: int
    queries: str | None = field(default=None, compare=False)
    dtype: str | None = field(default=None, compare=False)
    side: int | None = field(default=None, compare=False)

    def record(self) -> dict[str, Any]:
        """Return the encoder's identity as plain data, with `queries` only if it is set."""
        own = {"name": self.name, "revision": self.revision, "preprocessing": self.preprocessing, "dim": self.dim}
        return own if self.queries is None else {**own, "queries": self.queries}


@runtime_checkable
class Encoder(Protocol):
    """A model that turns items into vectors."""

    @property
    def info(self) -> EncoderInfo: ...

    def encode(self, items: Sequence[Item]) -> FloatArray:
        """Return (n, d) float32 rows of unit length, in the order of `items`; n = 0 gives (0, d).

        A row without a direction (zero or NaN) is returned as NaN, and the caller writes it to the ledger.
        """
        ...


@runtime_checkable
class _PairScorer(Protocol):
    """The protocol before `looktwice.Scorer`: any object of this shape still works as a scorer, for one release."""

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score every candidate against one query; permuting candidates permutes scores."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return the settings of this scorer for a run's manifest."""
        ...


def __getattr__(name: str) -> Any:
    if name == "PairScorer":
        warnings.warn(
            "looktwice.types.PairScorer is deprecated; use looktwice.Scorer.", DeprecationWarning, stacklevel=2
        )
        return _PairScorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
