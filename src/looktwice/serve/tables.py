"""Hold the tables that a server was started with, each at its newest version."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cachetools import LRUCache

from looktwice.encode import load_encoder
from looktwice.errors import UnknownName
from looktwice.rank import Tuned
from looktwice.score.prompting import built_in
from looktwice.search.crop_look import CropLook
from looktwice.search.middle_stage import MiddleStage
from looktwice.search.mllm_reranker import AUTO, MllmReranker
from looktwice.search.ranking_config import WHOLE, RankingConfig
from looktwice.search.retriever import Retriever
from looktwice.serve.problems import Problem
from looktwice.serve.settings import Settings
from looktwice.store import Table, TableGroup, TableReader
from looktwice.token_index.tower import StoredTower
from looktwice.types import Encoder

R = TypeVar("R", bound=MllmReranker)
MOST_GROUPS = 8
FRESH_SECONDS = 1.0
"""How long a table counts as unchanged after it was looked at; writes through this server show at once."""


@dataclass(frozen=True)
class OpenedTable:
    """One version of a table: the retriever over it, and the middle look over its stored tokens, if it has any."""

    retriever: Retriever
    middle: MiddleStage | None
    version: tuple[Any, ...]


class VersionOpener:
    """Opens versions of tables with what a server loads once: the reranker, and towers of stored patch tokens.

    A tower is a copy of its own even if the table's encoder has the same weights: it runs on the device's thread while
    the encoder runs on others, and not every model bears that.
    """

    def __init__(self, reranker: MllmReranker | None, settings: Settings) -> None:
        self.reranker, self.settings = reranker, settings
        self._towers: dict[Any, StoredTower] = {}

    def open(self, table: TableReader, encoder: Encoder) -> OpenedTable:
        """Return one version of a table, ready to be searched."""
        settings = self.settings
        how: dict[str, Any] = {"codec": settings.codec, "missing_tokens": settings.missing_tokens}
        how |= {"urls": "public" if settings.allow_urls else "refused", "calibration": settings.calibration}
        fusion = settings.fusion if settings.tuned is None else Tuned.load(settings.tuned)
        how |= {"fusion": fusion, "shortlist": settings.shortlist, "maxsim": 0, "zoom": settings.zoom}
        middle = self._middle(table)
        how |= {} if middle is None else {"maxsim": settings.maxsim}
        return OpenedTable(Retriever(table, encoder, self.reranker, **how), middle, _version(table))

    def _middle(self, table: TableReader) -> MiddleStage | None:
        if self.reranker is None or not table.manifest.tokens:
            return None
        placed: dict[str, Any] = {"device": self.settings.device, "dtype": self.settings.dtype}
        made = MiddleStage(self.reranker, table, 1, self.settings.codec, **placed)
        if made.tower is not None:
            made.tower = self._towers.setdefault(made.tower.key, made.tower)
        return made


class ServedTable:
    """One table: its newest version, and the lock for writing to it."""

    def __init__(self, name: str, path: Path, encoder: Encoder, opener: VersionOpener) -> None:
        self.name, self.path, self.encoder = name, path, encoder
        self.table = Table.open(path, encoder.info)
        self.writing = threading.Lock()
        self._opener = opener
        self._lock = threading.Lock()
        self._opened = opener.open(self.table.snapshot(), encoder)
        self._looked = time.monotonic()

    def newest(self) -> OpenedTable:
        """Return the newest version, whoever wrote it."""
        with self._lock:
            if time.monotonic() - self._looked > FRESH_SECONDS:
                snapshot = self.table.snapshot()
                if _version(snapshot) != self._opened.version:
                    self._opened = self._opener.open(snapshot, self.encoder)
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

    def place(self, id_: str) -> tuple[str, str]:
        """Return the name of an item's table, and its id there."""
        return self.name, id_


class ServedGroup:
    """Several tables of one encoder, searched as one."""

    def __init__(self, tables: Sequence[ServedTable], opener: VersionOpener) -> None:
        self.tables = tables
        self.name = "+".join(table.name for table in tables)
        self._opener = opener
        self._lock = threading.Lock()
        self._opened: OpenedTable | None = None

    def newest(self) -> OpenedTable:
        """Return the newest version of all tables. Raises Mismatch if their encoders differ."""
        opened = [table.newest() for table in self.tables]
        with self._lock:
            if self._opened is None or self._opened.version != tuple(one.version for one in opened):
                names = [table.name for table in self.tables]
                group = TableGroup([one.retriever.table for one in opened], names)
                self._opened = self._opener.open(group, self.tables[0].encoder)
            return self._opened

    def reader(self) -> TableReader:
        """Return the newest versions for look-ups."""
        return self.newest().retriever.table

    def place(self, id_: str) -> tuple[str, str]:
        """Return the name of an item's table, and its id there."""
        table, _, own = id_.partition("/")
        return table, own


