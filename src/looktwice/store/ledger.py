"""The ledger: what could not be read, encoded or scored, and why. One line per uri and stage; the latest one counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from looktwice.sources.records import told_of
from looktwice.store.lance import batched, is_in, plain_errors

_FIELDS = ("uri", "root", "stage", "reason", "detail", "at")
_BATCH = 4096


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One failure, at the item or place `uri` of `root`. `stage` is scan, read, decode, encode, or tokens:KEY with the
    key of a token set; `reason` a fixed word to count by, `at` an ISO 8601 time in UTC."""

    uri: str
    stage: str
    reason: str
    detail: str = ""
    root: str = ""
    at: str = ""


class Ledger:
    """The failures of one table. Writing demands the table's lock, as everything does that changes it."""

    def __init__(self, folder: Path, open_table: Callable[[], Any], demand_lock: Callable[[], Any]) -> None:
        self._folder, self._open, self._writing = folder, open_table, demand_lock

    def put(self, entries: Sequence[LedgerEntry]) -> None:
        """Write entries, replacing those of the same uri and stage."""
        import pyarrow as pa

        latest = {f"{entry.uri}|{entry.stage}": entry for entry in entries}
        if not latest:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        rows = [
            {"key": key, **{name: getattr(entry, name) for name in _FIELDS}, "at": entry.at or now}
            for key, entry in latest.items()
        ]
        with self._writing(), plain_errors(self._folder, "writing the ledger"):
            table = self._open()
            upsert = table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
            upsert.execute(pa.Table.from_pylist(rows, schema=ledger_schema()))

    def clear(self, uris: Iterable[str], stages: Sequence[str] | None = None) -> int:
        """Forget the failures of these uris, in these stages or in all; returns how many there were."""
        removed = 0
        with self._writing(), plain_errors(self._folder, "clearing the ledger"):
            table = self._open()
            for part in batched(uris, 2000):
                if table.count_rows() == 0:
                    break
                where = is_in("uri", part) + ("" if stages is None else f" AND {is_in('stage', stages)}")
                if table.count_rows(where):
                    removed += table.delete(where).num_deleted_rows
        return removed

    def clear_items(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Forget the failures of these items (id, uri, root); those of lists are called by where they stand in it."""
        uris: list[str] = []
        lists: dict[str, set[str]] = {}
        for row in rows:
            uris.append(row["uri"])
            if row["root"] and not row["root"].endswith("/"):
                lists.setdefault(row["root"], set()).add(row["id"])
        with plain_errors(self._folder, "reading the ledger"):
            found = self._open().search().where(is_in("root", lists)).select(["uri", "root", "detail"]).to_arrow()
        told = (entry["uri"] for entry in found.to_pylist() if told_of(entry["detail"]) in lists[entry["root"]])
        self.clear([*uris, *told])

    def __len__(self) -> int:
        with plain_errors(self._folder, "reading the ledger"):
            return int(self._open().count_rows())

    def __iter__(self) -> Iterator[LedgerEntry]:
        """Entries in the order of uri and stage."""
        with plain_errors(self._folder, "reading the ledger"):
            rows = self._open().search().select(list(_FIELDS)).to_arrow()
        rows = rows.sort_by([("uri", "ascending"), ("stage", "ascending")])
        for batch in rows.to_batches(_BATCH):  # as Python objects, a million entries would take a gigabyte
            yield from (LedgerEntry(**row) for row in batch.to_pylist())


def ledger_schema() -> Any:
    import pyarrow as pa

    texts = [pa.field(name, pa.string()) for name in _FIELDS]
    return pa.schema([pa.field("key", pa.string(), nullable=False), *texts])
