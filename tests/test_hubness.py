"""`--hubness bank`: the mean score over a bank of texts is taken from text queries' scores, and from no others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from looktwice.errors import UnknownName, UsageError
from looktwice.indexing import index
from looktwice.rank import Tuned
from looktwice.search import hubness
from looktwice.search.hubness import FILE, Hubness, bundled_words, is_text
from looktwice.search.retriever import Retriever
from looktwice.sources import scan
from looktwice.store import Row, Table
from looktwice.testing import ColorEncoder, make_images
from looktwice.types import EncoderInfo, Item

DIM = 6


class Random:
    """An encoder whose texts have fixed random directions around a common one, as texts of a CLIP have."""

    info = EncoderInfo("random", "1", "none", DIM)

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, items: Sequence[Item]) -> Any:
        self.seen += [str(item.text) for item in items]
        rows = [np.random.default_rng(abs(hash_of(str(item.text)))).normal(0.5, 1, DIM) for item in items]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def hash_of(text: str) -> int:
    return sum((i + 1) * ord(letter) for i, letter in enumerate(text))


def filled(path: Path, texts: Sequence[str | None] = (None,) * 40) -> Table:
    rng = np.random.default_rng(0)
    table = Table.create(path, Random.info)
    rows = rng.normal(0.3, 1, (len(texts), DIM)).astype(np.float32)
    table.add([Row(f"i{n:03}", f"f{n}", f"{n:064x}", 1, 1, text, {}, rows[n]) for n, text in enumerate(texts)])
    return table


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return filled(tmp_path / "t.lt")


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def by_hand(table: Table, text: str, bank: Sequence[str]) -> dict[str, float]:
    """⟨q, x⟩ minus the mean over the bank, item by item: the definition, without the shortcut."""
    encoder, names = Random(), [f"i{n:03}" for n in range(len(table))]
    items = unit(np.stack([np.asarray(row.vector, np.float64) for row in table.get(names)]))
    query, others = encoder.encode([Item(text, text=text)])[0], encoder.encode([Item(b, text=b) for b in bank])
    scores = items @ query - (items @ others.T).mean(1)
    return dict(zip(names, map(float, scores), strict=True))


def test_scores_are_the_definition_and_the_order_follows(table: Table) -> None:
    bank = [hubness.wording(word) for word in bundled_words()]
    wanted = by_hand(table, "a lamp", bank)
    answer = Retriever(table, Random(), hubness="bank").search({"text": "a lamp"}, k=40, rerank=False)
    assert {c.id: c.coarse for c in answer.shortlist} == pytest.approx(wanted, abs=2e-3)  # float16 vectors
    assert [c.id for c in answer.shortlist][:5] == sorted(wanted, key=lambda name: -wanted[name])[:5]
    plain = Retriever(table, Random()).search({"text": "a lamp"}, k=40, rerank=False)
    assert [c.id for c in plain.shortlist] != [c.id for c in answer.shortlist]
    assert answer.settings["hubness"] == {"rule": "bank", "bank": "bundled words", "texts": len(bank)}
    assert "hubness" not in plain.settings


def test_the_bank_is_kept_with_the_table_and_made_again_when_it_no_longer_fits(table: Table, tmp_path: Path) -> None:
    first, second = Random(), Random()
    Retriever(table, first, hubness="bank").search({"text": "a"}, rerank=False)
    assert len(first.seen) == 1 + len(bundled_words())
    kept = (tmp_path / "t.lt" / FILE).read_bytes()
    Retriever(Table.open(tmp_path / "t.lt"), second, hubness="bank").search({"text": "a"}, rerank=False)
    assert second.seen == ["a"]
    for damage in (b"[1", b"{}", kept.replace(b'"format": 1', b'"format": 9'), kept.replace(b"random@1", b"random@2")):
        (tmp_path / "t.lt" / FILE).write_bytes(damage)
        again = Random()
        Retriever(Table.open(tmp_path / "t.lt"), again, hubness="bank").search({"text": "a"}, rerank=False)
        assert len(again.seen) > 100 and (tmp_path / "t.lt" / FILE).read_bytes() == kept
    body = json.loads(kept)
    (tmp_path / "t.lt" / FILE).write_text(json.dumps({**body, "items": 4}))  # the collection has grown since
    grown = Random()
    Retriever(Table.open(tmp_path / "t.lt"), grown, hubness="bank").search({"text": "a"}, rerank=False)
    assert len(grown.seen) > 100


def test_captions_of_the_collection_replace_the_bundled_words(tmp_path: Path) -> None:
    captions = [f"caption {n}" for n in range(hubness.CAPTIONS)]
    table = filled(tmp_path / "c.lt", captions)
    wanted = by_hand(table, "a lamp", captions)
    answer = Retriever(table, Random(), hubness="bank").search({"text": "a lamp"}, k=5, rerank=False)
    assert answer.settings["hubness"]["bank"] == "captions of the collection"
    assert answer.shortlist[0].id == max(wanted, key=lambda name: wanted[name])


def test_queries_with_an_image_are_left_alone(tmp_path: Path) -> None:
    make_images(tmp_path / "pictures")
    table = Table.create(tmp_path / "p.lt", ColorEncoder().info)
    index(table, scan([tmp_path / "pictures"]), ColorEncoder())
    for query in (tmp_path / "pictures" / "red-1.png", [{"item": "red-0.png"}]):
        plain, other = (
            Retriever(table, ColorEncoder(), hubness=rule).search(query, k=12, rerank=False) for rule in ("off", "bank")
        )
        assert [(c.id, c.coarse) for c in plain.shortlist] == [(c.id, c.coarse) for c in other.shortlist]
    assert not (tmp_path / "p.lt" / FILE).exists()
    assert is_text(Item("q", text="x")) and not is_text(Item("q", text=" "))


def test_a_table_that_cannot_be_written_to_does_without(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, data: bytes) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(table.location, "write_whole", refuse)
    assert Retriever(table, Random(), hubness="bank").search({"text": "a"}, rerank=False).hits


def test_nothing_left_of_a_query_keeps_its_plain_scores(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubness, "bundled_words", lambda: ("x",))
    monkeypatch.setattr(hubness, "wording", lambda word: word)
    plain, same = (
        Retriever(table, Random(), hubness=rule).search({"text": "x"}, rerank=False) for rule in ("off", "bank")
    )
    assert [(c.id, c.coarse) for c in plain.shortlist] == [(c.id, c.coarse) for c in same.shortlist]


def test_wrong_rules_are_refused(table: Table) -> None:
    with pytest.raises(UnknownName, match="did you mean bank"):
        Hubness("banks")
    assert len(set(bundled_words())) == len(bundled_words()) > 300


def test_a_calibration_does_not_hold_for_other_scores(table: Table) -> None:
    from looktwice.rank.calibration import Sample, fit

    made = fit([Sample(f"q{i}", 0.1 * i, 0.1, i % 2 == 0) for i in range(8)], {})
    with pytest.raises(UsageError, match="A calibration holds for plain cosines"):
        Retriever(table, Random(), calibration=made, hubness="bank")
    with pytest.raises(UsageError, match="A tuned fusion holds for plain cosines"):
        Retriever(table, Random(), fusion=Tuned({}, "auto", "0.5", {}), hubness="bank")
