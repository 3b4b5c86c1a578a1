"""Making and finding a table's folder. The manifest is written last: without it nothing has ever been added."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from looktwice.errors import StoreError, UsageError
from looktwice.files import DRAFT, demand_plain
from looktwice.store import lock, manifest
from looktwice.store.lance import connect, plain_errors
from looktwice.store.ledger import ledger_schema
from looktwice.store.lock import WriterLock
from looktwice.store.manifest import Manifest
from looktwice.store.schema import check_columns, items_schema, tokens_schema
from looktwice.types import EncoderInfo

_TABLES = ("items", "tokens", "ledger")
_OWN = {*(f"{name}.lance" for name in _TABLES), lock.NAME}


def open_folder(path: Path, encoder: EncoderInfo | None) -> Path:
    """Check that a table can be opened; returns its folder. Raises what `Manifest.read` does, and Mismatch."""
    if not path.exists():
        raise UsageError(f"{path} does not exist; make it with: looktwice index {path} FOLDER")
    if path.is_dir() and not (path / manifest.NAME).exists() and _is_unfinished(path):
        with plain_errors(path, "opening the table"):
            database = connect(path)
            for name in _TABLES:
                _demand_empty(database, name, path)
        raise UsageError(f"{path} was never finished; index into it again and it will be made anew.")
    found = Manifest.read(path)
    if encoder is not None:
        found.check(encoder, path)
    for name in _TABLES:
        demand_plain(path / f"{name}.lance")
    return path


def create_tables(path: Path, encoder: EncoderInfo, columns: Mapping[str, type], roots: Sequence[str]) -> Path:
    """Make the folder, its three empty tables and the manifest; leftovers of a killed attempt are cleared first."""
    check_columns(columns)
    if encoder.dim < 1:
        raise UsageError(f"Vectors need at least one dimension, not {encoder.dim}.")
    _demand_free(path)
    with plain_errors(path, "making the table"):
        path.mkdir(parents=True, exist_ok=True)
        with WriterLock(path).hold():
            _demand_free(path)
            _clear_leftovers(path)
            _create(connect(path), encoder, columns)
            Manifest(encoder, tuple(roots)).write(path)
    return path


def _create(database: Any, encoder: EncoderInfo, columns: Mapping[str, type]) -> None:
    schemas = {
        "items": (items_schema(encoder.dim, columns), "id"),
        "tokens": (tokens_schema(), "key"),
        "ledger": (ledger_schema(), "key"),
    }
    for name, (schema, key) in schemas.items():
        # Without a declared key two processes that merge the same ids double rows silently (LanceDB 0.40).
        database.create_table(name, schema=schema).set_unenforced_primary_key([key])


def _demand_free(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise UsageError(f"{path} is a link that points to nothing; choose another place.")
    if not path.exists():
        return
    if not path.is_dir():
        raise UsageError(f"{path} is a file; a table is a folder, so choose another name.")
    if (path / manifest.NAME).exists():
        raise UsageError(f"{path} is a table already; open it, or choose another name.")
    if any(path.iterdir()) and not _is_unfinished(path):
        raise UsageError(f"{path} holds other files; choose a new folder for the table.")


def _is_unfinished(path: Path) -> bool:
    names = {entry.name for entry in path.iterdir()}
    return bool(names) and names - {draft.name for draft in _drafts(path)} <= _OWN


def _drafts(path: Path) -> list[Path]:
    """Manifests that were never finished."""
    return list(path.glob(f"{manifest.NAME}.*{DRAFT}"))


def _clear_leftovers(path: Path) -> None:
    database = connect(path)
    for name in _TABLES:
        if (path / f"{name}.lance").exists():
            _demand_empty(database, name, path)
            shutil.rmtree(path / f"{name}.lance")
    for draft in _drafts(path):
        draft.unlink()


def _demand_empty(database: Any, name: str, path: Path) -> None:
    demand_plain(path / f"{name}.lance")
    committed = any((path / f"{name}.lance" / "_versions").glob("*.manifest"))
    if committed and database.open_table(name).count_rows():
        raise StoreError(
            f"{path} has rows but no {manifest.NAME}: restore that file from a copy, or move the folder away."
        )
