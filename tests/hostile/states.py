"""Read everything that a user would miss out of a table, so that two states can be compared. Runs inside a job."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def table_state(path: str) -> dict[str, Any]:
    """Return rows, tokens, ledger and roots of a table, with a digest in place of bytes; checks that ids are unique."""
    from looktwice.store import Table

    table = Table.open(path)
    ids = [row["id"] for row in table.rows()]
    assert len(ids) == len(set(ids)) == len(table), "an id is there twice"
    rows = {row.id: [row.sha256, digest(row.vector.tobytes()), str(row.metadata)] for row in table.get(sorted(ids))}
    assert sorted(rows) == sorted(ids), "a row is listed and cannot be read"
    if ids:
        some = table.get(sorted(ids)[:1])[0]
        assert some.id in {found.id for found in table.search(some.vector, 5)}, "search does not find what is there"
    return {
        "rows": rows,
        "tokens": {entry["tokens_key"]: tokens(table, ids, entry) for entry in table.manifest.tokens},
        "ledger": sorted([entry.uri, entry.stage, entry.reason] for entry in table.ledger),
        "roots": sorted(table.manifest.roots),
    }


def tokens(table: Any, ids: list[str], entry: Any) -> dict[str, Any]:
    if entry["codebook_sha256"]:
        assert hashlib.sha256(table.codebook(entry["codebook_sha256"])).hexdigest() == entry["codebook_sha256"]
    found = table.read_codes(sorted(ids), entry["tokens_key"])
    return {name: None if row is None else digest(row.codes) for name, row in zip(sorted(ids), found, strict=True)}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def files_state(*paths: str) -> dict[str, Any]:
    """Return the contents of files, None for one that is missing; what varies from run to run is left out of JSON."""
    return {path: content(Path(path)) for path in paths}


VARYING = (
    *("seconds", "seconds_per_query", "bytes_per_item", "pairs_per_second", "versions", "machine", "remembered"),
    *("created", "scored", "cached", "coverage", "counts"),
)


def content(path: Path) -> Any:
    if not path.exists():
        return None
    text = path.read_text()
    return steady(json.loads(text)) if path.suffix == ".json" else text


def steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: steady(inner) for key, inner in value.items() if key not in VARYING}
    return [steady(inner) for inner in value] if isinstance(value, list) else value
