"""Where an item's bytes lie, as one string that stays readable: `file:///folder/a%20b.jpg`, or a range of a file,
`file:///folder/shard.tar#offset=1536&size=20480`.

The path is percent-encoded byte by byte (RFC 8089), so a name that is not UTF-8 survives. A folder ends in `/`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias
from urllib.parse import quote_from_bytes, unquote_to_bytes

from looktwice.errors import MediaError
from looktwice.sources.images import begins_like_picture, kind_of

MAX_BYTES = 2**29
"""Larger files are refused: no picture under the pixel cap needs half a gigabyte."""

LOOK_FIRST_BYTES = 2**24
"""Larger ones are read only if they begin like a picture."""

Urls: TypeAlias = Literal["refused", "public", "private"]
"""Which URLs may be fetched: none, those on the public internet, or those of the local network and machine too."""

REASONS = {
    "missing": "there is no such file any more",
    "dangling-link": "a link that points to nothing",
    "link-loop": "links that lead back to where they came from",
    "not-a-file": "a folder, pipe, device or archive link where a file was expected",
    "permission": "the file may not be read",
    "io-error": "the disk or the network share failed",
    "too-large": f"more than {MAX_BYTES:,} bytes",
    "not-an-image": f"more than {LOOK_FIRST_BYTES:,} bytes that do not begin like a picture",
    "truncated": "the file ends before the range that should be read",
    "changed": "the bytes are no longer those that were indexed",
    "bad-uri": "not an address that looktwice writes",
    "url-refused": "a URL, and fetching URLs was not allowed",
    "forbidden-address": "a URL of this machine or its network, and those were not allowed",
    "download": "the server did not deliver",
}
"""What `MediaError.reason` can be when it comes from this module."""

_RANGE = re.compile(r"offset=([0-9]{1,18})&size=([0-9]{1,18})\Z")
_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Location:
    """A file, or `size` bytes of it from `offset`."""

    path: bytes
    offset: int = 0
    size: int | None = None


def file_uri(path: str | bytes | os.PathLike[str], *, folder: bool = False) -> str:
    """Return the uri of a file, or with a closing slash of a folder; links are not resolved.

    >>> file_uri(b"/pictures/caf\\xe9 #1.jpg")
    'file:///pictures/caf%E9%20%231.jpg'
    """
    quoted = quote_from_bytes(os.path.abspath(os.fsencode(path)), safe="/!$&'()*+,;=:@-._~")
    return f"file://{quoted.rstrip('/')}/" if folder else f"file://{quoted}"


def range_uri(uri: str, offset: int, size: int) -> str:
    """Return the uri of `size` bytes of a file from `offset`."""
    return f"{uri}#offset={offset}&size={size}"


def is_url(text: str) -> bool:
    """Whether this would have to be fetched over the network."""
    return _URL.match(text) is not None


def parse_uri(uri: str) -> Location:
    """Return where the bytes of a `file:` uri lie. Raises MediaError (`bad-uri`)."""
    address, _, fragment = uri.partition("#")
    if not address.startswith("file:///") or "%00" in address or "\0" in address:
        raise MediaError("bad-uri", uri)
    path = unquote_to_bytes(address.removeprefix("file://"))
    if not fragment:
        return Location(path)
    if (found := _RANGE.match(fragment)) is None:
        raise MediaError("bad-uri", uri)
    return Location(path, int(found[1]), int(found[2]))


def display(uri: str) -> str:
    """Return a uri as a person would write it: a local path, legible, with the range of a file left as it is."""
    address, hash_sign, fragment = uri.partition("#")
    if not address.startswith("file://"):
        return uri
    return unquote_to_bytes(address.removeprefix("file://")).decode("utf-8", "backslashreplace") + hash_sign + fragment


def read_uri(uri: str, *, urls: Urls = "refused", sha256: str | None = None) -> bytes:
    """Read the bytes behind `uri`, as `Source.read` does while indexing.

    With `sha256` (hex) the bytes must still be those that were indexed. Raises MediaError with a word from `REASONS`.
    """
    data = _fetch(uri, urls) if is_url(uri) else _read(parse_uri(uri))
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise MediaError("changed", f"{display(uri)} is not what was indexed; index it again")
    return data


def failure(error: OSError, path: bytes) -> MediaError:
    """Put an operating-system error on `path` into one of our words."""
    if error.errno == errno.ELOOP:
        return MediaError("link-loop", "its links lead in a circle")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if os.path.islink(path):
            return MediaError("dangling-link", f"it points to {os.fsdecode(os.readlink(path))!r}")
        return MediaError("missing", "there is no such file any more")
    if error.errno in (errno.EACCES, errno.EPERM):
        return MediaError("permission", "the file may not be read; check its permissions")
    return MediaError("io-error", error.strerror or str(error))


def open_file(path: bytes) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, and MediaError (`not-a-file`) for pipes, folders and devices."""
    # O_NONBLOCK: opening a named pipe must not wait for somebody to write into it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise MediaError("not-a-file", "it is not a regular file")
    return os.fdopen(handle, "rb")  # buffered: one read may give less than is asked of it (FUSE, NFS)


def _read(where: Location) -> bytes:
    try:
        with open_file(where.path) as file:
            return _read_open(file, where)
    except OSError as error:
        raise failure(error, where.path) from None


def _read_open(file: BinaryIO, where: Location) -> bytes:
    size = os.fstat(file.fileno()).st_size if where.size is None else where.size
    if size > MAX_BYTES:
        raise MediaError("too-large", f"{size:,} bytes; the limit is {MAX_BYTES:,}")
    file.seek(where.offset)
    if size > LOOK_FIRST_BYTES:
        if not begins_like_picture(head := file.read(24)):
            raise MediaError("not-an-image", f"it is {kind_of(head)}, of {size:,} bytes")
        file.seek(where.offset)
    data = file.read(size)
    if where.size is not None and len(data) < size:
        raise MediaError("truncated", f"the file ends {size - len(data):,} bytes early")
    return data


def _fetch(url: str, urls: Urls) -> bytes:
    if urls == "refused":
        raise MediaError("url-refused", f"{url} is a URL, and fetching URLs was not allowed (--allow-urls)")
    from looktwice.sources.download import fetch  # late: it loads urllib and ssl

    return fetch(url, MAX_BYTES, private=urls == "private")
