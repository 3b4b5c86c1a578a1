"""Keep scores in a file, so that an interrupted run over a million pairs goes on where it stopped.

One SQLite file. The key of a row covers everything that its number depends on: the content of both items, whether they
are shown as pixels or as stored tokens (and of which set), and all of the scorer's settings except where it ran. Every
call is one transaction: a killed process loses at most the call in flight and never leaves half a row.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from looktwice.errors import Damaged, StoreError
from looktwice.score.base import Scorer, ScorerWrapper
from looktwice.score.fingerprint import fingerprint, unread
from looktwice.score.readout import probability
from looktwice.types import SCORED, Item, PairScores

if TYPE_CHECKING:
    from looktwice.score.prompting.prompt import Prompt

ENGINE_VERSION = 4  # raise it when the numbers of an unchanged model, prompt and image change
NOT_PART_OF_THE_SCORE = ("device", "path", "batch_size", "shared", "reason", "server")
APPLICATION_ID = 0x4C545343  # "LTSC"
SCHEMA = """
CREATE TABLE IF NOT EXISTS scopes (id INTEGER PRIMARY KEY, described TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS bounds (
    scope INTEGER NOT NULL, query BLOB NOT NULL, candidate BLOB NOT NULL, low REAL NOT NULL, high REAL NOT NULL,
    PRIMARY KEY (scope, query, candidate)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores (
    scope INTEGER NOT NULL, query BLOB NOT NULL, candidate BLOB NOT NULL,
    p REAL NOT NULL, label_logits BLOB NOT NULL, entropy REAL, off_mass REAL, argmax_id INTEGER NOT NULL,
    PRIMARY KEY (scope, query, candidate)
) WITHOUT ROWID;
"""
OPENING, WRITING = 5, 60
"""Seconds to wait for other processes. A damaged file can look locked for ever when it is opened."""

CachedRow: TypeAlias = tuple[float, bytes, float | None, float | None, int]


class ScoreCache:
    """Scores in a file, which is created when the first score is read. Several processes may share it.

    Raises StoreError for a file of another kind, and for a missing folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None
        if not self.path.absolute().parent.is_dir():
            raise StoreError(f"The folder {self.path.parent} for the score cache does not exist; name another file.")
        if self.path.exists():
            self._db  # noqa: B018  # a wrong file is refused before a model is loaded

    @property
    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            with self._plain_errors():
                self._opened = sqlite3.connect(
                    self.path, timeout=OPENING, isolation_level=None, check_same_thread=False
                )
                self._open(self._opened)  # a damaged file can look locked for ever
                self._opened.execute(f"PRAGMA busy_timeout = {WRITING * 1000}")
        return self._opened

    def _open(self, db: sqlite3.Connection) -> None:
        found = db.execute("PRAGMA application_id").fetchone()[0]
        foreign = found == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
        if foreign or found not in (0, APPLICATION_ID):
            raise Damaged(f"{self.path} is another kind of database; name another file for the score cache.")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.executescript(SCHEMA)

    def scope(self, described: Mapping[str, Any]) -> int:
        """Return the number of the settings under which scores are comparable; add them if they are new."""
        text = json.dumps(described, sort_keys=True, default=str)
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO scopes (described) VALUES (?)", (text,))
            return int(db.execute("SELECT id FROM scopes WHERE described = ?", (text,)).fetchone()[0])

    def get(self, scope: int, query: bytes, candidates: Sequence[bytes]) -> dict[bytes, CachedRow]:
        """Return the known rows, by candidate."""
        found: dict[bytes, CachedRow] = {}
        wanted = list(dict.fromkeys(candidates))
        with self._plain_errors(), self._lock:
            for start in range(0, len(wanted), 500):
                some = wanted[start : start + 500]
                marks = ",".join("?" * len(some))
                rows = self._db.execute(
                    "SELECT candidate, p, label_logits, entropy, off_mass, argmax_id FROM scores "
                    f"WHERE scope = ? AND query = ? AND candidate IN ({marks})",
                    (scope, query, *some),
                )
                found.update({row[0]: row[1:] for row in rows if _is_row(*row[1:])})
        sizes = {len(row[1]) for row in found.values()}
        return found if len(sizes) <= 1 else {}  # rows of one setting all have the same number of labels

    def put(
        self,
        scope: int,
        query: bytes,
        rows: Iterable[tuple[bytes, CachedRow]],
        bounds: Iterable[tuple[bytes, float, float]] = (),
    ) -> None:
        """Store rows and the intervals of those that are bounded, all or none."""
        values = [(scope, query, candidate, *row) for candidate, row in rows]
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            db.executemany("INSERT OR REPLACE INTO bounds VALUES (?, ?, ?, ?, ?)", [(scope, query, *b) for b in bounds])

    def bounds(self, scope: int, query: bytes) -> dict[bytes, tuple[float, float]]:
        """Return the intervals of a query's bounded rows, by candidate."""
        with self._plain_errors(), self._lock:
            rows = self._db.execute(
                "SELECT candidate, low, high FROM bounds WHERE scope = ? AND query = ?", (scope, query)
            )
            return {row[0]: (float(row[1]), float(row[2])) for row in rows}

    def __len__(self) -> int:
        if self._opened is None and not self.path.exists():
            return 0
        with self._plain_errors(), self._lock:
            return int(self._db.execute("SELECT count(*) FROM scores").fetchone()[0])

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._plain_errors(), self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind = StoreError if isinstance(error, sqlite3.OperationalError) else Damaged
            raise kind(f"The score cache {self.path} cannot be used: {error}; name another file.") from error


class CachedScorer(ScorerWrapper):
    """Read scores from a ScoreCache and pass only unknown pairs to another scorer.

    `tokens_key` names the set that items' `tokens` come from; "" if they come from none. `fingerprint` makes an item's
    key. Only scores are cached, never failures.
    """

    def __init__(self, inner: Scorer, cache: ScoreCache, tokens_key: str = "") -> None:
        super().__init__(inner)
        self.cache = cache
        self.tokens_key = tokens_key
        self.hits = 0
        own = {k: v for k, v in inner.settings().items() if k not in NOT_PART_OF_THE_SCORE}
        self._scope = cache.scope({**own, "engine": ENGINE_VERSION})

    def recall(self, query: Item, rows: Sequence[tuple[str | None, str | None]]) -> PairScores:
        """Return known scores of candidates not loaded yet, as (sha256 of the image or None, text); else "missing".

        An image is looked up as stored tokens if there is a `tokens_key`, as its file otherwise.
        """
        keys = [unread(sha256, text, self.tokens_key) for sha256, text in rows]
        known = self._read(fingerprint(query, self.tokens_key), keys)
        self.hits += sum(status in SCORED for status in known.status)
        return known

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score the candidates whose scores are not cached; see Scorer."""
        return self.counted(query, candidates)[0]

    def counted(self, query: Item, candidates: Sequence[Item]) -> tuple[PairScores, int]:
        """Return what `score` does, and how many of the scores were cached."""
        asked, keys = fingerprint(query, self.tokens_key), [fingerprint(c, self.tokens_key) for c in candidates]
        known = self._read(asked, keys)
        left = [i for i, status in enumerate(known.status) if status not in SCORED]
        hits = len(candidates) - len(left)
        self.hits += hits
        if not left:
            return known, hits
        new = [*self._new(asked, query, [candidates[i] for i in left], [keys[i] for i in left])]
        done = [i for i, status in enumerate(known.status) if status in SCORED]
        labels = new[0][1].label_logits.shape[1]
        if done and known.label_logits.shape[1] != labels:
            raise StoreError(f"The score cache {self.cache.path} holds scores of other labels; name another file.")
        parts = [(done, probability.select(known, done)), *(([left[j] for j in rows], part) for rows, part in new)]
        return probability.scatter(len(candidates), labels, parts, "missing"), hits

    def _new(
        self, asked: bytes, query: Item, candidates: Sequence[Item], keys: Sequence[bytes]
    ) -> Iterator[tuple[Sequence[int], PairScores]]:
        """Yield new scores with their rows, each part in the cache before it is handed on."""
        for rows, part in self.inner.score_parts(query, candidates):
            good = [j for j, status in enumerate(part.status) if status in SCORED]
            self.cache.put(
                self._scope, asked, [(keys[rows[j]], _row(part, j)) for j in good], _intervals(keys, rows, part)
            )
            yield rows, part

    def settings(self) -> Mapping[str, Any]:
        """Return the inner scorer's settings and the number of scores that were cached."""
        return {**self.inner.settings(), "cached": self.hits}

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> Scorer:
        """See Scorer. The new scorer shares the cache: its prompt is part of the key, so scores never mix."""
        return CachedScorer(self.inner.with_prompt(prompt, mode), self.cache, self.tokens_key)

    def _read(self, query: bytes, keys: Sequence[bytes]) -> PairScores:
        found = self.cache.get(self._scope, query, keys)
        labels = max((len(row[1]) // 4 for row in found.values()), default=0)
        out = probability.blank(len(keys), labels, "missing")
        for i, key in enumerate(keys):
            if key in found:
                p, logits, entropy, off_mass, argmax_id = found[key]
                out.p[i], out.label_logits[i] = p, np.frombuffer(logits, dtype="<f4")
                out.entropy[i] = np.nan if entropy is None else entropy
                out.off_mass[i] = np.nan if off_mass is None else off_mass
                out.argmax_id[i] = argmax_id
        return self._bounded(query, keys, replace(out, status=tuple("ok" if k in found else "missing" for k in keys)))

    def _bounded(self, query: bytes, keys: Sequence[bytes], scores: PairScores) -> PairScores:
        """Return the scores with the intervals of the rows that were stored with one."""
        known = self.cache.bounds(self._scope, query) if "ok" in scores.status else {}
        if not known:
            return scores
        bounds = np.array([known.get(key, (np.nan, np.nan)) for key in keys], dtype=np.float32)
        there = [key in known and status == "ok" for key, status in zip(keys, scores.status, strict=True)]
        status = tuple("bounded" if b else s for b, s in zip(there, scores.status, strict=True))
        return replace(scores, status=status, bounds=np.where(np.array(there)[:, None], bounds, np.nan))


def _is_row(p: object, logits: object, *others: object) -> bool:
    """Return whether `put` could have written a row: SQLite takes any type in any column, and files get edited."""
    if not (isinstance(p, float) and 0 <= p <= 1 and isinstance(logits, bytes) and len(logits) % 4 == 0):
        return False
    *rest, argmax = others
    return type(argmax) is int and all(one is None or isinstance(one, float) for one in rest)


def _intervals(keys: Sequence[bytes], rows: Sequence[int], part: PairScores) -> list[tuple[bytes, float, float]]:
    if part.bounds is None:
        return []
    bounded = [j for j, status in enumerate(part.status) if status == "bounded"]
    return [(keys[rows[j]], float(part.bounds[j, 0]), float(part.bounds[j, 1])) for j in bounded]


def _row(scores: PairScores, i: int) -> CachedRow:
    entropy, off_mass = (None if np.isnan(x) else float(x) for x in (scores.entropy[i], scores.off_mass[i]))
    logits = scores.label_logits[i].astype("<f4").tobytes()
    return float(scores.p[i]), logits, entropy, off_mass, int(scores.argmax_id[i])
