"""Store a table on disk: items with vectors, their visual tokens, and the ledger of failures.

    table = Table.create("photos.lt", encoder.info, columns={"year": int})
    table.add([Row(...)])
    table.search(vector, k=100, where="year > 2020")  ->  [Candidate(id, coarse), …]

Importing this package loads neither LanceDB nor Arrow; opening a table does.
"""

from looktwice.store.ann import IndexInfo
from looktwice.store.conditions import Where, compile_where
from looktwice.store.erasing import DroppedTokens
from looktwice.store.forged import read_metadata
from looktwice.store.group import TableGroup
from looktwice.store.lance import batched, is_in
from looktwice.store.ledger import Ledger, LedgerEntry, LedgerReader
from looktwice.store.location import LocalFolder, Location, exists, locate
from looktwice.store.manifest import Manifest
from looktwice.store.previews import PreviewRow
from looktwice.store.reader import Snapshot, TableReader
from looktwice.store.schema import Row, TokenRow, metadata_json, parse_columns, unfit
from looktwice.store.table import Table

__all__ = [
    "DroppedTokens",
    "IndexInfo",
    "Ledger",
    "LedgerEntry",
    "LedgerReader",
    "LocalFolder",
    "Location",
    "Manifest",
    "PreviewRow",
    "Row",
    "Snapshot",
    "Table",
    "TableGroup",
    "TableReader",
    "TokenRow",
    "Where",
    "batched",
    "compile_where",
    "exists",
    "is_in",
    "locate",
    "metadata_json",
    "parse_columns",
    "read_metadata",
    "unfit",
]
