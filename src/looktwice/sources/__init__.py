"""Find items in folders, files, globs, `.jsonl` lists and webdataset `.tar` archives.

    scan(["~/Pictures", "list.jsonl"])  ->  Source, Source, Unreadable, Source, …
    source.read()  /  read_uri(source.uri)  ->  bytes

Scanning is lazy and in a fixed order. An unreadable place is yielded as `Unreadable` and never stops the scan.
"""

from looktwice.sources.folders import is_linked
from looktwice.sources.planning import scan
from looktwice.sources.records import REASONS as _SCAN_REASONS
from looktwice.sources.records import Scope, Source, Unreadable, name_to_id
from looktwice.sources.scan import Scan
from looktwice.sources.scopes import HiddenPlaces, Scopes
from looktwice.sources.uri import REASONS as _READ_REASONS
from looktwice.sources.uri import Urls, display, file_uri, parse_uri, read_uri

__all__ = [
    "REASONS",
    "HiddenPlaces",
    "Scan",
    "Scope",
    "Scopes",
    "Source",
    "Unreadable",
    "Urls",
    "display",
    "file_uri",
    "is_linked",
    "name_to_id",
    "parse_uri",
    "read_uri",
    "scan",
]

REASONS = {**_SCAN_REASONS, **_READ_REASONS}
"""Every word that a scan or a read can give as its reason."""
