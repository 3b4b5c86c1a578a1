"""Keep a table in a bucket: the second `Location`, over any store that honours conditional writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock

from looktwice.buckets import Bucket, BucketAddress, storage_options
from looktwice.errors import BucketError

_tested: set[str] = set()
_testing = Lock()


class BucketFolder:
    """A prefix of a bucket. It has no lock: writers of all machines commit side by side, each commit conditionally."""

    lock_file = None

    def __init__(self, address: BucketAddress) -> None:
        self.address, self.path = address, str(address)
        self._bucket = Bucket.of(address)

    def __str__(self) -> str:
        return self.path

    @property
    def storage_options(self) -> Mapping[str, str]:
        return storage_options(self.address.scheme)

    def read_bytes(self, name: str, limit: int) -> bytes:
        return self._bucket.read(self._at(name), limit)

    def write_whole(self, name: str, data: bytes) -> None:
        self._bucket.write(self._at(name), data)

    def create(self, name: str, data: bytes) -> bool:
        return self._bucket.create(self._at(name), data)

    def update(self, name: str, limit: int, change: Callable[[bytes], bytes]) -> bytes:
        return self._bucket.update(self._at(name), limit, change)

    def exists(self, name: str = "") -> bool:
        place = self._at(name)
        return (bool(place) and self._bucket.size(place) is not None) or bool(self.list(name))

    def list(self, name: str = "") -> list[str]:
        folders, files = self._bucket.entries(self._at(name))
        return sorted(found.rpartition("/")[2] for found in (*folders, *(file.name for file in files)))

    def size(self, name: str = "") -> int:
        place = self._at(name)
        alone = self._bucket.size(place) or 0 if name else 0
        return alone + sum(found.size for found in self._bucket.walk(place))

    def delete(self, name: str) -> None:
        place = self._at(name)
        self._bucket.delete([found.name for found in self._bucket.walk(place)] or [place])

    def prepare(self) -> None:
        if self.address.key and self._bucket.size(self.address.key) is not None:
            raise BucketError(f"{self} is an object, but a table is a folder; choose another name.")
        self.demand_writable()

    def check(self, name: str) -> None:
        """Buckets contain no links."""

    def demand_writable(self) -> None:
        with _testing:  # once per process: two writes, a delete
            if self.path not in _tested:
                self._bucket.demand_conditional_puts(self.address.key)
                _tested.add(self.path)

    def _at(self, name: str) -> str:
        return "/".join(part for part in (self.address.key, name) if part)
