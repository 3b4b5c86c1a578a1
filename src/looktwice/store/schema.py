"""Define the records of the store and their columns on disk; docs/reference/on-disk-format.md is the contract."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.errors import UnknownName, UsageError
from looktwice.store.conditions import Int32
from looktwice.store.forged import demand_schema, demand_whole, read_metadata
from looktwice.types import text_is_utf8

if TYPE_CHECKING:
    from looktwice.types import FloatArray

COLUMN_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}

_FIXED = ("id", "uri", "root", "sha256", "width", "height", "text", "metadata", "vector", "indexed_at")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Row:
    """One item. `sha256` is the hash (hex) of the image's bytes, or of the text of an item without an image.

    Width and height are in pixels, 0 without an image. `vector` is [d] float32 and is stored as float16. The id is
    relative to `root`.
    """

    id: str
    uri: str
    sha256: str
    width: int
    height: int
    text: str | None
    metadata: Mapping[str, Any]
    vector: FloatArray
    root: str = ""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Compressed visual tokens of one image. `layout` is JSON; `sha256` is the hash of the image's bytes."""

    id: str
    sha256: str
    tokens_key: str
    layout: str
    codes: bytes
    levels: int


def parse_columns(specs: Sequence[str]) -> dict[str, type]:
    """Read declarations of metadata columns to filter on.

    >>> parse_columns(["year:int", "shop"])
    {'year': <class 'int'>, 'shop': <class 'str'>}
    """
    columns: dict[str, type] = {}
    for spec in specs:
        name, colon, kind = spec.partition(":")
        if colon and kind not in COLUMN_TYPES:
            raise UnknownName("column type", kind, COLUMN_TYPES)
        if name in columns:
            raise UsageError(f"The column {name!r} is declared twice; pass each --column once.")
        columns[name] = COLUMN_TYPES[kind or "str"]
    check_columns(columns)
    return columns


def check_columns(columns: Mapping[str, type]) -> None:
    """Raise UsageError for columns that SQL cannot name or that exist already (its names ignore case)."""
    taken = set(_FIXED)
    for name, kind in columns.items():
        if not _NAME.match(name):
            raise UsageError(f"{name!r} is not a valid column name; use letters, digits and underscores.")
        if name.lower() in taken:
            raise UsageError(f"The column {name!r} already exists; choose another name.")
        if kind not in COLUMN_TYPES.values():
            raise UsageError(f"The column {name!r} has type {kind!r}; use one of {', '.join(COLUMN_TYPES)}.")
        taken.add(name.lower())


def stored_dim(dim: int) -> int:
    """Return the stored length of vectors: padded to a multiple of 8 for the index, with zeros for the cosine."""
    return -(-dim // 8) * 8


def column_fields(columns: Mapping[str, type]) -> list[Any]:
    """Return the Arrow fields of metadata columns."""
    import pyarrow as pa

    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    return [pa.field(name, kinds[kind]) for name, kind in columns.items()]


def items_schema(dim: int, columns: Mapping[str, type]) -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("uri", pa.string()),
            pa.field("root", pa.string()),
            pa.field("sha256", pa.string()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("text", pa.string()),
            pa.field("metadata", pa.string()),
            *column_fields(columns),
            pa.field("vector", pa.list_(pa.float16(), stored_dim(dim))),
            pa.field("indexed_at", pa.timestamp("ms", tz="UTC")),
        ]
    )


def tokens_schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("id", pa.string()),
            pa.field("sha256", pa.string()),
            pa.field("tokens_key", pa.string()),
            pa.field("layout", pa.string()),
            pa.field("codes", pa.large_binary()),
            pa.field("levels", pa.int8()),
        ]
    )


def check_items(place: object, schema: Any, dim: int) -> None:
    """Raise Damaged if the items of a table have other columns than looktwice gives them."""
    demand_schema(place, schema, items_schema(dim, {}), [field.type for field in column_fields(COLUMN_TYPES)])


