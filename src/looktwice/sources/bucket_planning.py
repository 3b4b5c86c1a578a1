"""Turn an address in a bucket into the parts of a scan, as `planning` does for paths of this machine."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial

from looktwice.buckets import Bucket, BucketAddress
from looktwice.errors import UsageError
from looktwice.sources.again import Again
from looktwice.sources.bucket_walk import BucketWalk, is_passed_over, scan_object
from looktwice.sources.jsonl import scan_jsonl
from looktwice.sources.parquet import scan_parquet
from looktwice.sources.records import Scope
from looktwice.sources.scan import Scan
from looktwice.sources.tar import is_archive
from looktwice.sources.uri import Urls, object_uri, parse_uri

_WILDCARD = re.compile(r"[*?\[]")
_LISTS = (".jsonl", ".parquet")


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
    plan.parts.append(BucketWalk(bucket, prefix, base, exclude))
    plan.scopes += (Scope(root, object_uri(str(bucket), prefix, folder=True)),)
    plan.roots += (root,) if base == prefix else ()


def _add_object(plan: Scan, bucket: Bucket, key: str, base: str, urls: Urls) -> None:
    uri, root = object_uri(str(bucket), key), object_uri(str(bucket), base, folder=True)
    if key.lower().endswith(_LISTS):
        listed = partial(scan_jsonl, uri, urls) if key.lower().endswith(".jsonl") else partial(scan_parquet, uri)
        plan.parts.append(Again(listed))
        plan.scopes += (Scope(uri, ""),)
        plan.roots += (uri,)
        return
    plan.parts.append(Again(partial(scan_object, bucket, key, base)))
    if is_archive(key.encode()):
        plan.scopes += (Scope(root, f"{uri}#"),)
        plan.roots += (uri,)


def _base(known: Sequence[str], key: str, own: str) -> str:
    """Return the prefix that ids are relative to: the nearest that the table knows, else `own`."""
    above = [base for base in known if not base or key == base or key.startswith(f"{base}/")]
    return max(above, key=len, default=own)


def _matches(bucket: Bucket, pattern: str) -> tuple[list[str], str]:
    """Return the keys that match a pattern, and the prefix before its first wildcard."""
    wild = _WILDCARD.search(pattern)
    own = posixpath.dirname(pattern[: wild.start()]) if wild else pattern
    parts = pattern.split("/")
    keys = [one.name for one in bucket.walk(own) if not is_passed_over(one.name[len(own) :])]
    found = [key for key in keys if len(names := key.split("/")) == len(parts) and all(map(fnmatchcase, names, parts))]
    if not found:
        raise UsageError(f"Nothing matches {bucket}/{pattern}; check the pattern.")
    return found, own
