"""Hold the tables that a server was started with, each at its newest version."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from looktwice.encode import load_encoder
from looktwice.errors import UnknownName
from looktwice.rank import Fusion
from looktwice.score.prompting import built_in
from looktwice.search.mllm_reranker import AUTO, MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.serve.problems import Problem
from looktwice.serve.settings import Settings
from looktwice.store import Table, TableReader
from looktwice.types import Encoder

R = TypeVar("R", bound=MllmReranker)
FRESH_SECONDS = 1.0
"""How long a table counts as unchanged after it was looked at; writes through this server show at once."""


class ServedTable:
    """One table: its newest version, the retriever over it, and the lock for writing to it."""

    def __init__(
        self, name: str, path: Path, encoder: Encoder, reranker: MllmReranker | None, settings: Settings
    ) -> None:
        self.name, self.path, self.encoder = name, path, encoder
        self.table = Table.open(path, encoder.info)
        self.writing = threading.Lock()
        self._settings, self._reranker = settings, reranker
        self._lock = threading.Lock()
        self._looked, self._version, self._retriever = 0.0, (None,), self._open()

    def retriever(self) -> Retriever:
        """Return the retriever over the newest version, whoever wrote it."""
        with self._lock:
            if time.monotonic() - self._looked > FRESH_SECONDS:
                newest = self.table.snapshot()
                if _version(newest) != self._version:
                    self._retriever = self._over(newest)
                self._looked = time.monotonic()
            return self._retriever

    def reader(self) -> TableReader:
        """Return the newest version."""
        return self.retriever().table

    def touch(self) -> None:
        """Look at the table again at the next request."""
        with self._lock:
            self._looked = 0.0

    def _open(self) -> Retriever:
        return self._over(self.table.snapshot())

    def _over(self, snapshot: TableReader) -> Retriever:
        self._version, self._looked = _version(snapshot), time.monotonic()
        chosen = self._settings
        how: dict[str, Any] = {"codec": chosen.codec, "missing_tokens": chosen.missing_tokens}
        how["urls"] = "public" if chosen.allow_urls else "refused"
        how["calibration"] = chosen.calibration
        return Retriever(
            snapshot, self.encoder, self._reranker, fusion=chosen.fusion, shortlist=chosen.shortlist, **how
        )


class Tables:
    """All tables of a server, by name. Tables of one encoder share it."""

    def __init__(self, settings: Settings, reranker: MllmReranker | None, pooled: Any) -> None:
        encoders: dict[Any, Encoder] = {}
        self._tables: dict[str, ServedTable] = {}
        for name, path in settings.names().items():
            info = Table.open(path).manifest.encoder
            made_by = info.queries or info.name
            key = (made_by, info.revision, info.preprocessing)
            if key not in encoders:
                encoders[key] = pooled(
                    load_encoder(made_by, revision=info.revision, device=settings.device, dtype=settings.dtype)
                )
            self._tables[name] = ServedTable(name, path, encoders[key], reranker, settings)

    def __iter__(self) -> Any:
        return iter(self._tables.values())

    def get(self, name: str | None) -> ServedTable:
        """Return a table by its name; None names the only one. Raises Problem (404, 400)."""
        if name is None:
            if len(self._tables) == 1:
                return next(iter(self._tables.values()))
            known = ", ".join(self._tables) or "none"
            raise Problem(400, "table_needed", f"Name one of the tables: {known}.", "table")
        if name not in self._tables:
            known = ", ".join(self._tables) or "none"
            raise Problem(404, "unknown_table", f"No table has this name; tables: {known}.", "table")
        return self._tables[name]


def variant(retriever: Retriever, changes: Mapping[str, Any], stage_type: Any) -> Retriever:
    """Return a retriever with other `fusion`, `shortlist` or `prompt`, which shares everything that was loaded."""
    made = copy.copy(retriever)
    if changes.get("fusion") is not None:
        made.config = replace(made.config, fusion=Fusion.parse(changes["fusion"]))
    made.shortlist = changes.get("shortlist") or made.shortlist
    if made.reranker is None:
        return made
    made.reranker = prompted(made.reranker, changes.get("prompt"))
    about = {"encoder": retriever.table.manifest.encoder.record()}
    made.stage = stage_type(made.reranker, made.loader, made.config, made.shortlist, about=about)
    return made


def prompted(reranker: R, prompt: str | None) -> R:
    """Return a reranker with another built-in prompt, sharing the weights. A request can never name a prompt file."""
    if prompt is None or prompt == reranker.prompt:
        return reranker
    if prompt not in (AUTO, *built_in.PROMPTS):
        raise UnknownName("prompt", prompt, (AUTO, *built_in.PROMPTS))
    made = copy.copy(reranker)
    made.prompt = prompt
    return made


def _version(table: TableReader) -> tuple[Any, ...]:
    return (table.manifest, table._items.version, table._tokens.version)
