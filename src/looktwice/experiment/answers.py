"""Store the answers of a run, one line per query.

A line holds the shortlist with its coarse scores, p of scored candidates, and seconds; so fusion and depth can be
chosen later without scoring again. A line is written whole and flushed: an interruption loses only the query in
progress. The settings are stored beside the lines, and a run continues only with the same ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from looktwice.errors import Damaged, MediaError, Mismatch, UsageError
from looktwice.evaluate.datasets import Dataset, Query
from looktwice.experiment.counts import added, finite
from looktwice.experiment.stored import StoredAnswer, stored_row
from looktwice.files import write_whole
from looktwice.score.prompting import built_in
from looktwice.search.answer import Answer
from looktwice.search.mllm_reranker import AUTO, MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.store import is_in
from looktwice.types import Item

WHERE = (
    "device",
    "dtype",
    "batch_size",
    "cache_bytes",
    "path",
    "remote",
)  # a run may go on elsewhere
LATER = ("asked", "contents", "prompt_hash")  # settings that earlier versions did not store
_log = logging.getLogger(__name__)


@dataclass
class Answers:
    """The file of answers. Raises Mismatch if it was begun with other settings."""

    folder: Path
    settings: Mapping[str, Any]
    rows: dict[str, StoredAnswer] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)
    _before: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        known = _read_json(self.folder / "settings.json")
        settings = json.loads(json.dumps(dict(self.settings)))
        if known is not None:
            known = {**{name: settings[name] for name in LATER if name in settings}, **known}
        if known is not None and known != settings:
            names = sorted(name for name in known.keys() | settings.keys() if known.get(name) != settings.get(name))
            changed = ", ".join(f"{name} {known.get(name)!r} → {settings.get(name)!r}" for name in names)
            raise Mismatch(f"{self.folder} holds a run with other settings ({changed}); choose another --out.")
        write_json(self.folder / "settings.json", settings)
        self.conditions = self._before = _read_json(self.folder / "conditions.json") or {}
        self._load()

    @property
    def path(self) -> Path:
        """Return the path of the file of lines."""
        return self.folder / "answers.jsonl"

    def add(self, answer: Answer, asked: int) -> StoredAnswer:
        """Store one answer, on disk before in memory."""
        return self.keep(StoredAnswer.of(answer, asked), answer.settings)

    def keep(self, row: StoredAnswer, conditions: Mapping[str, Any]) -> StoredAnswer:
        """Store one answer in its stored form, made under `conditions`."""
        self._check(finite(json.loads(json.dumps(dict(conditions), default=str))))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row.record(), ensure_ascii=True) + "\n")
        self.rows[row.query] = row
        return row

    def _check(self, conditions: dict[str, Any]) -> None:
        """Raise Mismatch if the models differ from those so far, whatever their names; add up the counts."""
        before, now = _models(self.conditions), _models(conditions)
        if before and now != before:
            raise Mismatch(f"{self.folder} holds scores of {sorted(before)}, not {sorted(now)}; choose another --out.")
        total = added(self.conditions or conditions, self._before, conditions)
        if total != self.conditions:
            self.conditions = total
            write_json(self.folder / "conditions.json", total)

    def _load(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            _log.warning("%s ended inside a line; that query runs again.", self.path)
            os.truncate(self.path, len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = stored_row(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
                raise Damaged(f"{self.path}, line {number} is damaged; remove that line, or the file.") from None
            self.rows[row.query] = row


def collect(
    dataset: Dataset, retriever: Retriever, folder: Path, settings: Mapping[str, Any], *, rerank: bool = True
) -> Iterator[StoredAnswer | tuple[Query, MediaError]]:
    """Yield the answers of all queries of a dataset, searching only for missing ones, then the unreadable queries.

    The caller's settings are joined with those of retriever and dataset. Lines go to `folder`/answers.jsonl. Raises
    Mismatch if settings, or the image of a query, differ from those of the run that is continued.
    """
    store = Answers(folder, {**settings, **_settings(dataset, retriever, rerank)})
    for query in dataset.queries:
        if query.id in store.rows and _is_another(query, store.rows[query.id].query_hash):
            raise Mismatch(
                f"The image of query {query.id!r} has changed since the run in {folder} began; choose another --out."
            )
    asked = [query for query in dataset.queries if query.id not in store.rows]
    yield from (store.rows[query.id] for query in dataset.queries if query.id in store.rows)
    if rerank and retriever.reranker is not None:
        retriever.reranker.expect(len(asked) * min(retriever.shortlist, len(retriever.table)))
    broken: list[tuple[Query, MediaError]] = []
    by_id = {query.id: query for query in asked}
    for answer in _answers(dataset, retriever, _loaded(asked, broken), rerank):
        if answer.error is not None:
            broken.append((by_id[answer.error.query], MediaError("query", str(answer.error))))
            continue
        yield store.add(answer, retriever.shortlist if rerank and retriever.reranker is not None else 0)
    yield from broken


def read_conditions(folder: Path) -> dict[str, Any]:
    """Return the settings that the answers in a folder were made with."""
    return _read_json(folder / "conditions.json") or {}


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; NaN and infinities become null."""
    text = json.dumps(finite(value), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    write_whole(path, text.encode())


def _settings(dataset: Dataset, retriever: Retriever, rerank: bool) -> dict[str, Any]:
    reranker, config = retriever.reranker if rerank else None, retriever.config
    ties = {} if str(config.ties) == "default" else {"ties": str(config.ties)}
    if config.ties.by == "question":  # the fusion decides which candidates are tied, and so asked about again
        ties["fusion"] = str(config.fusion)
    return {
        "dataset": dataset.name,
        "queries": len(dataset.queries),
        "asked": _asked(dataset),
        "depth": dataset.depth,
        "encoder": retriever.table.manifest.encoder.record(),
        "items": len(retriever.table),
        "contents": retriever.table.contents(),
        "shortlist": retriever.shortlist,
        "second_look": reranker and {"mllm": _name(reranker.mllm), "prompt": reranker.prompt, **unusual(reranker)},
        **({} if reranker is None else prompt_hash(reranker)),
        **ties,
        **({"maxsim": config.maxsim, "maxsim_codec": config.maxsim_codec} if config.maxsim else {}),
        **({"zoom": True} if config.maxsim and config.zoom else {}),
    }


def prompt_hash(reranker: MllmReranker) -> dict[str, str]:
    """Return the hash of a named prompt, as the contents of a prompt file may change."""
    return {} if reranker.prompt == AUTO else {"prompt_hash": built_in.get(reranker.prompt).hash}


def unusual(reranker: MllmReranker) -> dict[str, str]:
    """Return other settings that affect the scores (mode, retrace, resolution, …) and differ from the default."""
    return {name: str(value) for name, value in reranker.config.changed().items() if name not in WHERE}


def _asked(dataset: Dataset) -> str:
    """Return a hash of the queries: ids, texts, boxes and own candidates; not the paths of images, which may move."""
    chosen = dataset.candidates or {}
    rows = sorted((q.id, q.source.text, q.box, chosen.get(q.id)) for q in dataset.queries)
    return digest(rows)


def digest(value: Any) -> str:
    """Return 16 hex digits of a value that must not change during a run."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _is_another(query: Query, sha256: str) -> bool:
    """Return whether a query's bytes have changed since it was answered. Unreadable bytes count as unchanged."""
    try:
        return bool(sha256) and hashlib.sha256(query.source.read()).hexdigest() != sha256
    except MediaError:
        return False


def _name(scorer: object) -> str:
    return scorer if isinstance(scorer, str) else type(scorer).__name__


def _models(conditions: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return names and revisions of the MLLMs."""
    looks = conditions.get("second_look") or []
    return {(str(look.get("mllm")), str(look.get("revision"))) for look in looks}


def _loaded(queries: Sequence[Query], broken: list[tuple[Query, MediaError]]) -> Iterator[Item]:
    for query in queries:
        try:
            yield query.load()
        except MediaError as error:
            broken.append((query, error))


def _answers(dataset: Dataset, retriever: Retriever, queries: Iterator[Item], rerank: bool) -> Iterator[Answer]:
    if dataset.candidates is None:
        yield from retriever.search_many(queries, k=dataset.depth, rerank=rerank)
        return
    for query in queries:
        names = dataset.candidates[query.id]
        if not names:
            raise UsageError(f"Query {query.id!r} has no candidates; add some to the benchmark's files.")
        yield from retriever.search_many([query], k=len(names), where=is_in("id", names), rerank=rerank)


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        raise Damaged(f"{path} is damaged; remove the folder, or choose another --out.") from None
    return value if isinstance(value, dict) else None
