"""Write the place of an item's bytes as one readable string: `file:///folder/a%20b.jpg`, or a range of a file,
`file:///folder/shard.tar#offset=1536&size=20480`, or an object, `s3://bucket/folder/a%20b.jpg`.

The path is percent-encoded byte by byte (RFC 8089), so a name that is not UTF-8 survives. A folder ends in `/`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
import stat
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal, TypeAlias
from urllib.parse import quote_from_bytes, unquote_to_bytes

from looktwice.errors import MediaError
from looktwice.sources import objects
from looktwice.sources.decoding.parts import read_part
from looktwice.sources.images import begins_like_image, kind_of
from looktwice.sources.rows import read_row
from looktwice.types import text_is_utf8

MAX_BYTES = 2**29
"""Largest file: no image under the pixel limit needs half a gigabyte."""

LOOK_FIRST_BYTES = 2**24
"""Larger files are read only if they begin like an image."""

Urls: TypeAlias = Literal["refused", "public", "private"]
"""URLs that may be fetched: none, those on the public internet, or those of the local network and machine too."""

REASONS = {
    "missing": "the file does not exist",
    "dangling-link": "the link points to a missing file",
    "link-loop": "the links lead in a circle",
    "not-a-file": "a file was expected, not a folder, pipe, device or archive link",
    "permission": "the file's permissions forbid reading it",
    "io-error": "the disk or the network share failed",
    "too-large": f"the file has more than {MAX_BYTES:,} bytes",
    "not-an-image": f"the file has more than {LOOK_FIRST_BYTES:,} bytes and does not begin like an image",
    "truncated": "the file ends inside the range to read",
    "changed": "the file has changed since it was indexed",
    "bucket": "the bucket refused to read it, or did not answer",
    "bad-uri": "the uri is not one that looktwice writes",
    "url-refused": "the item is a URL, which --allow-urls would fetch",
    "forbidden-address": "the URL is on this machine or its network, which --allow-private-urls would fetch",
    "download": "the server did not deliver the file",
}
"""Values of `MediaError.reason` from this module."""

MEMORY = "memory:"
"""Begins the uri of an item whose bytes a program handed over."""

_RANGE = re.compile(r"offset=([0-9]{1,18})&size=([0-9]{1,18})\Z")
_PART = re.compile(r"(page=[0-9]{1,9}|t=[0-9]{1,9}\.[0-9]|row=[0-9]{1,12})\Z")
_OBJECT = re.compile(r"((?:s3|gs|az)://[^/#]+)/(.*)\Z", re.DOTALL)
_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UriParts:
    """A file, `size` bytes of it from `offset`, or one `part` of it: a page (`page=3`) or a frame (`t=12.0`).

    `bucket` is the bucket of an object (`s3://photos`), whose key is `path` then; empty for a local file.
    """

    path: bytes
    offset: int = 0
    size: int | None = None
    part: str = ""
    bucket: str = ""


def file_uri(path: str | bytes | os.PathLike[str], *, folder: bool = False) -> str:
    """Return the uri of a file, or of a folder with a closing slash; links are not resolved.

    >>> file_uri(b"/pictures/caf\\xe9 #1.jpg")
    'file:///pictures/caf%E9%20%231.jpg'
    """
    quoted = quote_from_bytes(os.path.abspath(os.fsencode(path)), safe="/!$&'()*+,;=:@-._~")
    return f"file://{quoted.rstrip('/')}/" if folder else f"file://{quoted}"


def object_uri(bucket: str, key: str, *, folder: bool = False) -> str:
    """Return the uri of an object, or of a prefix with a closing slash.

    >>> object_uri("s3://photos", "2024/a b#1.jpg")
    's3://photos/2024/a%20b%231.jpg'
    """
    quoted = quote_from_bytes(key.encode(), safe="/!$&'()*+,;=:@-._~")
    return f"{bucket}/{quoted.rstrip('/')}/" if folder and key else f"{bucket}/{quoted}"


def join_uri(uri: str, name: str) -> str:
    """Return the uri of a file that is named relative to the folder of another one."""
    where = parse_uri(uri)
    if where.bucket:
        joined = posixpath.join(posixpath.dirname(where.path.decode()), name)
        return object_uri(where.bucket, posixpath.normpath(joined))
    return file_uri(os.path.join(os.path.dirname(where.path), os.fsencode(name)))


def is_object(uri: str) -> bool:
    """Return whether a uri names an object of a bucket."""
    return _OBJECT.match(uri) is not None


def exists(uri: str) -> bool:
    """Return whether a file, a folder, an object or any object below a prefix exists."""
    where = parse_uri(uri)
    return objects.exists(where.bucket, where.path.decode()) if where.bucket else os.path.exists(where.path)


def range_uri(uri: str, offset: int, size: int) -> str:
    """Return the uri of `size` bytes of a file from `offset`."""
    return f"{uri}#offset={offset}&size={size}"


def part_uri(uri: str, part: str) -> str:
    """Return the uri of a page (`page=3`) or a frame (`t=12.0`) of a file."""
    return f"{uri}#{part}"


def is_url(text: str) -> bool:
    """Return whether a text is an http or https URL."""
    return _URL.match(text) is not None


def parse_uri(uri: str) -> UriParts:
    """Return where the bytes of a `file:` uri, or of one of a bucket, lie. Raises MediaError (`bad-uri`)."""
    address, _, fragment = uri.partition("#")
    place = _OBJECT.match(address)
    if (not place and not address.startswith("file:///")) or "%00" in address or "\0" in address:
        raise MediaError("bad-uri", uri)
    if not text_is_utf8(address):
        raise MediaError("bad-uri", ascii(uri))
    bucket, path = (place[1], place[2]) if place else ("", address.removeprefix("file://"))
    parts = UriParts(unquote_to_bytes(path), bucket=bucket)
    if not fragment:
        return parts
    if _PART.match(fragment):
        return replace(parts, part=fragment)
    if (found := _RANGE.match(fragment)) is None:
        raise MediaError("bad-uri", uri)
    return replace(parts, offset=int(found[1]), size=int(found[2]))


def display(uri: str) -> str:
    """Return a uri in readable form: a local path, followed by the unchanged range of a file."""
    address, hash_sign, fragment = uri.partition("#")
    if not address.startswith("file://") and not _OBJECT.match(address):
        return uri
    return unquote_to_bytes(address.removeprefix("file://")).decode("utf-8", "backslashreplace") + hash_sign + fragment


def read_uri(uri: str, *, urls: Urls = "refused", sha256: str | None = None) -> bytes:
    """Read the bytes behind `uri`, as `Source.read` does while indexing.

    With `sha256` (hex) the bytes must be the indexed ones. Raises MediaError with a word from `REASONS`.
    """
    if uri.startswith(MEMORY):
        raise MediaError("missing", "its image lived in memory only, and no original was kept")
    data = _fetch(uri, urls) if is_url(uri) else _read_row(uri) or _read(parse_uri(uri))
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise MediaError("changed", f"{display(uri)} has changed since it was indexed; index it again")
    return data


def failure(error: OSError, path: bytes) -> MediaError:
    """Translate an operating-system error on `path` to a MediaError with a word from `REASONS`."""
    if error.errno == errno.ELOOP:
        return MediaError("link-loop", "its links lead in a circle; remove one of them")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if os.path.islink(path):
            return MediaError("dangling-link", f"it points to {os.fsdecode(os.readlink(path))!r}")
        return MediaError("missing", "the file does not exist")
    if error.errno in (errno.EACCES, errno.EPERM):
        return MediaError("permission", "the file's permissions forbid reading it; change them")
    return MediaError("io-error", error.strerror or str(error))


def open_uri(uri: str) -> BinaryIO:
    """Open a file or an object for reading, with seeking. Raises MediaError, also while it is read from a bucket."""
    where = parse_uri(uri)
    if where.bucket:
        return objects.open_object(where.bucket, where.path.decode())
    try:
        return open_file(where.path)
    except OSError as error:
        raise failure(error, where.path) from None


def open_file(path: bytes) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, and MediaError (`not-a-file`) for pipes, folders and devices."""
    # O_NONBLOCK: opening a named pipe must not wait for somebody to write into it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise MediaError("not-a-file", "it is a folder, pipe or device, not a regular file")
    return os.fdopen(handle, "rb")  # buffered: a raw read may return fewer bytes than requested (FUSE, NFS)


