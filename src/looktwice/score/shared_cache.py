"""A score cache whose file another process holds, so that workers on many machines share one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from looktwice.score.cache import CachedRow, ScoreCache


class Ask(Protocol):
    """Calls a method of the ScoreCache in the process that holds the file; plain data that can be pickled."""

    def __call__(self, method: str, *given: Any) -> Any: ...


class SharedScoreCache(ScoreCache):
    """The same calls as ScoreCache, answered elsewhere. A repeated call changes nothing: rows have a key."""

    def __init__(self, path: Path, ask: Ask) -> None:
        self.path, self._ask = path, ask

    def scope(self, described: Mapping[str, Any]) -> int:
        """See ScoreCache."""
        return int(self._ask("scope", dict(described)))

    def get(self, scope: int, query: bytes, candidates: Sequence[bytes]) -> dict[bytes, CachedRow]:
        """See ScoreCache."""
        found: dict[bytes, CachedRow] = self._ask("get", scope, query, list(candidates))
        return found

    def put(
        self,
        scope: int,
        query: bytes,
        rows: Iterable[tuple[bytes, CachedRow]],
        bounds: Iterable[tuple[bytes, float, float]] = (),
    ) -> None:
        """See ScoreCache; returns when the rows are in the file."""
        self._ask("put", scope, query, list(rows), list(bounds))

    def bounds(self, scope: int, query: bytes) -> dict[bytes, tuple[float, float]]:
        """See ScoreCache."""
        found: dict[bytes, tuple[float, float]] = self._ask("bounds", scope, query)
        return found

    def __len__(self) -> int:
        return int(self._ask("__len__"))

    def close(self) -> None:
        """Do nothing: the process that holds the file closes it."""
