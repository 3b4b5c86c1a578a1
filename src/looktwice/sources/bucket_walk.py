"""Walk the objects of a bucket for images and `.tar` archives, as `folders.Walk` does for folders of this machine."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from looktwice.buckets import Bucket
from looktwice.sources.formats import SUFFIXES
from looktwice.sources.ignore import compiled, is_own
from looktwice.sources.parts import extra_of
from looktwice.sources.records import Scope, Source, Unreadable, name_to_id
from looktwice.sources.tar import is_archive, scan_tar
from looktwice.sources.uri import object_uri


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
            if is_passed_over(name) or excluded.match_file(name):
                continue
            if not _is_wanted(name):
                self.ignored[posixpath.splitext(name)[1].lower()] += 1
            else:
                yield from scan_object(self.bucket, found.name, self.base)


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


def is_passed_over(name: str) -> bool:
    """Return whether an object belongs to a system, a program or a table."""
    parts = name.split("/")
    return any(is_own(part.encode()) or part.endswith(".lance") for part in parts)


def _is_wanted(name: str) -> bool:
    extra = extra_of(name.encode())
    single = extra is not None and not extra.parts
    return name.lower().endswith(".tar") or posixpath.splitext(name)[1].lower() in SUFFIXES or single