def _read(where: UriParts) -> bytes:
    if where.bucket:
        return _read_object(where)
    try:
        if where.part:
            open_file(where.path).close()
            return read_part(where.path, where.part)
        with open_file(where.path) as file:
            return _read_open(file, where)
    except OSError as error:
        raise failure(error, where.path) from None


def _read_row(uri: str) -> bytes | None:
    """Return the image of a row of a Parquet file, None for another uri."""
    file, _, row = uri.partition("#row=")
    return read_row(file, int(row), open_uri) if row.isdecimal() else None


def _read_object(where: UriParts) -> bytes:
    if where.part or (where.size or 0) > MAX_BYTES:
        raise MediaError("bad-uri", f"{where.bucket}: {where.part or where.size}")
    data = objects.read(where.bucket, where.path.decode(), where.offset, where.size, MAX_BYTES)
    if where.size is not None and len(data) < where.size:
        raise MediaError("truncated", f"the object ends {where.size - len(data):,} bytes early")
    return data


def _read_open(file: BinaryIO, where: UriParts) -> bytes:
    size = os.fstat(file.fileno()).st_size if where.size is None else where.size
    if size > MAX_BYTES:
        raise MediaError("too-large", f"{size:,} bytes; the limit is {MAX_BYTES:,}")
    file.seek(where.offset)
    if size > LOOK_FIRST_BYTES:
        if not begins_like_image(head := file.read(24)):
            raise MediaError("not-an-image", f"it is {kind_of(head)}, of {size:,} bytes")
        file.seek(where.offset)
    data = file.read(size)
    if where.size is not None and len(data) < size:
        raise MediaError("truncated", f"the file ends {size - len(data):,} bytes early")
    return data


def _fetch(url: str, urls: Urls) -> bytes:
    if urls == "refused":
        raise MediaError("url-refused", f"{url} is a URL; pass --allow-urls to fetch it")
    from looktwice.sources.download import fetch  # late: it loads urllib and ssl

    return fetch(url, MAX_BYTES, private=urls == "private")
