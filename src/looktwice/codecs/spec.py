"""Parse the names of codecs: `parse_codec("pool2+pq16")`. The parts, in this order, joined with `+`:

pool2 sample2     cells of 2 × 2, 3 × 3…; then :zero or :replicate (default: skip), then :released (the published
                  code's odd rows and columns)
group4            groups of 4; cluster70  70 clusters; then :nearest or :median (default: mean)
none int8         16 or 32 bits, 8 bits per number; rsq4: 4 bits per number, 1 to 6, after a random rotation
pq8 pq16          product quantisation with sub-vectors of 8, 16… dimensions; pq:448 with 448 sub-vectors; then x6 for
                  codes of 6 bits (default 8); opq16, opq:448 rotate first
late64            before pq or opq (opq4, if none is named): only the 64 principal dimensions, for a middle look
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from looktwice.codecs.cells import REPLACEMENTS
from looktwice.codecs.clustering import Clustering
from looktwice.codecs.codec import Codec
from looktwice.codecs.grouping import Grouping
from looktwice.codecs.int8 import Int8
from looktwice.codecs.members import REDUCTIONS
from looktwice.codecs.plain import Plain
from looktwice.codecs.pooling import Pooling
from looktwice.codecs.pq import PQ
from looktwice.codecs.sampling import Sampling
from looktwice.codecs.scalar import RotatedScalar
from looktwice.errors import UnknownName, UsageError
from looktwice.types import Choice

EXAMPLES = (
    "none", "int8", "rsq4", "opq8", "opq16", "pq8", "pq16", "pq:448", "pq16x6",
    "late64+opq4", "pool2", "pool2:replicate", "sample2", "group4", "cluster70", "pool2+pq16",
)  # fmt: skip

CHOICES = (
    Choice("none", "as they are, 16 or 32 bits per number"),
    Choice("int8", "8 bits per number"),
    Choice("rsq4", "4 bits per number (1 to 6) after a random rotation; nothing is trained"),
    Choice("opq8, opq16", "product quantisation after a learned rotation: a byte per 8 or 16 dimensions"),
    Choice("pq8, pq16", "the same without a rotation; pq:448, pq16x6"),
    Choice("late64", "the 64 principal dimensions in 16 bytes, for a middle look; late64+opq8, late128+opq8"),
    Choice("pool2, sample2", "mean, or first token, of each 2 × 2 cell; :replicate and :zero keep their number"),
    Choice("group4, cluster70", "groups of 4 similar tokens, or 70 clusters, share one vector"),
    Choice("pool2+pq16", "a rule for cells, one for groups and a quantiser, in this order"),
)

_NUMBER = r"([1-9]\d{0,5})"
_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[..., Any]], ...] = (
    (
        "cells",
        re.compile(rf"(pool|sample){_NUMBER}(?::({'|'.join(REPLACEMENTS)}))?(:released)?"),
        lambda word, size, rule, released: {"pool": Pooling, "sample": Sampling}[word](
            int(size), rule or "skip", bool(released)
        ),
    ),
    (
        "groups",
        re.compile(rf"(group|cluster){_NUMBER}(?::({'|'.join(REDUCTIONS)}))?"),
        lambda word, size, how: {"group": Grouping, "cluster": Clustering}[word](int(size), how or "mean"),
    ),
    ("late", re.compile(rf"late{_NUMBER}"), int),
    ("quantiser", re.compile("none"), Plain),
    ("quantiser", re.compile("int8"), Int8),
    ("quantiser", re.compile(rf"rsq{_NUMBER}"), lambda bits: RotatedScalar(int(bits))),
    (
        "quantiser",
        re.compile(rf"(o?)pq(:)?{_NUMBER}(?:x{_NUMBER})?"),
        lambda rotated, colon, n, bits: PQ(
            None if colon else int(n), int(n) if colon else None, int(bits or 8), bool(rotated)
        ),
    ),
)
_ORDER = ("cells", "groups", "late", "quantiser")


def parse_codec(spec: str) -> Codec:
    """Return the codec of that name; `str(parse_codec(name))` is the name without default parts.

    Raises UnknownName for an unknown part, UsageError for parts out of order, twice, or out of range.

    >>> str(parse_codec("pool2:skip+pq16x8"))
    'pool2+pq16'
    """
    parts: dict[str, Any] = {}
    for text in spec.split("+"):
        place, part = _parse_part(text, spec)
        if any(_ORDER.index(place) <= _ORDER.index(earlier) for earlier in parts):
            raise UsageError(
                f"{spec!r} has parts twice or out of order; name at most one of pool and sample, then one of group and "
                "cluster, then one of none, int8, pq and opq, e.g. pool2+cluster70+pq16."
            )
        parts[place] = part
    if (late := parts.pop("late", None)) is not None:
        quantiser = parts.get("quantiser", PQ(4, rotated=True))
        if not isinstance(quantiser, PQ):
            raise UsageError(f"{spec!r}: late{late} goes before pq or opq, e.g. late{late}+opq4.")
        parts["quantiser"] = replace(quantiser, late=late)
    return Codec(**parts)


def _parse_part(text: str, spec: str) -> tuple[str, Any]:
    for place, pattern, build in _PATTERNS:
        if match := pattern.fullmatch(text):
            return place, build(*match.groups())
    raise UnknownName("codec", text if text == spec else f"{text}' in '{spec}", EXAMPLES)
