"""Say what `looktwice index` reads in folders, and keep a table current while they change."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli.console import plural

if TYPE_CHECKING:
    from looktwice.sources import Scan, Source, Unreadable, Urls

_COMPANIONS = frozenset({".aae", ".xmp", ".thm", ".lrv", ".db", ".ini", ".json", ".xml", ".txt", ".html"})
"""Suffixes of what cameras, systems and photo programs write beside images."""

_KINDS = {"jxl": "JPEG XL", "raw": "raw", "pdf": "PDF", "video": "video"}


@dataclass(frozen=True)
class FolderOptions:
    """What is read in folders, PDFs and videos."""

    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Pass over what matches, in the syntax of .gitignore; see also .looktwiceignore. Repeatable.",
        ),
    ] = None
    video_every: Annotated[float, typer.Option(min=0.1, help="Seconds between two frames of a video.")] = 10.0
    video_scenes: Annotated[
        bool, typer.Option("--video-scenes", help="Also take the first frame of each scene of a video.")
    ] = False
    limit: Annotated[
        int | None, typer.Option(min=1, help="Index only the first N items, as a sample; not with --prune.")
    ] = None
    where: Annotated[
        str | None,
        typer.Option(
            help="Index only items that pass this filter on id, uri, text and the columns of --column, as a sample: "
            "\"license = 'cc0' AND year > 1900\"; not with --prune."
        ),
    ] = None

    def scan(self, paths: Sequence[str], urls: Urls, roots: Sequence[str], columns: Mapping[str, type]) -> Scan:
        """Plan a scan with these options. `columns` are the metadata keys that --where may name."""
        from looktwice.indexing.matching import matching
        from looktwice.sources import scan

        frames: dict[str, Any] = {"every": self.video_every, "scenes": self.video_scenes, "limit": self.limit}
        found = scan(paths, roots=roots, urls=urls, exclude=self.exclude or (), **frames)
        return found if self.where is None else matching(found, self.where, columns)


def needs_extras(skipped: Mapping[str, int], table: Path | str) -> str:
    """Return a sentence about files that need an extra: how many of each kind, and the line that installs it."""
    from looktwice.sources.formats import EXTRAS

    lacking = [extra for extra in EXTRAS if extra.reason in skipped]
    kinds = ", ".join(f"{skipped[extra.reason]:,} {_KINDS[extra.extra]}" for extra in lacking)
    install = f"pip install 'looktwice[{','.join(extra.extra for extra in lacking)}]'"
    files = plural(sum(skipped.values()), "file needs an extra", "files need extras")
    return f"{files} ({kinds}); install with: {install}; list them with: looktwice ledger {table} --skipped"


def passed_over(ignored: Mapping[str, int]) -> Iterator[str]:
    """Yield a sentence about files without an image, and one about files of kinds that are not read, by suffix."""
    from looktwice.sources.formats import BASE_SUFFIXES

    companions = {suffix: n for suffix, n in ignored.items() if suffix in _COMPANIONS}
    others = {suffix: n for suffix, n in ignored.items() if suffix not in _COMPANIONS}
    if companions:
        were = "file that holds no image was" if sum(companions.values()) == 1 else "files that hold no image were"
        yield f"{sum(companions.values()):,} {were} passed over ({_counted(companions)})."
    if others:
        were = "file of another kind was" if sum(others.values()) == 1 else "files of other kinds were"
        read = " ".join(sorted({*BASE_SUFFIXES, ".tar"}))
        skipped = f"{sum(others.values()):,} {were} skipped ({_counted(others)})"
        yield f"{skipped}; rename or convert images to one of: {read}"


def _counted(kinds: Mapping[str, int]) -> str:
    most = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    return ", ".join(f"{suffix or 'without a suffix'} {n:,}" for suffix, n in most[:5]) + ", …" * (len(most) > 5)


def changes(paths: Sequence[str], table: Path) -> Iterator[set[bytes]]:
    """Yield the paths of files that have changed, whenever some did, until the user interrupts."""
    from watchfiles import watch

    own = os.path.abspath(table)
    places = {path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path)) for path in paths}

    def wanted(_: object, path: str) -> bool:
        return not os.path.abspath(path).startswith(own)

    for found in watch(*sorted(places), watch_filter=wanted, debounce=2000, raise_interrupt=True):
        yield {os.path.abspath(os.fsencode(path)) for _, path in found}


def among(found: Scan, changed: Collection[bytes]) -> Iterator[Source | Unreadable]:
    """Yield what a scan meets in changed files; the others are not opened."""
    from looktwice.errors import MediaError
    from looktwice.sources import parse_uri

    for one in found:
        try:
            if parse_uri(one.uri).path.rstrip(b"/") in changed:
                yield one
        except MediaError:  # a URL
            continue