def declared(schema: Any) -> dict[str, type]:
    """Return the metadata columns of a table from its schema."""
    kinds = {"int64": int, "double": float, "string": str, "bool": bool}
    return {field.name: kinds[str(field.type)] for field in schema if field.name not in _FIXED}


def filterable(schema: Any) -> dict[str, type]:
    """Return the columns that a filter may name, with the type that their values are compared in."""
    kinds: dict[str, type] = {"int64": int, "int32": Int32, "double": float, "string": str, "bool": bool}
    found = {field.name: kinds.get(str(field.type)) for field in schema}
    return {name: kind for name, kind in found.items() if kind} | {"indexed_at": datetime}


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """Return metadata in its stored form: JSON with sorted keys. Raises UsageError for values that JSON cannot hold."""
    try:
        text = json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True, allow_nan=False, separators=(",", ":"))
        text.encode()
        return text
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise UsageError(
            f"The metadata is not plain JSON ({error}); use texts, numbers, lists and objects only."
        ) from None


def column_values(metadata: Mapping[str, Any], columns: Mapping[str, type]) -> dict[str, Any]:
    """Return the declared columns of one item, None for a missing key or a value that does not fit."""
    return {name: _fitted(metadata.get(name), kind) for name, kind in columns.items()}


def unfit(metadata: Mapping[str, Any], columns: Mapping[str, type]) -> list[str]:
    """Return the columns for which an item has a value of another type; they are null in its row."""
    values = column_values(metadata, columns)
    return [name for name in columns if metadata.get(name) is not None and values[name] is None]


def _fitted(value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        return float(value) if abs(value) < 2**1023 else None
    if type(value) is not kind or (type(value) is int and not -(2**63) <= value < 2**63):
        return None
    return value


def check_rows(rows: Sequence[Row], dim: int) -> None:
    """Raise UsageError for rows that could not be stored or found again."""
    seen: set[str] = set()
    for row in rows:
        if not row.id or not text_is_utf8(row.id):
            raise UsageError(f"{row.id!r} is not a valid id; use non-empty UTF-8 text.")
        if row.id in seen:
            raise UsageError(f"The id {row.id!r} occurs twice in one batch; pass each id once.")
        seen.add(row.id)
        if row.vector.shape != (dim,):
            raise UsageError(f"The vector of {row.id!r} has shape {row.vector.shape}; this table needs ({dim},).")
        if not np.all(np.isfinite(stored := row.vector.astype(np.float16))) or not stored.any():
            raise UsageError(
                f"The vector of {row.id!r} is zero or not finite, so search could never find it; leave the item out."
            )


def rows_to_arrow(rows: Sequence[Row], schema: Any, columns: Mapping[str, type]) -> Any:
    import pyarrow as pa

    now = datetime.now(UTC)
    vectors = np.zeros((len(rows), schema.field("vector").type.list_size), np.float16)
    for vector, row in zip(vectors, rows, strict=True):
        vector[: len(row.vector)] = row.vector
    names = ("id", "uri", "root", "sha256", "width", "height", "text")
    data: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in names}
    data["metadata"] = [metadata_json(row.metadata) for row in rows]
    extra = [column_values(row.metadata, columns) for row in rows]
    data.update({name: [values[name] for values in extra] for name in columns})
    data["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    data["indexed_at"] = [now] * len(rows)
    return pa.table(data, schema=schema)


def arrow_to_rows(table: Any, dim: int) -> list[Row]:
    vectors = vectors_of(table, dim).astype(np.float32)
    names = ("id", "uri", "sha256", "width", "height", "text", "metadata", "root")
    columns = [table[name].to_pylist() for name in names]
    return [
        Row(id_, uri, sha256, width, height, text, read_metadata(metadata), vector, root)
        for id_, uri, sha256, width, height, text, metadata, root, vector in zip(*columns, vectors, strict=True)
    ]


def vectors_of(table: Any, dim: int) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Return the vector column of an Arrow table or batch as (n, dim) float16, padding cut off."""
    column = demand_whole(table)["vector"]
    column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    flat: np.ndarray[Any, np.dtype[np.float16]] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), -1 if len(table) else dim)[:, :dim]
