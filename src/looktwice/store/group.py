"""Search several tables as one: side by side, merged by score. All of them need the same encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from looktwice.errors import Mismatch, UnknownName, UsageError
from looktwice.store.conditions import Where
from looktwice.store.reader import TableReader
from looktwice.store.schema import Row, TokenRow
from looktwice.store.table import Table
from looktwice.types import Candidate

if TYPE_CHECKING:
    from looktwice.types import FloatArray

T = TypeVar("T")


class TableGroup(TableReader):
    """Several tables, read as one. The id of an item is TABLE/ID, with the name of its table's folder.

    Two folders of the same name go by their whole paths; `names` gives tables other names. Filters see each table's own
    columns and ids. Only stored tokens that every table has are used. Raises Mismatch if the tables were made with
    different encoders.
    """

    def __init__(self, tables: Sequence[TableReader], names: Sequence[str] | None = None) -> None:
        self.tables = dict(zip(names or _names([table.path for table in tables]), tables, strict=True))
        first = tables[0]
        for other in tables[1:]:
            _demand_one_encoder(first, other)
        keys = [{entry["tokens_key"] for entry in table.manifest.tokens} for table in tables]
        shared = tuple(entry for entry in first.manifest.tokens if all(entry["tokens_key"] in own for own in keys))
        self.manifest = replace(first.manifest, tokens=shared, index=None)
        self.columns = {name: kind for name, kind in first.columns.items() if all(name in t.columns for t in tables)}

    @classmethod
    def open(cls, tables: TableReader | str | Path | Sequence[TableReader | str | Path]) -> TableReader:
        """Return one table, or a group of several. Raises UsageError like `Table.open`, and for the same one twice."""
        given = [tables] if isinstance(tables, TableReader | str | Path) else tables
        opened = [table if isinstance(table, TableReader) else Table.open(table) for table in given]
        if not opened:
            raise UsageError("There is no table to search; name at least one.")
        return opened[0] if len(opened) == 1 else cls(opened)

    @property
    def path(self) -> str:
        """Return the names of all tables."""
        return " + ".join(self.tables)

    def split(self, id_: str) -> tuple[str, str]:
        """Return the name of an item's table, and its id there. Raises UnknownName."""
        for name in self.tables:
            if id_.startswith(f"{name}/"):
                return name, id_[len(name) + 1 :]
        raise UnknownName("table of the item", id_, self.tables)

    def snapshot(self) -> TableGroup:
        """Return the newest version of every table as a view that never changes."""
        return TableGroup([table.snapshot() if isinstance(table, Table) else table for table in self.tables.values()])

    def follow(self) -> None:
        """Move every table to its newest version, where it may move at all."""
        for table in self.tables.values():
            table.follow()

    def __len__(self) -> int:
        return sum(map(len, self.tables.values()))

    def count(self, where: Where | None = None) -> int:
        return sum(table.count(where) for table in self.tables.values())

    def search_many(self, vectors: Any, k: int, where: Where | None = None) -> list[list[Candidate]]:
        with ThreadPoolExecutor(len(self.tables)) as pool:
            found = list(pool.map(lambda table: table.search_many(vectors, k, where), self.tables.values()))
        named = [[_named(name, row) for row in rows] for name, rows in zip(self.tables, found, strict=True)]
        return [_merged(lists, k) for lists in zip(*named, strict=True)]

    def get(self, ids: Sequence[str]) -> list[Row]:
        found = {row.id: row for row in self._each(ids, lambda table, own: table.get(own), _renamed)}
        return [found[id_] for id_ in ids]

    def vectors(self, ids: Sequence[str]) -> FloatArray:
        rows = dict(self._each(ids, lambda table, own: list(zip(own, table.vectors(own), strict=True)), _keyed))
        dim = self.manifest.encoder.dim
        return np.stack([rows[id_] for id_ in ids]) if ids else np.empty((0, dim), np.float32)

    def rows(self, columns: Sequence[str] = ("id",), where: Where | None = None) -> Iterator[dict[str, Any]]:
        for name, table in self.tables.items():
            for row in table.rows(columns, where):
                yield _prefixed(name, row)

    def lookup(self, ids: Iterable[str], columns: Sequence[str]) -> list[dict[str, Any]]:
        wanted = list(dict.fromkeys(["id", *columns]))
        rows = self._each(self._known(ids), lambda table, own: table.lookup(own, wanted), _prefixed)
        return [{name: row[name] for name in columns} for row in rows]

    def read_codes(self, ids: Sequence[str], tokens_key: str) -> list[TokenRow | None]:
        rows = dict(
            self._each(ids, lambda table, own: list(zip(own, table.read_codes(own, tokens_key), strict=True)), _keyed)
        )
        return [row and replace(row, id=id_) for id_ in ids for row in [rows[id_]]]

    @property
    def tokens_version(self) -> int:
        return hash(tuple(table.tokens_version for table in self.tables.values()))

    def codebook(self, sha256: str) -> bytes:
        return next(iter(self.tables.values())).codebook(sha256)

    def preview(self, item_id: str, sha256: str | None = None) -> bytes | None:
        name, own = self.split(item_id)
        return self.tables[name].preview(own, sha256)

    def previewed(self, ids: Iterable[str]) -> dict[str, str]:
        return dict(self._each(self._known(ids), lambda table, own: table.previewed(own).items(), _keyed))

    def page(self, offset: int, limit: int, columns: Sequence[str] = ("id",)) -> NoReturn:
        self._refuse()

    def deleted(self, items: Iterable[tuple[str, str]]) -> NoReturn:
        self._refuse()

    def find_images(self, hashes: Iterable[str]) -> NoReturn:
        self._refuse()

    def contents(self) -> NoReturn:
        self._refuse()

    def pending_tokens(self, tokens_key: str) -> NoReturn:
        self._refuse()

    def info(self) -> NoReturn:
        self._refuse()

    def export(self, target: str | Path) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(f"This works on one table, but {len(self.tables)} are open together; open each by itself.")

    def _known(self, ids: Iterable[str]) -> list[str]:
        """Return those ids that name one of the tables."""
        return [id_ for id_ in ids if any(id_.startswith(f"{name}/") for name in self.tables)]

    def _each(self, ids: Sequence[str], read: Any, name_rows: Any) -> list[Any]:
        """Read the ids of each table from it, and give the rows their names in the group."""
        own: dict[str, list[str]] = {}
        for id_ in ids:
            name, rest = self.split(id_)
            own.setdefault(name, []).append(rest)
        return [name_rows(name, row) for name, some in own.items() for row in read(self.tables[name], some)]


