"""Say which names a folder scan passes over: what systems and programs keep for themselves, and what the user excludes.

`.looktwiceignore` in any scanned folder, and `--exclude`, have the syntax of `.gitignore`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from looktwice.errors import UsageError

FILE = b".looktwiceignore"
MOST_BYTES = 2**20

OWN = frozenset({b"@eaDir", b"__MACOSX", b"#recycle", b"$RECYCLE.BIN", b"System Volume Information"})
"""Folders of thumbnails, resource forks and deleted files; names that begin with a dot are passed over anyway."""

OWN_SUFFIX = b".lrdata"
"""Lightroom keeps previews in folders that end so."""


def is_own(name: bytes) -> bool:
    """Return whether a file or folder belongs to a system or program, by its name."""
    return name.startswith(b".") or is_own_folder(name)


def is_own_folder(name: bytes) -> bool:
    """Return whether a folder, here or in an archive, holds thumbnails, resource forks or deleted files."""
    return name in OWN or name.endswith(OWN_SUFFIX)


@dataclass(slots=True)
class Exclude:
    """The patterns that count for one scanned folder, and those of the ignore files met below it."""

    folder: bytes
    patterns: tuple[str, ...] = ()
    _specs: list[tuple[bytes, Any]] = field(default_factory=list)

    def start(self) -> None:
        """Forget what an earlier pass has met."""
        self._specs = [(self.folder, compiled(self.patterns))] if self.patterns else []

    def enter(self, folder: bytes, names: Sequence[bytes]) -> None:
        """Read the ignore file of a folder, if `names` has one."""
        if FILE in names:
            with open(os.path.join(folder, FILE), encoding="utf-8", errors="replace") as file:
                self._specs.append((folder, compiled(file.read(MOST_BYTES).splitlines())))

    def covers(self, path: bytes, is_folder: bool) -> bool:
        """Return whether a path is excluded."""
        return any(
            spec.match_file(os.fsdecode(os.path.relpath(path, folder)) + "/" * is_folder)
            for folder, spec in self._specs
            if path.startswith(folder.rstrip(b"/") + b"/")
        )


def compiled(patterns: Iterable[str]) -> Any:
    """Return patterns in the syntax of .gitignore, ready to match. Raises UsageError for a pattern that is not one."""
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise UsageError(f"A pattern is not valid ({error}); write it as in .gitignore.") from None
