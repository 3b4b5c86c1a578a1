"""What the tests of indexing share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from colour_encoder import ColourEncoder, picture

from looktwice import indexing, sources
from looktwice.indexing import IndexReport, index
from looktwice.sources import images, scan
from looktwice.store import Table


class Collection:
    """A folder of pictures and its table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "pictures"
        self.folder.mkdir()
        self.encoder = ColourEncoder()
        self.table = Table.create(folder / "t.lt", self.encoder.info, {"year": int})

    def save(self, **colours: str) -> None:
        for name, colour in colours.items():
            (self.folder / f"{name}.png").write_bytes(picture(colour))

    def index(self, *paths: Path, **options: object) -> IndexReport:
        """Index the folder; the encoder counts only this run's work."""
        self.encoder = options.pop("encoder", None) or ColourEncoder()
        found = scan([os.fspath(path) for path in paths or [self.folder]], roots=self.table.manifest.roots)
        report = index(self.table, found, self.encoder, **options)
        assert report.met == report.added + report.updated + report.unchanged + report.failed
        assert sum(report.reasons.values()) == report.failed
        return report

    def ids(self) -> list[str]:
        return sorted(self.table.hashes())

    def ledger(self) -> dict[str, str]:
        """Name -> reason; every reason must be one that the docs list."""
        known = {**images.REASONS, **sources.REASONS, **indexing.REASONS}
        entries = list(self.table.ledger)
        assert all(entry.reason in known and entry.detail and entry.root for entry in entries)
        return {entry.uri.rstrip("/").rpartition("/")[2]: entry.reason for entry in entries}


@pytest.fixture(name="made")
def made_fixture(tmp_path: Path) -> Collection:
    return Collection(tmp_path)
