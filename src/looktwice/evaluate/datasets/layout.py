"""Check a folder against a benchmark's known files, and report everything that is missing in one message."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from looktwice.errors import MediaError, UsageError
from looktwice.evaluate.datasets.base import Dataset
from looktwice.sources import Source, file_uri, name_to_id
from looktwice.sources.jsonl import parse_object

T = TypeVar("T")
SHOWN = 20


@dataclass(slots=True)
class FileLayout:
    """A benchmark's folder. `fetch` says where its files come from; with `partial`, counts may differ and are noted."""

    name: str
    root: Path
    fetch: str
    partial: bool = False
    notes: list[str] = field(default_factory=list)
    _missing: list[str] = field(default_factory=list)

    def file(self, *names: str) -> Path:
        """Return the path of a required file."""
        path = self.root.joinpath(*names)
        if not path.is_file():
            self._missing.append("/".join(names))
        return path

    def folder(self, *names: str) -> Path:
        """Return the path of a required folder."""
        path = self.root.joinpath(*names)
        if not path.is_dir():
            self._missing.append("/".join(names) + "/")
        return path

    def missing(self, what: str) -> None:
        """Add to the list of missing parts."""
        self._missing.append(what)

    def count(self, what: str, found: int, published: int | None) -> None:
        """Compare a count with the published one (None: not known for sure) and note it."""
        if found == 0:
            self._missing.append(f"{what}: none found")
        elif published is not None and found != published:
            difference = f"{what}: {found:,} found, {published:,} published"
            (self.notes if self.partial else self._missing).append(difference)
        else:
            self.notes.append(f"{what}: {found:,}")

    def check(self) -> None:
        """Raise UsageError with everything that is missing so far."""
        if not self._missing:
            return
        shown = "; ".join(self._missing[:SHOWN])
        more = f"; and {len(self._missing) - SHOWN:,} more" if len(self._missing) > SHOWN else ""
        raise UsageError(f"{self.name} under {self.root} is not complete; missing: {shown}{more}. {self.fetch}")

    def image(self, path: Path, name: str | None = None, text: str | None = None) -> Source:
        """Return a required image; its id is `name`, by default its path relative to the root."""
        source = self.unchecked_image(path, name, text)
        if not path.is_file():
            self._missing.append(path.relative_to(self.root).as_posix())
        return source

    def unchecked_image(self, path: Path, name: str | None = None, text: str | None = None) -> Source:
        """Return an image that need not exist; indexing writes a missing one to the ledger."""
        if not path.is_relative_to(self.root) or ".." in path.relative_to(self.root).parts:
            raise UsageError(f"{self.name} names the image {str(path)!r} outside {self.root}; fetch its files again.")
        name = name_to_id(bytes(path.relative_to(self.root))) if name is None else name
        return Source(name, file_uri(path), file_uri(self.root, folder=True), text)

    def words(self, path: Path, number: int, name: str, text: object) -> Source:
        """Return a text, number `number` of a file."""
        if not isinstance(text, str) or not text.strip():
            self.broken(path, f"entry {number}", "a text that is not empty", text)
        uri = f"{file_uri(path)}#offset={number}&size=0"  # an address of its own; the text is not read from it
        return Source(name, uri, file_uri(self.root, folder=True), " ".join(text.split()), has_image=False)

    def json(self, path: Path, kind: type[T]) -> T:
        """Return the content of a JSON file of a kind (list or dict)."""
        try:
            value = json.loads(path.read_bytes().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path} is not valid JSON ({error}); fetch it again.") from None
        if not isinstance(value, kind):
            raise UsageError(f"{path} must hold a JSON {kind.__name__}, not a {type(value).__name__}; fetch it again.")
        return value

    def jsonl(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the numbered objects of a JSON Lines file."""
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    if record := parse_object(line):
                        yield number, record
                except MediaError as error:
                    raise UsageError(f"{path}, line {number}: {error.detail}.") from None

    def columns(self, path: Path, separator: str, n: int) -> Iterator[list[str]]:
        """Yield the lines of a text file, each of at least `n` columns."""
        for number, line in enumerate(path.read_text("utf-8-sig", "surrogateescape").split("\n"), start=1):
            if not line.strip():
                continue
            row = line.rstrip("\r").split(separator)
            if len(row) < n:
                self.broken(path, f"line {number}", f"{n} columns separated by {separator!r}", line[:80])
            yield row

    def get(self, record: object, key: str, kind: type[T], path: Path, where: str) -> T:
        """Return a field of a record, of a kind. Raises UsageError with the place."""
        value = record.get(key) if isinstance(record, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            self.broken(path, where, f"{key!r} to be a {kind.__name__}", value)
        return value

    def broken(self, path: Path, where: str, expected: str, found: object) -> NoReturn:
        """Raise UsageError for wrong contents of a file."""
        raise UsageError(f"{path}, {where}: expected {expected}, found {str(found)[:80]!r}; fetch or correct the file.")

    def finish(self, dataset: Dataset) -> Dataset:
        """Return the dataset. Raises UsageError for missing parts, repeated ids, or a dataset without queries."""
        self.check()
        if not dataset.queries:
            raise UsageError(f"{self.name} under {self.root} has no queries; check its labels. {self.fetch}")
        self._unique([query.id for query in dataset.queries], "query")
        if isinstance(dataset.items, list):
            self._unique([item.id for item in dataset.items], "item")
        return dataset

    def _unique(self, ids: Sequence[str], what: str) -> None:
        twice = next((name for name, n in Counter(ids).items() if n > 1), None)
        if twice is not None:
            raise UsageError(f"{self.name}: the {what} id {twice!r} occurs twice; ids must be unique.")


def relevant(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Return labels from (query, relevant item) pairs."""
    qrels: dict[str, dict[str, int]] = {}
    for query, item in pairs:
        qrels.setdefault(query, {})[item] = 1
    return qrels


def by_label(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return ids by label, from (id, label) pairs."""
    groups: dict[str, list[str]] = {}
    for name, label in pairs:
        groups.setdefault(label, []).append(name)
    return groups
