"""Turn the paths that a user names into a scan."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from looktwice.buckets import parse_address
from looktwice.errors import UsageError, demand_list
from looktwice.sources.again import Again
from looktwice.sources.bucket_planning import add_bucket
from looktwice.sources.folders import Walk, inside, scan_file
from looktwice.sources.jsonl import scan_jsonl
from looktwice.sources.parquet import scan_parquet
from looktwice.sources.parts import EVERY, Frames, extra_of
from looktwice.sources.records import Scope
from looktwice.sources.scan import Scan
from looktwice.sources.tar import is_archive
from looktwice.sources.uri import Urls, file_uri, parse_uri

_WILDCARD = re.compile(rb"[*?\[]")


def scan(
    paths: Iterable[str | os.PathLike[str]],
    *,
    roots: Sequence[str] = (),
    urls: Urls = "refused",
    exclude: Sequence[str] = (),
    every: float = EVERY,
    scenes: bool = False,
    limit: int | None = None,
) -> Scan:
    """Plan a scan of `paths` (folders, files, globs, .jsonl, .parquet, .tar; the same in buckets) and return it.

    `roots` are the roots that a table knows already: items inside one of them get ids relative to it, so that a part of
    a collection can be indexed again. `exclude` holds patterns in the syntax of .gitignore, relative to each folder.
    `every` is the number of seconds between two frames of a video; `scenes` adds the first frame of each of its scenes.
    Raises UsageError for a path that is empty or does not exist, and for a pattern without a match.

    With `limit` only so many items are met, and nothing can be pruned.
    """
    demand_list(paths, "The paths to scan")
    demand_list(exclude, "The patterns to exclude")
    if not every >= 0.1:
        raise UsageError(f"Frames of a video must be at least 0.1 seconds apart, not {every}.")
    paths = list(paths)
    if not all(map(os.fspath, paths)):
        raise UsageError("A path is empty; pass a folder, a file, a .jsonl list or a .tar archive.")
    buckets = [address for path in paths if (address := parse_address(path))]
    local = [path for path in paths if not parse_address(path)]
    named = [match for path in local for match in _expand(os.path.abspath(os.path.expanduser(os.fsencode(path))))]
    if not named and not buckets:
        raise UsageError("No path was given; pass a folder, a file, a .jsonl list or a .tar archive.")
    folders = [root for root in roots if root.startswith("file:") and root.endswith("/")]
    known = [parse_uri(root).path.rstrip(b"/") or b"/" for root in folders]
    bases = _Bases(known, [path for path, own in named if path == own])
    plan = Scan((), ())
    for path, own in named:
        _add(plan, path, bases, own, _Options(urls, tuple(exclude), Frames(every, scenes)))
    for address in buckets:
        add_bucket(plan, address, roots, urls, exclude)
    if limit is not None:
        plan.limit, plan.scopes = limit, ()
    return plan


def _expand(path: bytes) -> list[tuple[bytes, bytes]]:
    """Return (path, folder that ids are relative to) for a path or every match of a pattern."""
    if os.path.isdir(path):
        return [(path, path)]
    if os.path.lexists(path):
        return [(path, os.path.dirname(path))]
    shown = os.fsdecode(path)
    if (wild := _WILDCARD.search(path)) is None:
        raise UsageError(f"{shown!r} does not exist; check the spelling.")
    matches = sorted(_matches(path, path[: wild.start()].rpartition(b"/")[0]))
    if not matches:
        raise UsageError(f"Nothing matches {shown!r}; check the pattern.")
    return [(match, os.path.dirname(path[: wild.start()])) for match in matches]


def _matches(pattern: bytes, folder: bytes) -> Iterable[bytes]:
    """Return the matches of a pattern; `**` enters no linked folder, as two links to each other would never end."""
    rest = pattern[len(folder) + 1 :]
    if b"**" not in rest.split(b"/"):
        return glob.glob(pattern)
    home = Path(os.fsdecode(folder or b"/"))
    found = set(home.glob(os.fsdecode(rest)))
    return [os.fsencode(path) for path in found if not any(part[:1] == "." for part in path.relative_to(home).parts)]


@dataclass(slots=True)
class _Bases:
    """The folder that ids are relative to: the nearest that the table knows, else the outermost given, else its own."""

    known: list[bytes]
    named: list[bytes]

    def of(self, path: bytes, own: bytes) -> bytes:
        known = [base for base in self.known if inside(path, base)]
        named = [base for base in self.named if inside(path, base)]
        return max(known, key=len) if known else min(named, key=len) if named else own

    def below(self, path: bytes) -> tuple[bytes, ...]:
        """Return the folders inside this one that the table knows."""
        return tuple(base for base in self.known if inside(base, path) and base != path)


@dataclass(frozen=True, slots=True)
class _Options:
    """What counts for all paths of a scan."""

    urls: Urls
    exclude: tuple[str, ...]
    frames: Frames


def _add(plan: Scan, path: bytes, bases: _Bases, own: bytes, how: _Options) -> None:
    base = bases.of(path, own)
    uri, root = file_uri(path), file_uri(base, folder=True)
    if os.path.isdir(path):
        nested = bases.below(path)
        plan.parts.append(Walk(path, base, nested, how.exclude, how.frames))
        roots = [root, *(file_uri(known, folder=True) for known in nested)]
        plan.scopes += tuple(Scope(one, file_uri(path, folder=True)) for one in roots)
        plan.roots += (root,) if base == own == path else ()
    elif path.lower().endswith((b".jsonl", b".parquet")):
        lines = partial(scan_jsonl, uri, how.urls) if path.lower().endswith(b".jsonl") else partial(scan_parquet, uri)
        plan.parts.append(Again(lines))
        plan.scopes += (Scope(uri, ""),)
        plan.roots += (uri,)
    else:
        plan.parts.append(Again(partial(scan_file, path, base, how.frames)))
        plan.scopes += (Scope(root, f"{uri}#"),) if is_archive(path) or _has_parts(path) else ()
        plan.roots += (uri,) if is_archive(path) else ()


def _has_parts(path: bytes) -> bool:
    extra = extra_of(path)
    return extra is not None and extra.parts