def _names(paths: Sequence[Path | str]) -> list[str]:
    short = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths]
    names = [str(path) if short.count(name) > 1 else name for path, name in zip(paths, short, strict=True)]
    if len(set(names)) < len(names):
        raise UsageError(f"The table {max(names, key=names.count)} is named twice; name each table once.")
    return names


def _demand_one_encoder(first: TableReader, other: TableReader) -> None:
    try:
        first.manifest.check(other.manifest.encoder, first.path)
    except Mismatch as error:
        why = str(error).partition(";")[0]
        raise Mismatch(
            f"{first.path} and {other.path} cannot be searched together: {why}; index one of them again with the "
            "encoder of the other."
        ) from None
    if first.manifest.reading != other.manifest.reading:
        raise Mismatch(
            f"{first.path} and {other.path} cannot be searched together: their images were read by different rules; "
            "index the older one again."
        )


def _named(name: str, found: list[Candidate]) -> list[Candidate]:
    return [Candidate(f"{name}/{candidate.id}", candidate.coarse) for candidate in found]


def _merged(lists: Sequence[list[Candidate]], k: int) -> list[Candidate]:
    return list(islice(merge(*lists, key=lambda candidate: (-candidate.coarse, candidate.id)), k))


def _renamed(name: str, row: Row) -> Row:
    return replace(row, id=f"{name}/{row.id}")


def _prefixed(name: str, row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "id": f"{name}/{row['id']}"} if "id" in row else row


def _keyed(name: str, pair: tuple[str, T]) -> tuple[str, T]:
    return f"{name}/{pair[0]}", pair[1]
