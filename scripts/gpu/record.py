"""The JSON file of a GPU check: whole at any moment, so that a run that is cut short still has its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looktwice.files import write_whole


@dataclass(frozen=True, slots=True)
class Options:
    """How a part runs: where, with toy shapes or real ones, and until when (seconds since the epoch)."""

    device: str
    smoke: bool
    until: float


class Record:
    """A file of {"device", …, "parts": {name: {"status", "seconds", "rows", "error"}}}, written after every change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {"parts": {}}

    def set(self, **values: Any) -> None:
        """Set fields of the whole."""
        self.data.update(values)
        self._save()

    def part(self, name: str, **values: Any) -> None:
        """Set fields of a part, which begins with no rows."""
        self.data["parts"].setdefault(name, {"status": "running", "rows": []}).update(values)
        self._save()

    def row(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a row to a part."""
        self.data["parts"][name]["rows"].append(dict(row))
        self._save()

    def _save(self) -> None:
        write_whole(self.path, (json.dumps(self.data, indent=1, ensure_ascii=False) + "\n").encode())
