"""docs/reference/on-disk-format.md says what is on the disk."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from store_helpers import ENCODER, random_rows

from looktwice import indexing, sources
from looktwice.indexing import writer
from looktwice.sources import images
from looktwice.store import Table, ann
from looktwice.store.manifest import FORMAT

DOCS = (Path(__file__).parents[2] / "docs" / "reference" / "on-disk-format.md").read_text()


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = Table.create(tmp_path / "t.lt", ENCODER)
    made.add(random_rows(3))
    made.put_codebook(b"x")
    return made


def test_every_reason_is_listed() -> None:
    listed = set(re.findall(r"`([a-z-]+)`", DOCS))
    assert {*images.REASONS, *sources.REASONS, *indexing.REASONS} <= listed


@pytest.mark.parametrize(
    "number",
    [images.MAX_PIXELS, images.WORKING_PIXELS, ann.EXACT_ROWS, ann.SAMPLE, writer.COMMIT_ROWS, ann.TARGET_RECALL],
)
def test_every_number_is_stated(number: float) -> None:
    assert f"{number:,}" in DOCS


def test_suffixes_are_listed() -> None:
    assert all(suffix in DOCS for suffix in images.SUFFIXES)


def test_files_and_columns_are_listed(table: Table) -> None:
    assert all(name in DOCS for name in os.listdir(table.path))
    for handle in (table._items, table._tokens, table._failures):
        assert all(f"`{name}`" in DOCS for name in handle.schema.names)
    listed = re.findall(r"^\| `(\w+)`", DOCS, re.MULTILINE)
    assert {"id", "vector", "codes", "layout"} <= set(listed)


def test_manifest_has_the_keys_shown(table: Table) -> None:
    shown = json.loads(re.search(r"```json\n(.*?)```", DOCS, re.DOTALL)[1])
    found = json.loads((table.path / "manifest.json").read_text())
    assert set(found) == set(shown) - {"previews"}  # this table keeps none
    assert set(found["encoder"]) == set(shown["encoder"])
    assert found["format"] == shown["format"] == FORMAT
