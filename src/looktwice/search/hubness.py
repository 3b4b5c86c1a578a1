"""Take hubs out of the first look: images that are near every text.

`bank` takes from each item's score its mean score over a bank of texts b:

    score(q, x) = ⟨q, x⟩ − mean over the bank of ⟨b, x⟩ = ⟨q − μ, x⟩          μ: the mean of the bank's unit vectors

So it is a search with q − μ in place of q: exact, with or without an index, and a bank is one vector. It acts on text
queries only: against a bank of images it hurt queries with an image. The bank are captions of the collection, if it has
enough of them, or else a bundled list of words. CSLS, the inverted softmax and QB-Norm, which need a number per item,
were measured beside it (`benchmarks/hubs.py`, docs/lab/hubs.md).

The mean is kept in the table's folder (`hubness.json`), with what it was made from. It is made again by another
encoder, and when the collection has grown or shrunk by a quarter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from looktwice.checked import demand, read_json
from looktwice.errors import LooktwiceError, UnknownName
from looktwice.types import Encoder, Item, has_words

if TYPE_CHECKING:
    from looktwice.store import TableReader
    from looktwice.types import FloatArray

RULES = ("off", "bank")
FILE = "hubness.json"
FORMAT = 1
MOST_BYTES = 2**24

CAPTIONS = 200
"""Fewest different captions of a collection that replace the bundled words."""

MOST = 1000
"""Most texts of a bank."""

_KINDS = {"format": int, "source": str, "size": int, "items": int, "encoder": str, "mean": [float]}


@dataclass(frozen=True)
class Bank:
    """The mean vector of a bank of texts, and what it was made from; `items` is the size of the collection then."""

    source: str
    size: int
    items: int
    encoder: str
    mean: tuple[float, ...]


@cache
def bundled_words() -> tuple[str, ...]:
    """Return the bundled list: names of things that can be seen."""
    text = (resources.files("looktwice") / "assets" / "bank_words.txt").read_text("utf-8")
    return tuple(text.split())


def wording(word: str) -> str:
    """Return how a word of the bundled list is put to the encoder."""
    return f"a picture of a {word}"


class Hubness:
    """The bank of one table, made at the first text query. `rule` "off" changes nothing.

    Raises UnknownName for an unknown rule.
    """

    def __init__(self, rule: str = "off") -> None:
        if rule not in RULES:
            raise UnknownName("rule for hubs", rule, RULES)
        self.rule = rule
        self._bank: Bank | None = None

    def centred(self, query: Item, vector: FloatArray, table: TableReader, encoder: Encoder) -> FloatArray:
        """Return q − μ for a text's vector q; the vector itself for other queries, or if nothing would be left of it.

        Its length is the factor between its cosines and the scores above.
        """
        import numpy as np

        if self.rule == "off" or not is_text(query):
            return vector
        mean = np.asarray(self.bank(table, encoder).mean, np.float32)
        left: FloatArray = np.asarray(vector - mean, np.float32)
        return left if np.linalg.norm(left) > 1e-6 else vector

    def bank(self, table: TableReader, encoder: Encoder) -> Bank:
        """Return the table's bank: the kept one if it still fits, else a new one, which is kept."""
        known = self._bank or _read(table)
        if known is None or not _fits(known, table, encoder):
            known = _made(table, encoder)
            _write(table, known)
        self._bank = known
        return known

    def settings(self) -> dict[str, Any]:
        """Return the settings for a run's manifest: nothing if the rule is off."""
        if self.rule == "off":
            return {}
        made = {} if self._bank is None else {"bank": self._bank.source, "texts": self._bank.size}
        return {"hubness": {"rule": self.rule, **made}}


def is_text(query: Item) -> bool:
    """Return whether a query is a text alone; a query of several examples is not."""
    return type(query) is Item and query.image is None and query.tokens is None and has_words(query.text)


def _fits(bank: Bank, table: TableReader, encoder: Encoder) -> bool:
    same = bank.encoder == _identity(encoder) and len(bank.mean) == encoder.info.dim
    same = same and math.hypot(*bank.mean) < 1.001  # as the mean of unit vectors is
    return same and abs(len(table) - bank.items) <= bank.items / 4


def _made(table: TableReader, encoder: Encoder) -> Bank:
    import numpy as np

    captions = sorted({str(row["text"]) for row in table.rows(["text"]) if has_words(row["text"])})
    enough = len(captions) >= CAPTIONS
    texts = _spread(captions) if enough else [wording(word) for word in bundled_words()]
    rows = np.asarray(encoder.encode([Item(text, text=text) for text in texts]), np.float32)
    rows = rows[np.isfinite(rows).all(1)]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    mean = rows.mean(0) if len(rows) else np.zeros(encoder.info.dim)
    source = "captions of the collection" if enough else "bundled words"
    return Bank(source, len(rows), len(table), _identity(encoder), tuple(float(x) for x in mean))


def _spread(values: Sequence[str]) -> list[str]:
    """Return at most MOST values, evenly spaced, so that the same collection gives the same bank."""
    step = max(1.0, len(values) / MOST)
    return [values[int(place * step)] for place in range(min(MOST, len(values)))]


def _identity(encoder: Encoder) -> str:
    return f"{encoder.info.name}@{encoder.info.revision}"


def _read(table: TableReader) -> Bank | None:
    """Return the kept bank; None if there is none, or if the file is not one of this format: it is made again."""
    location = getattr(table, "location", None)  # a group of tables has no folder of its own
    try:
        if location is None or not location.exists(FILE):
            return None
        body = read_json(location.read_bytes(FILE, MOST_BYTES))
        demand(body, _KINDS, "it")
        own = {key: body[key] for key in _KINDS if key != "format"}
        return Bank(**{**own, "mean": tuple(map(float, body["mean"]))}) if body["format"] == FORMAT else None
    except (OSError, ValueError, LooktwiceError):
        return None


def _write(table: TableReader, bank: Bank) -> None:
    """Keep a bank in the table's folder; a table that cannot be written to does without."""
    location = getattr(table, "location", None)
    try:
        if location is not None:
            location.write_whole(FILE, (json.dumps({"format": FORMAT, **asdict(bank)}) + "\n").encode())
    except (OSError, LooktwiceError):
        return
