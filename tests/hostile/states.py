"""Read everything that a user would miss out of a table, so that two states can be compared. Runs inside a job."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def resume(*argv: str) -> tuple[Any, int, Any]:
    """Read a state, run an interrupted command again and read the state anew, in one process.

    `argv` is the function that reads and its arguments, `--`, a function to call ("" for a command), its arguments.
    """
    cut = argv.index("--")
    (read, *where), (call, *rest) = argv[:cut], argv[cut + 1 :]
    now, code = globals()[read](*where), 0
    if call:
        globals()[call.removeprefix("states:")](*rest)
    else:
        from looktwice.cli.main import main

        sys.argv = ["looktwice", *rest]
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return now, code, globals()[read](*where)


def fill(path: str, images: str) -> None:
    """Make a table from memory, with all images but the last eight."""
    _upsert(path, [{"id": file.name, "image": file} for file in sorted(Path(images).iterdir())[:-8]])


def upsert(path: str, images: str) -> None:
    """Change items' texts, replace images and add items, as a shop's backend does."""
    files = sorted(Path(images).iterdir())
    changed = [{"id": file.name, "text": f"number {n}", "metadata": {"n": n}} for n, file in enumerate(files[:8])]
    replaced = [{"id": file.name, "image": files[0]} for file in files[8:12]]
    _upsert(path, [*changed, *replaced, *({"id": f"new-{file.name}", "image": file} for file in files[-8:])])


def _upsert(path: str, items: list[dict[str, Any]]) -> None:
    from looktwice.errors import LooktwiceError
    from looktwice.store import Table

    try:
        table = Table.open_or_create(path, "tiny-clip", device="cpu", dtype="float32")
        failed = table.upsert(items, batch_size=4).failed
    except LooktwiceError as error:  # a program would say it and stop, as a command does
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if failed:
        sys.exit(3)


def table_state(path: str) -> dict[str, Any] | None:
    """Return rows, tokens, ledger and roots of a table, with a digest in place of bytes; checks that ids are unique.

    A table that is not made yet is None.
    """
    from looktwice.store import Table

    if not (Path(path) / "manifest.json").exists():
        return None
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
