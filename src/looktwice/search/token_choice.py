"""Which of a table's token sets, or its pictures, a scorer is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looktwice.codecs import parse_codec
from looktwice.errors import UnknownName
from looktwice.score import Scorer
from looktwice.sources.loader import Reader
from looktwice.store import TableReader
from looktwice.token_index import TokenReader
from looktwice.token_index.reader import POLICIES, Policy
from looktwice.token_index.sets import usable


class Readers:
    """What reads candidates of a table for a scorer: its stored tokens or its pictures; see Retriever's `codec`.

    Without a table, always pictures. "auto" passes over the tokens of the codec `besides`.
    """

    def __init__(
        self,
        table: TableReader | None,
        codec: str = "auto",
        missing: str = "error",
        asymmetric: bool = False,
        *,
        besides: str | None = None,
    ) -> None:
        if codec not in ("auto", "pictures"):
            parse_codec(codec)  # a wrong name is refused as such, whatever the table holds
        self._table, self._codec, self._besides = table, codec, besides
        self._policy, self._asymmetric = _policy(missing), asymmetric
        self._pictures = Reader()
        self._made: dict[int, Reader] = {}

    def __call__(self, scorer: Scorer) -> Reader:
        """The reader for this scorer, the same one each time."""
        if id(scorer) not in self._made:
            self._made[id(scorer)] = self._make(scorer)
        return self._made[id(scorer)]

    def _make(self, scorer: Scorer) -> Reader:
        codec: str | None = self._codec
        if self._table is None:
            return self._pictures
        if codec == "auto":
            others = {entry["codec"] for entry in usable(self._table, scorer)} - {self._besides}
            codec = "pictures" if not others else others.pop() if len(others) == 1 else None
        if codec == "pictures":
            return self._pictures
        return TokenReader(self._table, scorer, codec, policy=self._policy, asymmetric=self._asymmetric)

    def describe(self) -> list[Mapping[str, Any]]:
        """What the manifest says: where candidates came from."""
        readers = {id(reader): reader for reader in self._made.values()}  # several scorers may share one
        return [dict(reader.describe()) for reader in readers.values()]


def _policy(name: str) -> Policy:
    """What is to happen to candidates without stored tokens. Raises UnknownName."""
    if name not in POLICIES:
        raise UnknownName("policy for missing tokens", name, POLICIES)
    return name
