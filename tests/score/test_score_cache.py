"""The score cache: the same numbers back, never somebody else's, and nothing lost but the call in flight."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from counting import PICTURE, QUERY, Counting, items
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from looktwice.errors import StoreError
from looktwice.score import Scorer, load_scorer
from looktwice.score.cache import CachedScorer, ScoreCache
from looktwice.score.fingerprint import fingerprint
from looktwice.types import Block, Item, VisualTokens

TOKENS = VisualTokens(torch.zeros(2, 3), None, (Block("global", 1, 2),))


def test_known_pairs_are_not_asked_again_and_come_back_exactly(tmp_path: Path) -> None:
    first = CachedScorer(Counting(), ScoreCache(tmp_path / "s.db"))
    assert isinstance(first, Scorer)
    whole = first.score(QUERY, items("a", "bbb", "bad", "cc"))
    judge = Counting(device="cuda", path="reference", batch_size=3)
    again = CachedScorer(judge, ScoreCache(tmp_path / "s.db"))
    back = again.score(QUERY, items("cc", "new", "a", "bad", "bbb", "a"))
    assert judge.asked == ["new", "bad"], "failures are tried again"
    order = [3, 0, 1, 0]
    for name in ("p", "label_logits", "entropy", "off_mass", "argmax_id"):
        np.testing.assert_array_equal(getattr(back, name)[[0, 2, 4, 5]], getattr(whole, name)[order])
    assert back.status == ("ok", "ok", "ok", "failed", "ok", "ok") and again.settings()["cached"] == 4
    assert np.isnan(back.entropy).all(), "unknown stays unknown"


@pytest.mark.parametrize(
    "change", [{"revision": "r2"}, {"prompt_hash": "x"}, {"dtype": "bfloat16"}, {"mode": "written"}, {"new": "setting"}]
)
def test_another_setting_knows_nothing(tmp_path: Path, change: dict[str, str]) -> None:
    cache = ScoreCache(tmp_path / "s.db")
    CachedScorer(Counting(), cache).score(QUERY, items("a"))
    judge = Counting(**change)
    CachedScorer(judge, cache).score(QUERY, items("a"))
    assert judge.asked == ["a"]


def test_another_codec_query_text_or_picture_is_another_pair(tmp_path: Path) -> None:
    cache, judge = ScoreCache(tmp_path / "s.db"), Counting()
    cached = CachedScorer(judge, cache)
    [a] = items("a")
    for query, candidate in [(QUERY, a), (replace(QUERY, sha256="z"), a), (QUERY, replace(a, text="t")), (a, QUERY)]:
        cached.score(query, [candidate])
    coded = replace(a, image=None, tokens=TOKENS)
    for key in ("pq8", "int8", ""):
        CachedScorer(judge, cache, key).score(QUERY, [coded])
    assert len(judge.asked) == 7 and len(cache) == 7
    cached.score(QUERY, [replace(a, id="another name of it")])
    CachedScorer(judge, cache, "pq8").score(QUERY, [replace(a, id="another name of it"), coded])
    assert len(judge.asked) == 7, "pixels are pixels, whatever tokens the table has"


def test_what_nobody_has_read_is_known_by_its_hash_and_text(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "s.db")
    cached = CachedScorer(Counting(), cache)
    cached.score(QUERY, [Item("a", PICTURE, sha256="h", text="t"), Item("b", text="words", sha256="of a list")])
    seen = cached.recall(QUERY, [("h", "t"), ("other", None), (None, "words"), (None, "t"), ("h", None)])
    assert seen.status == ("ok", "missing", "ok", "missing", "missing") and np.isnan(seen.p[1])
    assert cached.recall(QUERY, []).p.shape == (0,) and cached.hits == 2
    assert CachedScorer(Counting(), cache, "pq8").recall(QUERY, [("h", "t")]).status == ("missing",), "that was pixels"


SIDES = st.builds(
    Item,
    id=st.just("x"),
    image=st.sampled_from([None, PICTURE, Image.new("RGB", (4, 4), "red")]),
    text=st.sampled_from([None, "", "a", "b", '"a", null', "\ud800"]),
    sha256=st.sampled_from([None, "a", "b", "stored"]),
    tokens=st.sampled_from([None, TOKENS, replace(TOKENS, features=torch.ones(2, 3))]),
)
KEYS = st.sampled_from(["", "k1", "k2"])


def shown(item: Item, key: str) -> object:
    """What a score can depend on: written anew, the slow and obvious way."""
    if item.tokens is not None:
        named = (key, item.sha256) if key and item.sha256 else repr(item.tokens.features.tolist())
        return "tokens", named, item.text
    if item.image is not None:
        return "picture", item.sha256 or item.image.tobytes(), item.text
    return "words", None, item.text


@settings(max_examples=300)
@given(SIDES, KEYS, SIDES, KEYS)
def test_fingerprints_are_equal_exactly_where_what_is_shown_is(a: Item, ka: str, b: Item, kb: str) -> None:
    same = shown(a, ka) == shown(b, kb)
    if a.image is not None and b.image is not None and (a.sha256 is None) != (b.sha256 is None):
        same = same and a.tokens is not None  # by hash or by pixels: two names of perhaps one thing, never one of two
    assert (fingerprint(a, ka) == fingerprint(b, kb)) == same


FIELDS = ("mllm", "revision", "preprocessing", "prompt_hash", "mode", "retrace", "prior", "dtype")


@given(st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(["1", "2"])))
def test_every_setting_is_part_of_the_key(change: dict[str, str]) -> None:
    base = dict.fromkeys(FIELDS, "1")
    with TemporaryDirectory() as folder:
        cache = ScoreCache(Path(folder) / "s.db")
        CachedScorer(Counting(**base), cache).score(QUERY, items("a"))
        judge = Counting(**{**base, **change})
        CachedScorer(judge, cache).score(QUERY, items("a"))
        cache.close()
    assert bool(judge.asked) == ("2" in change.values())


@pytest.mark.parametrize("more", [{}, {"retrace": "causal"}, {"prior": "candidate"}, {"score_mode": "written"}])
def test_scorers_say_all_of_it(more: dict[str, str]) -> None:
    said = dict(
        load_scorer("tiny-vl", prompt="score" if "score_mode" in more else "object", device="cpu", **more).settings()
    )
    assert {"mllm", "revision", "preprocessing", "prompt_hash", "mode", "retrace", "dtype"} <= set(said)
    assert more.items() <= {**said, "score_mode": said["mode"]}.items()


def test_a_new_engine_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ScoreCache(tmp_path / "s.db")
    CachedScorer(Counting(), cache).score(QUERY, items("a"))
    monkeypatch.setattr("looktwice.score.cache.ENGINE_VERSION", -1)
    judge = Counting()
    CachedScorer(judge, cache).score(QUERY, items("a"))
    assert judge.asked == ["a"]


def test_fingerprints_tell_contents_apart() -> None:
    tokens = TOKENS
    shown = [
        Item("x", text=""),
        Item("x", text="a"),
        Item("x", PICTURE, sha256="a"),
        Item("x", text="\ud800"),
        Item("x", image=Image.new("RGB", (2, 3))),
        Item("x", image=Image.new("RGB", (3, 2))),
        Item("x", image=Image.new("RGB", (3, 2), "red")),
        Item("x", tokens=tokens),
        Item("x", tokens=replace(tokens, layout=(Block("global", 2, 1),))),
        Item("x", tokens=replace(tokens, features=torch.ones(2, 3))),
        Item("x", tokens=replace(tokens, levels=torch.zeros(1, 2, 3))),
    ]
    assert len({fingerprint(item) for item in shown}) == len(shown)
    assert fingerprint(shown[1]) == fingerprint(replace(shown[1], id="y", uri="z", sha256="of what is not shown"))


def test_files_that_are_no_cache_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello, this is not a database at all" * 40)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    for name in ("text", "other.db", "no/such/folder.db"):
        with pytest.raises(StoreError, match="another file"):
            ScoreCache(tmp_path / name)
    assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("p", "high"), ("p", 7.0), ("p", b"x"), ("label_logits", b"123"), ("label_logits", "x")),
        *(("label_logits", b"1234"), ("entropy", "x"), ("off_mass", b"x"), ("argmax_id", "x"), ("argmax_id", 1.5)),
    ],
)
def test_rows_that_are_none_of_ours_are_asked_again(tmp_path: Path, column: str, value: object) -> None:
    whole = CachedScorer(Counting(), ScoreCache(tmp_path / "s.db")).score(QUERY, items("a", "b"))
    file = sqlite3.connect(tmp_path / "s.db")
    file.execute(f"UPDATE scores SET {column} = ? WHERE candidate IN (SELECT candidate FROM scores LIMIT 1)", (value,))
    file.commit()
    again = CachedScorer(Counting(), ScoreCache(tmp_path / "s.db")).score(QUERY, items("a", "b"))
    np.testing.assert_array_equal(again.p, whole.p)
    np.testing.assert_array_equal(again.label_logits, whole.label_logits)


def test_scores_of_other_labels_are_refused(tmp_path: Path) -> None:
    CachedScorer(Counting(), ScoreCache(tmp_path / "s.db")).score(QUERY, items("a"))
    file = sqlite3.connect(tmp_path / "s.db")
    file.execute("UPDATE scores SET label_logits = ?", (bytes(4 * 9),))
    file.commit()
    with pytest.raises(StoreError, match="scores of other labels"):
        CachedScorer(Counting(), ScoreCache(tmp_path / "s.db")).score(QUERY, items("a", "b"))


def test_many_candidates_and_two_processes_worth_of_connections(tmp_path: Path) -> None:
    one, two = (CachedScorer(Counting(), ScoreCache(tmp_path / "s.db")) for _ in range(2))
    many = items(*(f"c{i:04}" for i in range(1700)))
    one.score(QUERY, many)
    assert two.score(QUERY, many).status == ("ok",) * 1700 and two.hits == 1700
    two.score(replace(QUERY, sha256="other"), many[:3])
    assert len(one.cache) == 1703


WRITER = """
import sys
sys.path[:0] = sys.argv[2:]
from dataclasses import replace
from counting import QUERY, Counting, items
from looktwice.score.cache import CachedScorer, ScoreCache
cached = CachedScorer(Counting(), ScoreCache(sys.argv[1]))
for i in range(100000):
    cached.score(replace(QUERY, sha256=f"q{i}"), items(*(f"c{j}" for j in range(20))))
    print(i, flush=True)
"""


def test_kill_minus_nine_loses_at_most_the_call_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    said = 0
    for _ in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert writer.stdout is not None
        last = -1
        until = None
        for line in writer.stdout:
            last = int(line)
            until = until or time.monotonic() + 0.2
            if last >= said + 3 and time.monotonic() > until:
                break
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        said = max(said, last)
        cache = ScoreCache(path)
        assert len(cache) % 20 == 0 and len(cache) >= 20 * (said + 1), "whole calls, and every call that was reported"
        judge = Counting()
        CachedScorer(judge, cache).score(replace(QUERY, sha256=f"q{said}"), items(*(f"c{j}" for j in range(20))))
        assert judge.asked == []
        cache.close()


def test_a_file_that_stays_locked_is_one_sentence_and_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of a thousand damaged files looked locked for ever."""
    monkeypatch.setattr("looktwice.score.cache.OPENING", 0.1)
    with closing(ScoreCache(tmp_path / "c.sqlite")) as cache:
        cache.scope({})
    with closing(sqlite3.connect(tmp_path / "c.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            ScoreCache(tmp_path / "c.sqlite")
