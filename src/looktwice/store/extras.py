"""Open the optional LanceDB tables of a table: `previews` and `deleted`."""

from __future__ import annotations

from typing import Any

from looktwice.store.deleted import NAME as DELETED
from looktwice.store.deleted import deleted_schema
from looktwice.store.lance import make_table
from looktwice.store.location import Location
from looktwice.store.previews import NAME as PREVIEWS
from looktwice.store.previews import previews_schema

EXTRAS = (PREVIEWS, DELETED)
_SCHEMAS = {PREVIEWS: (previews_schema, "id"), DELETED: (deleted_schema, "key")}


def open_extras(location: Location, database: Any) -> dict[str, Any]:
    """Return the handles of those that exist; one whose making was interrupted counts as missing."""
    return {name: database.open_table(name) for name in EXTRAS if _exists(location, name)}


def extra_schema(name: str) -> Any:
    """Return the Arrow schema of one of them."""
    return _SCHEMAS[name][0]()


def make_extra(location: Location, database: Any, name: str) -> Any:
    """Make one of them and return its handle."""
    schema, key = _SCHEMAS[name]
    if location.lock_file is not None:  # else another process may be making it
        location.delete(f"{name}.lance")  # leftovers of an interrupted attempt
    return make_table(database, name, schema(), key)


def _exists(location: Location, name: str) -> bool:
    return any(file.endswith(".manifest") for file in location.list(f"{name}.lance/_versions"))
