"""Create and open tables. The manifest is written last, so a folder without it has never held a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from looktwice.buckets import PROBE
from looktwice.errors import Locked, StoreError, UsageError
from looktwice.files import DRAFT
from looktwice.store import manifest
from looktwice.store.extras import EXTRAS
from looktwice.store.lance import connect, make_table, plain_errors
from looktwice.store.lance_manifest import check_lance
from looktwice.store.ledger import ledger_schema
from looktwice.store.location import LOCK, Location
from looktwice.store.lock import WriterLock
from looktwice.store.manifest import Manifest
from looktwice.store.schema import check_columns, items_schema, tokens_schema
from looktwice.types import EncoderInfo

_TABLES = ("items", "tokens", "ledger")
_OWN = {*(f"{name}.lance" for name in (*_TABLES, *EXTRAS)), LOCK}


def open_location(location: Location, encoder: EncoderInfo | None) -> Location:
    """Check that a table can be opened and return its location. Raises like `Manifest.read`, and Mismatch."""
    there = location.exists(manifest.NAME)
    if not there and not location.exists():
        raise UsageError(f"{location} does not exist; create it with: looktwice index {location} FOLDER")
    if not there and _is_unfinished(location):
        with plain_errors(location, "opening the table"):
            database = connect(location)
            for name in _TABLES:
                _demand_empty(database, name, location)
        raise UsageError(f"{location} is an unfinished table; run the same looktwice index again to create it.")
    found = Manifest.read(location)
    if encoder is not None:
        found.check(encoder, location)
    check_lance(location, *_TABLES, *EXTRAS)
    return location


def create_tables(
    location: Location, encoder: EncoderInfo, columns: Mapping[str, type], roots: Sequence[str], previews: int = 0
) -> Location:
    """Create the folder, its three empty tables and the manifest; clear the leftovers of a killed attempt first."""
    check_columns(columns)
    if encoder.dim < 1:
        raise UsageError(f"Vectors have {encoder.dim} dimensions; use an encoder with at least one.")
    with plain_errors(location, "making the table"):
        location.prepare()
        _demand_free(location)
        with WriterLock(location).hold():
            if location.exists(manifest.NAME):
                raise _just_made(location)
            _demand_free(location)
            _clear_leftovers(location)
            _create(connect(location), encoder, columns)
            if not Manifest(encoder, tuple(roots), previews=previews).create(location):
                raise _just_made(location)
    return location


def _just_made(location: Location) -> Locked:
    return Locked(f"Another process has just made the table {location}; run the same command again.")


def _create(database: Any, encoder: EncoderInfo, columns: Mapping[str, type]) -> None:
    schemas = {
        "items": (items_schema(encoder.dim, columns), "id"),
        "tokens": (tokens_schema(), "key"),
        "ledger": (ledger_schema(), "key"),
    }
    for name, (schema, key) in schemas.items():
        make_table(database, name, schema, key)


def _demand_free(location: Location) -> None:
    names = location.list()  # before the manifest is looked for, which another process may write in between
    if location.exists(manifest.NAME):
        raise UsageError(f"{location} is already a table; open it, or choose another name.")
    if _foreign(names):
        raise UsageError(f"{location} contains other files; choose a new folder for the table.")


def _is_unfinished(location: Location) -> bool:
    names = location.list()
    return bool(names) and not _foreign(names)


def _foreign(names: Iterable[str]) -> list[str]:
    """Return the names that are none of an unfinished table's. Another process may be testing a bucket."""
    return [name for name in names if name not in _OWN and not _is_draft(name) and not name.startswith(PROBE)]


def _is_draft(name: str) -> bool:
    """Return whether a name is that of an unfinished manifest."""
    return name.startswith(f"{manifest.NAME}.") and name.endswith(DRAFT)


def _clear_leftovers(location: Location) -> None:
    """Delete what a killed attempt has left. In a bucket another process may be at it: its empty tables are used."""
    database = connect(location)
    for name in _TABLES:
        if location.exists(f"{name}.lance"):
            _demand_empty(database, name, location)
            if location.lock_file is not None:
                location.delete(f"{name}.lance")
    for draft in filter(_is_draft, location.list()):
        location.delete(draft)


def _demand_empty(database: Any, name: str, location: Location) -> None:
    check_lance(location, name)
    committed = any(file.endswith(".manifest") for file in location.list(f"{name}.lance/_versions"))
    if committed and database.open_table(name).count_rows():
        if location.exists(manifest.NAME):  # in a bucket, another process has made and filled it meanwhile
            raise _just_made(location)
        raise StoreError(
            f"{location} has rows but no {manifest.NAME}: restore that file from a copy, or move the folder away."
        )
