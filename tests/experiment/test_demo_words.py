"""The demo's composed word queries: made once, labelled by what was placed, with names that training has met or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from looktwice.evaluate.scenes.cutouts import Cutouts
from looktwice.experiment import demo_words
from looktwice.experiment.demo_words import ARTIST, MET, NEVER, word_queries


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_words, "ASKED", {MET: 3, NEVER: 2})


def test_names_are_met_or_not_and_their_drawings_are_not(few: None, tmp_path: Path) -> None:
    made = word_queries(tmp_path)
    met = {cutout.label: cutout.met for cutout in Cutouts.bundled().all}
    kinds = {query.text: made.kinds[query.id] for query in made.queries if query.text}
    assert {text: met[text] for text in kinds} == {text: kind == MET for text, kind in kinds.items()}
    assert sorted(kinds.values()) == [MET] * 3 + [NEVER] * 2
    assert all(name.startswith(("clip-art-", "another-artist-")) for name in made.kinds)  # no gallery's own ids
    files = {path.name for path in made.scenes.iterdir()}
    for query in made.queries:
        relevant = [name for name, grade in made.qrels[query.id].items() if grade > 0]
        assert relevant and set(relevant) <= files


def test_another_artists_query_does_not_ask_for_itself(few: None, tmp_path: Path) -> None:
    made = word_queries(tmp_path)
    by_others = [query for query in made.queries if made.kinds[query.id] == ARTIST]
    assert len(by_others) == 3 and all(query.image is not None and query.text is None for query in by_others)
    words = {query.text: made.qrels[query.id] for query in made.queries if made.kinds[query.id] == MET}
    for query, labels in zip(by_others, words.values(), strict=True):
        mine = {name for name, grade in made.qrels[query.id].items() if grade > 0}
        assert mine < {name for name, grade in labels.items() if grade > 0}


def test_the_same_seed_makes_the_same_files_and_keeps_them(few: None, tmp_path: Path) -> None:
    first, other = word_queries(tmp_path / "a"), word_queries(tmp_path / "b")
    assert first.qrels == other.qrels

    def files(place: str) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted((tmp_path / place).rglob("*.jpg"))}

    assert files("a") == files("b")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.jpg")}
    word_queries(tmp_path / "a")
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*.jpg")}