class Tables:
    """All tables of a server, by name. Tables of one encoder share it."""

    def __init__(self, settings: Settings, reranker: MllmReranker | None, pooled: Any) -> None:
        encoders: dict[Any, Encoder] = {}
        self._opener = VersionOpener(reranker, settings)
        self._tables: dict[str, ServedTable] = {}
        for name, path in settings.names().items():
            info = Table.open(path).manifest.encoder
            made_by = info.queries or info.name
            key = (made_by, info.revision, info.preprocessing)
            if key not in encoders:
                placed: dict[str, Any] = {"device": settings.device, "dtype": settings.dtype}
                encoders[key] = pooled(load_encoder(made_by, revision=info.revision, **placed))
            self._tables[name] = ServedTable(name, path, encoders[key], self._opener)
        self._groups: LRUCache[tuple[str, ...], ServedGroup] = LRUCache(MOST_GROUPS)

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

    def several(self, names: str | Sequence[str] | None) -> ServedTable | ServedGroup:
        """Return a table, or a group of several; "*" names all. Raises Problem as `get`."""
        if names is None or (isinstance(names, str) and names != "*"):
            return self.get(names)
        key = tuple(dict.fromkeys(self._tables if names == "*" else names))
        found = [self.get(name) for name in key]
        if len(found) < 2:
            return self.get(key[0] if key else None)
        if key not in self._groups:
            self._groups[key] = ServedGroup(found, self._opener)
        return self._groups[key]


@dataclass(frozen=True)
class Changes:
    """The settings of one search that differ from the server's; None: the server's own."""

    fusion: str | float | None = None
    shortlist: int | None = None
    prompt: str | None = None
    maxsim: int | None = None
    zoom: bool | None = None
    shown: str | None = None


def variant(opened: OpenedTable, changes: Changes, settings: Settings, stage_type: Any) -> Retriever:
    """Return a retriever with other settings, which shares everything that was loaded. Raises UsageError."""
    base = opened.retriever
    made = copy.copy(base)
    fusion = (base.config.tuned or settings.fusion) if changes.fusion is None else changes.fusion
    depth = default_depth(opened, settings) if changes.maxsim is None else changes.maxsim
    zoom = base.config.zoom if changes.zoom is None else changes.zoom
    shown = changes.shown or (settings.shown if depth else WHOLE)
    rules = RankingConfig.of(fusion, maxsim=depth, shown=shown, zoom=zoom)
    own = {name: getattr(rules, name) for name in ("fusion", "maxsim", "tuned", "shown", "zoom")}
    made.config = replace(base.config, **own)
    made.shortlist = changes.shortlist or base.shortlist
    if base.reranker is not None:
        made.reranker = prompted(base.reranker, changes.prompt)
    made.middle = middle_of(opened, made.reranker, depth, zoom) if depth else None
    if made.reranker is not None and base.stage is not None:
        how = {"about": base.stage.about, "crops": CropLook.of(made.config, made.middle, made.loader)}
        made.stage = stage_type(made.reranker, made.loader, made.config, made.shortlist, **how)
    return made


def default_depth(opened: OpenedTable, settings: Settings) -> int:
    """Return the depth of the middle look of a search that names none; 0: no middle look."""
    return opened.retriever.config.maxsim if settings.maxsim is None else settings.maxsim


def most_maxsim(opened: OpenedTable, settings: Settings) -> int:
    """Return the deepest middle look that a request may ask for; what it gets without asking is never too deep."""
    return max(settings.max_maxsim, default_depth(opened, settings))


def middle_of(opened: OpenedTable, reranker: MllmReranker | None, depth: int, zoom: bool) -> MiddleStage:
    """Return the middle look of a table with another depth and prompt. Raises Problem without tokens or an MLLM."""
    if reranker is None and opened.retriever.table.manifest.tokens:
        why = "The server has no MLLM for a middle look; leave out maxsim, or start it without --no-rerank."
        raise Problem(400, "no_mllm", why, "maxsim")
    if opened.middle is None or reranker is None:
        raise Problem(400, "no_tokens", "The table stores no tokens for a middle look; leave out maxsim.", "maxsim")
    made = copy.copy(opened.middle)
    made.depth, made.zoom, made.reranker = depth, zoom, reranker
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
    if isinstance(table, TableGroup):
        return tuple(map(_version, table.tables.values()))
    return (table.manifest, table._items.version, table._tokens.version)
