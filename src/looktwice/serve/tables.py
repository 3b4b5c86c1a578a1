"""Hold the tables that a server was started with, each at its newest version."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from looktwice.encode import load_encoder
from looktwice.errors import UnknownName
from looktwice.rank import Tuned
from looktwice.score.prompting import built_in
from looktwice.search.middle_stage import MiddleStage
from looktwice.search.mllm_reranker import AUTO, MllmReranker
from looktwice.search.ranking_config import RankingConfig
from looktwice.search.retriever import Retriever
from looktwice.serve.problems import Problem
from looktwice.serve.settings import Settings
from looktwice.store import Table, TableReader
from looktwice.types import Encoder

R = TypeVar("R", bound=MllmReranker)
FRESH_SECONDS = 1.0
"""How long a table counts as unchanged after it was looked at; writes through this server show at once."""


@dataclass(frozen=True)
class OpenedTable:
    """One version of a table: the retriever over it, and the middle look over its stored tokens, if it has any."""

    retriever: Retriever
    middle: MiddleStage | None
    version: tuple[Any, ...]


class ServedTable:
    """One table: its newest version, and the lock for writing to it."""

    def __init__(
        self, name: str, path: Path, encoder: Encoder, reranker: MllmReranker | None, settings: Settings
    ) -> None:
        self.name, self.path, self.encoder = name, path, encoder
        self.table = Table.open(path, encoder.info)
        self.writing = threading.Lock()
        self._settings, self._reranker = settings, reranker
        self._lock = threading.Lock()
        self._opened = self._open(self.table.snapshot())
        self._looked = time.monotonic()

    def newest(self) -> OpenedTable:
        """Return the newest version, whoever wrote it."""
        with self._lock:
            if time.monotonic() - self._looked > FRESH_SECONDS:
                snapshot = self.table.snapshot()
                if _version(snapshot) != self._opened.version:
                    self._opened = self._open(snapshot)
                self._looked = time.monotonic()
            return self._opened

    def retriever(self) -> Retriever:
        """Return the retriever over the newest version."""
        return self.newest().retriever

    def reader(self) -> TableReader:
        """Return the newest version for look-ups."""
        return self.newest().retriever.table

    def touch(self) -> None:
        """Look at the table again at the next request."""
        with self._lock:
            self._looked = 0.0

    def _open(self, snapshot: TableReader) -> OpenedTable:
        chosen = self._settings
        how: dict[str, Any] = {"codec": chosen.codec, "missing_tokens": chosen.missing_tokens}
        how |= {"urls": "public" if chosen.allow_urls else "refused", "calibration": chosen.calibration}
        fusion = chosen.fusion if chosen.tuned is None else Tuned.load(chosen.tuned)
        retriever = Retriever(snapshot, self.encoder, self._reranker, fusion=fusion, shortlist=chosen.shortlist, **how)
        middle = None
        if self._reranker is not None and snapshot.manifest.tokens:
            middle = MiddleStage(self._reranker, snapshot, 1, chosen.codec)
        return OpenedTable(retriever, middle, _version(snapshot))


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
                placed: dict[str, Any] = {"device": settings.device, "dtype": settings.dtype}
                encoders[key] = pooled(load_encoder(made_by, revision=info.revision, **placed))
            self._tables[name] = ServedTable(name, path, encoders[key], reranker, settings)

    def __iter__(self) -> Iterator[ServedTable]:
        return iter(self._tables.values())

    def get(self, name: str | None) -> ServedTable:
        """Return a table by its name; None names the only one. Raises Problem (404, 400)."""
        known = ", ".join(self._tables) or "none"
        if name is None:
            if len(self._tables) == 1:
                return next(iter(self._tables.values()))
            raise Problem(400, "table_needed", f"Name one of the tables: {known}.", "table")
        if name not in self._tables:
            raise Problem(404, "unknown_table", f"No table has this name; tables: {known}.", "table")
        return self._tables[name]


@dataclass(frozen=True)
class Changes:
    """The settings of one search that differ from the server's; None: the server's own."""

    fusion: str | float | None = None
    shortlist: int | None = None
    prompt: str | None = None
    maxsim: int = 0


def variant(opened: OpenedTable, changes: Changes, default_fusion: str, stage_type: Any) -> Retriever:
    """Return a retriever with other settings, which shares everything that was loaded. Raises UsageError."""
    base = opened.retriever
    made = copy.copy(base)
    fusion = (base.config.tuned or default_fusion) if changes.fusion is None else changes.fusion
    rules = RankingConfig.of(fusion, maxsim=changes.maxsim)
    made.config = replace(base.config, fusion=rules.fusion, maxsim=rules.maxsim, tuned=rules.tuned)
    made.shortlist = changes.shortlist or base.shortlist
    if base.reranker is None:
        return made
    made.reranker = prompted(base.reranker, changes.prompt)
    about = {"encoder": base.table.manifest.encoder.record()}
    made.stage = stage_type(made.reranker, made.loader, made.config, made.shortlist, about=about)
    return made


def middle_of(opened: OpenedTable, reranker: MllmReranker | None, depth: int) -> MiddleStage:
    """Return the middle look of a table with another depth and prompt. Raises Problem without stored tokens."""
    if opened.middle is None or reranker is None:
        raise Problem(400, "no_tokens", "The table stores no tokens for a middle look; leave out maxsim.", "maxsim")
    made = copy.copy(opened.middle)
    made.depth, made.reranker = depth, reranker
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
