"""An index that others build in segments finds what one built here finds, also after more rows and an update."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_helpers import random_rows

from looktwice.store import Table, ann, matrix, segments
from looktwice.types import EncoderInfo

DIM, COMMITS, ROWS = 32, 3, 1500


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """A table of three data files that is searched through its index."""
    monkeypatch.setattr(ann, "EXACT_ROWS", 1000)
    monkeypatch.setattr(matrix, "MOST_BYTES", 0)
    made = Table.create(tmp_path / "t.lt", EncoderInfo("toy", "1", "none", DIM))
    for commit in range(COMMITS):
        made.add(random_rows(ROWS, DIM, commit, commit * ROWS))
    return made


class Here:
    """A cluster of one: it notes what it was given, and passes work and results on as other processes get them."""

    def __init__(self) -> None:
        self.parts: list[int] = []

    def map(self, make: segments.Make, parts: Iterable[int]) -> Iterator[Any]:
        self.parts = list(parts)
        return (copied(work) for work in map(copied(make)(), self.parts))


def copied(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def test_segments_make_one_index(table: Table) -> None:
    pytest.importorskip("lance", reason="pip install 'looktwice[ray]'")
    cluster = Here()
    info = table.build_index(cluster.map)
    assert len(cluster.parts) == COMMITS, "one segment a data file"
    (index,) = [one for one in table._items.list_indices() if one.columns == ["vector"]]
    assert (index.num_segments, index.num_indexed_rows, index.num_unindexed_rows) == (COMMITS, COMMITS * ROWS, 0)
    assert index.index_details["compression"]["num_bits"] == ann.bits_for(COMMITS * ROWS, DIM) == 4
    assert info.kind == "ivf_rq" and info.recall >= ann.TARGET_RECALL
    table.add(random_rows(ROWS, DIM, COMMITS, COMMITS * ROWS))
    table.compact()
    again = table.manifest.index
    assert again is not None and again["kind"] == "ivf_rq" and again["recall"] >= ann.FLOOR, "it is measured anew"
    queries = np.random.default_rng(1).normal(size=(20, DIM))
    truth = table._space().stream(queries / np.linalg.norm(queries, axis=1, keepdims=True), 100)
    assert ann.recall(truth, Table.open(table.path).search_many(queries, 100)) >= ann.FLOOR


def test_without_the_package_the_index_is_built_here(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "find_spec", lambda name: None)
    cluster = Here()
    assert table.build_index(cluster.map).kind == "ivf_rq" and not cluster.parts
