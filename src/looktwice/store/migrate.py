"""Migrate a table from format 1 to format 2: its ledger gets the column `item_id`.

Each step is one atomic commit and is skipped if it was done before. The manifest, which names the format, is written
last. So a killed migration continues at the next write to the table. No line is ever removed.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from looktwice.sources import name_to_id
from looktwice.store.lance import plain_errors, upsert
from looktwice.store.manifest import FORMAT, Manifest

if TYPE_CHECKING:
    from looktwice.store.location import Location

log = logging.getLogger(__name__)

_BATCH = 4096
_ID_IN_DETAIL = re.compile(r"""line \d+, id ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")[,:]""")
"""The id of a list's item in format 1, which kept it in `detail` only. It is read here, once per table."""


def migrate(ledger: Any, manifest: Manifest, location: Location) -> Manifest:
    """Migrate a table to the newest format and return its new manifest. The caller holds the writer's lock."""
    with plain_errors(location, "migrating the table"):
        add_column(ledger)
        fill_ids(ledger)
        changed = Manifest.update(location, lambda now: replace(now, format=FORMAT))
    log.warning(
        "%s was migrated from on-disk format %d to %d with all its rows; "
        "open it only with this version of looktwice or a newer one.",
        location, manifest.format, FORMAT,
    )  # fmt: skip
    return changed


def add_column(ledger: Any) -> None:
    """Add the column `item_id`, null in every row, unless it exists."""
    import pyarrow as pa

    if "item_id" not in ledger.schema.names:
        ledger.add_columns([pa.field("item_id", pa.string())])


def fill_ids(ledger: Any) -> None:
    """Write the known ids into the lines that have none."""
    import pyarrow as pa

    unknown = ledger.search().where("item_id IS NULL").to_arrow()
    for batch in unknown.to_batches(_BATCH):
        rows = [{**row, "item_id": item_id(row)} for row in batch.to_pylist()]
        if known := [row for row in rows if row["item_id"] is not None]:
            data = pa.Table.from_pylist(known, schema=ledger.schema)
            upsert(ledger, "key", data)


def item_id(row: Mapping[str, str]) -> str | None:
    """Return the id of the item of a line of format 1; None for a place, or if the line does not contain it.

    The next run that meets the failure again rewrites the line with its id.
    """
    root, uri = row["root"] or "", row["uri"] or ""
    if root and not root.endswith("/"):
        found = _ID_IN_DETAIL.match(row["detail"] or "")
        return None if found is None else str(ast.literal_eval(found[1]))
    is_item = row["stage"] in ("read", "decode", "encode") and "#" not in uri
    if is_item and root and uri.startswith(root):
        return name_to_id(unquote_to_bytes(uri.removeprefix(root)))
    return None
