"""Keep the ledger: items and places that failed, with the reason. One line per uri and stage; the latest one counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from looktwice.store.forged import demand_schema
from looktwice.store.lance import batched, is_in, plain_errors, remove, upsert

_FIELDS = ("uri", "root", "stage", "reason", "detail", "at", "item_id")
_BATCH = 4096
_CHUNK = 2000


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One failure, of the item or place `uri` of `root`.

    `stage` is scan, read, decode, encode, or tokens:KEY with the key of a token set. `reason` is a fixed word to count
    by. `at` is an ISO 8601 time in UTC. `item_id` is the id of the failed item; it is empty for a place, such as an
    unreadable folder.
    """

    uri: str
    stage: str
    reason: str
    detail: str = ""
    root: str = ""
    at: str = ""
    item_id: str = ""


class LedgerReader:
    """The failures of one table, for reading."""

    def __init__(self, place: object, open_table: Callable[[], Any]) -> None:
        self._place, self._open = place, open_table

    def __len__(self) -> int:
        with plain_errors(self._place, "reading the ledger"):
            return int(self._open().count_rows())

    def __iter__(self) -> Iterator[LedgerEntry]:
        """Yield the entries in the order of uri and stage."""
        with plain_errors(self._place, "reading the ledger"):
            table = self._open()
            rows = table.search().select([name for name in _FIELDS if name in table.schema.names]).to_arrow()
        rows = rows.sort_by([("uri", "ascending"), ("stage", "ascending")])
        for batch in rows.to_batches(_BATCH):  # as Python objects, a million entries would take a gigabyte
            yield from (LedgerEntry(**{name: row.get(name) or "" for name in _FIELDS}) for row in batch.to_pylist())


class Ledger(LedgerReader):
    """The failures of one table, for reading and writing. Writing takes the table's lock."""

    def __init__(self, place: object, open_table: Callable[[], Any], demand_lock: Callable[[], Any]) -> None:
        super().__init__(place, open_table)
        self._writing = demand_lock

    def put(self, entries: Sequence[LedgerEntry]) -> None:
        """Write entries, replacing those of the same uri and stage."""
        import pyarrow as pa

        latest = {f"{entry.uri}|{entry.stage}": entry for entry in entries}
        if not latest:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows = [
            {"key": key, **asdict(entry), "at": entry.at or now, "item_id": entry.item_id or None}
            for key, entry in latest.items()
        ]
        with self._writing(), plain_errors(self._place, "writing the ledger"):
            upsert(self._open(), "key", pa.Table.from_pylist(rows, schema=ledger_schema()))

    def clear(self, uris: Iterable[str], stages: Sequence[str] | None = None) -> int:
        """Delete the failures of these uris, in these stages or in all. Return how many were deleted."""
        removed = 0
        with self._writing(), plain_errors(self._place, "clearing the ledger"):
            for part in batched(uris, _CHUNK):
                if self._open().count_rows() == 0:
                    break
                where = is_in("uri", part) + ("" if stages is None else f" AND {is_in('stage', stages)}")
                removed += remove(self._open(), where)
        return removed

    def clear_stage(self, stage: str) -> int:
        """Delete all failures of a stage. Return how many were deleted."""
        with self._writing(), plain_errors(self._place, "clearing the ledger"):
            return remove(self._open(), is_in("stage", [stage]))

    def clear_ids(self, root: str, ids: Sequence[str], stages: Sequence[str]) -> int:
        """Delete the failures of the items `ids` of one root, in these stages. Return how many were deleted."""
        removed = 0
        with self._writing(), plain_errors(self._place, "clearing the ledger"):
            for part in batched(ids, _CHUNK):
                where = f"{is_in('item_id', part)} AND {is_in('root', [root])} AND {is_in('stage', stages)}"
                removed += remove(self._open(), where)
        return removed

    def clear_items(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Delete the failures of these items (id, uri, root), by their uri or their id."""
        by_root: dict[str, list[str]] = defaultdict(list)
        uris: list[str] = []
        for row in rows:
            uris.append(row["uri"])
            by_root[row["root"]].append(row["id"])
        with self._writing(), plain_errors(self._place, "clearing the ledger"):
            self.clear(uris)
            for root, ids in by_root.items():  # the same id under another root is another item
                for part in batched(ids, _CHUNK):
                    remove(self._open(), f"{is_in('item_id', part)} AND {is_in('root', [root])}")


def ledger_schema() -> Any:
    """Return the Arrow schema of the ledger."""
    import pyarrow as pa

    texts = [pa.field(name, pa.string()) for name in _FIELDS]
    return pa.schema([pa.field("key", pa.string(), nullable=False), *texts])


def check_ledger(place: object, schema: Any) -> None:
    """Raise Damaged if a ledger has other columns; that of format 1 has no `item_id`."""
    import pyarrow as pa

    own = [field for field in ledger_schema() if field.name != "item_id"]
    demand_schema(place, schema, pa.schema(own), [pa.string()])
