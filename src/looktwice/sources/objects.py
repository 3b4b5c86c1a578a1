"""Read objects of buckets as files: whole, by range, or with seeking. Every failure is a MediaError."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from looktwice.buckets import Bucket, parse_address
from looktwice.errors import BucketError, Damaged, MediaError

AHEAD = 2**18
"""Bytes of one request for an object that is read like a file."""


def read(bucket: str, key: str, offset: int, size: int | None, limit: int) -> bytes:
    """Return an object of at most `limit` bytes, or `size` bytes of it from `offset` on."""
    with _media_errors():
        store = _bucket(bucket)
        return store.read(key, limit) if size is None else store.read_range(key, offset, size)


def open_object(bucket: str, key: str) -> BinaryIO:
    """Open an object for reading with ranges."""
    with _media_errors():
        return io.BufferedReader(_RangedFile(_bucket(bucket), key), AHEAD)


def exists(bucket: str, key: str) -> bool:
    """Return whether an object exists, or any below a prefix."""
    store = _bucket(bucket)
    return next(store.walk(key), None) is not None or (bool(key) and store.size(key) is not None)


def _bucket(uri: str) -> Bucket:
    address = parse_address(uri)
    assert address is not None
    return Bucket.of(address)


@contextmanager
def _media_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise MediaError("missing", "the object does not exist") from None
    except Damaged as error:
        raise MediaError("too-large", str(error)) from None
    except BucketError as error:
        raise MediaError("bucket", str(error)) from None


class _RangedFile(io.RawIOBase):
    """An object as a raw file: one request for each read."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        size = bucket.size(key)
        if size is None:
            raise FileNotFoundError(key)
        self._bucket, self._key, self._size, self._at = bucket, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        with _media_errors():
            data = self._bucket.read_range(self._key, self._at, wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
