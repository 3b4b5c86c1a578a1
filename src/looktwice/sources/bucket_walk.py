"""Walk the objects of a bucket for images and `.tar` archives, as `folders.Walk` does for folders of this machine."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

from looktwice.buckets import Bucket, BucketAddress
from looktwice.errors import UsageError
from looktwice.sources.again import Again
from looktwice.sources.formats import SUFFIXES
from looktwice.sources.ignore import compiled, is_own
from looktwice.sources.jsonl import scan_jsonl
from looktwice.sources.parquet import scan_parquet
from looktwice.sources.parts import extra_of
from looktwice.sources.records import Scope, Source, Unreadable, name_to_id
from looktwice.sources.tar import is_archive, scan_tar
from looktwice.sources.uri import Urls, object_uri, parse_uri

if TYPE_CHECKING:
    from looktwice.sources import Scan

_WILDCARD = re.compile(r"[*?\[]")
_LISTS = (".jsonl", ".parquet")


@dataclass(slots=True)
class BucketWalk:
    """The objects below a prefix, in the order of their keys. Ids are relative to `base`, a prefix without slash.

    `ignored` counts objects of other kinds by suffix. Pages of PDFs and frames of videos are not read from buckets.
    """

    bucket: Bucket
    prefix: str
    base: str
    exclude: tuple[str, ...] = ()
    ignored: Counter[str] = field(default_factory=Counter)
    empty: list[Scope] = field(default_factory=list)

    def __iter__(self) -> Iterator[Source | Unreadable]:
        self.ignored = Counter()
        excluded = compiled(self.exclude)
        for found in self.bucket.walk(self.prefix):
            name = found.name[len(self.prefix) :].lstrip("/")
            if _is_passed_over(name) or excluded.match_file(name):
                continue
            if not _is_wanted(name):
                self.ignored[posixpath.splitext(name)[1].lower()] += 1
            else:
                yield from scan_object(self.bucket, found.name, self.base)


def add_bucket(plan: Scan, address: BucketAddress, roots: Sequence[str], urls: Urls, exclude: Sequence[str]) -> None:
    """Add a prefix, an object, or all objects that match a pattern. Raises UsageError if there are none."""
    bucket = Bucket.of(address)
    known = [parse_uri(root).path.decode().rstrip("/") for root in roots if root.startswith(f"{bucket}/")]
    if _WILDCARD.search(address.key):
        keys, own = _matches(bucket, address.key)
    elif address.key and bucket.size(address.key) is not None:
        keys, own = [address.key], posixpath.dirname(address.key)
    else:
        return _add_prefix(plan, bucket, address.key, _base(known, address.key, address.key), tuple(exclude))
    for key in keys:
        _add_object(plan, bucket, key, _base(known, key, own), urls)
    return None


def _add_prefix(plan: Scan, bucket: Bucket, prefix: str, base: str, exclude: tuple[str, ...]) -> None:
    if next(bucket.walk(prefix), None) is None:
        raise UsageError(f"{bucket}/{prefix} does not exist; check the spelling.")
    root = object_uri(str(bucket), base, folder=True)
    plan._parts.append(BucketWalk(bucket, prefix, base, exclude))
    plan.scopes += (Scope(root, object_uri(str(bucket), prefix, folder=True)),)
    plan.roots += (root,) if base == prefix else ()


def _add_object(plan: Scan, bucket: Bucket, key: str, base: str, urls: Urls) -> None:
    uri, root = object_uri(str(bucket), key), object_uri(str(bucket), base, folder=True)
    if key.lower().endswith(_LISTS):
        listed = partial(scan_jsonl, uri, urls) if key.lower().endswith(".jsonl") else partial(scan_parquet, uri)
        plan._parts.append(Again(listed))
        plan.scopes += (Scope(uri, ""),)
        plan.roots += (uri,)
        return
    plan._parts.append(Again(partial(scan_object, bucket, key, base)))
    if is_archive(key.encode()):
        plan.scopes += (Scope(root, f"{uri}#"),)
        plan.roots += (uri,)


def scan_object(bucket: Bucket, key: str, base: str) -> Iterator[Source | Unreadable]:
    """Yield the items of one object: an image, or the members of a `.tar`."""
    name, uri = posixpath.relpath(key, base or ".").encode(), object_uri(str(bucket), key)
    root, extra = object_uri(str(bucket), base, folder=True), extra_of(key.encode())
    if is_archive(key.encode()):
        yield from scan_tar(uri, name, root)
    elif extra is not None and not extra.installed:
        yield Unreadable.of(uri, root, extra.missing(), hides=uri)
    else:
        yield Source(name_to_id(name), uri, root)


def _base(known: Sequence[str], key: str, own: str) -> str:
    """Return the prefix that ids are relative to: the nearest that the table knows, else `own`."""
    above = [base for base in known if not base or key == base or key.startswith(f"{base}/")]
    return max(above, key=len, default=own)


def _matches(bucket: Bucket, pattern: str) -> tuple[list[str], str]:
    """Return the keys that match a pattern, and the prefix before its first wildcard."""
    wild = _WILDCARD.search(pattern)
    own = posixpath.dirname(pattern[: wild.start()]) if wild else pattern
    parts = pattern.split("/")
    keys = [one.name for one in bucket.walk(own) if not _is_passed_over(one.name[len(own) :])]
    found = [key for key in keys if len(names := key.split("/")) == len(parts) and all(map(fnmatchcase, names, parts))]
    if not found:
        raise UsageError(f"Nothing matches {bucket}/{pattern}; check the pattern.")
    return found, own


def _is_passed_over(name: str) -> bool:
    """Return whether an object belongs to a system, a program or a table."""
    parts = name.split("/")
    return any(is_own(part.encode()) or part.endswith(".lance") for part in parts)


def _is_wanted(name: str) -> bool:
    extra = extra_of(name.encode())
    single = extra is not None and not extra.parts
    return name.lower().endswith(".tar") or posixpath.splitext(name)[1].lower() in SUFFIXES or single
