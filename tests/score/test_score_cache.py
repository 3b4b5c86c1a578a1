"""The score cache: the same numbers back, never somebody else's, and nothing lost but the call in flight."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from counting import QUERY, Counting, items
from PIL import Image

from looktwice.errors import StoreError
from looktwice.score.cache import Cached, ScoreCache, fingerprint
from looktwice.types import Block, Item, PairScorer, VisualTokens


def test_known_pairs_are_not_asked_again_and_come_back_exactly(tmp_path: Path) -> None:
    first = Cached(Counting(), ScoreCache(tmp_path / "s.db"))
    assert isinstance(first, PairScorer)
    whole = first.score(QUERY, items("a", "bbb", "bad", "cc"))
    judge = Counting(device="cuda", path="reference", batch_size=3)
    again = Cached(judge, ScoreCache(tmp_path / "s.db"))
    back = again.score(QUERY, items("cc", "new", "a", "bad", "bbb", "a"))
    assert judge.asked == ["new", "bad"], "failures are tried again"
    order = [3, 0, 1, 0]
    for name in ("p", "label_logits", "entropy", "off_mass", "argmax_id"):
        np.testing.assert_array_equal(getattr(back, name)[[0, 2, 4, 5]], getattr(whole, name)[order])
    assert back.status == ("ok", "ok", "ok", "failed", "ok", "ok") and again.describe()["cached"] == 4
    assert np.isnan(back.entropy).all(), "unknown stays unknown"


@pytest.mark.parametrize(
    "change", [{"revision": "r2"}, {"prompt_hash": "x"}, {"dtype": "bfloat16"}, {"mode": "written"}, {"new": "setting"}]
)
def test_another_setting_knows_nothing(tmp_path: Path, change: dict[str, str]) -> None:
    cache = ScoreCache(tmp_path / "s.db")
    Cached(Counting(), cache).score(QUERY, items("a"))
    judge = Counting(**change)
    Cached(judge, cache).score(QUERY, items("a"))
    assert judge.asked == ["a"]


def test_another_codec_query_text_or_picture_is_another_pair(tmp_path: Path) -> None:
    cache, judge = ScoreCache(tmp_path / "s.db"), Counting()
    cached = Cached(judge, cache)
    [a] = items("a")
    for query, candidate in [(QUERY, a), (replace(QUERY, sha256="z"), a), (QUERY, replace(a, text="t")), (a, QUERY)]:
        cached.score(query, [candidate])
    Cached(judge, cache, tokens_key="pq8").score(QUERY, [a])
    assert len(judge.asked) == 5 and len(cache) == 5
    cached.score(QUERY, [replace(a, id="another name of it")])
    assert len(judge.asked) == 5


def test_lookup_needs_hashes_only(tmp_path: Path) -> None:
    cached = Cached(Counting(), ScoreCache(tmp_path / "s.db"))
    image = Image.new("RGB", (4, 4))
    cached.score(QUERY, [Item("a", image=image, sha256="h", text="t")])
    seen = cached.lookup(QUERY, [Item("?", sha256="h", text="t"), Item("?", sha256="other")])
    assert seen.status == ("ok", "missing") and np.isnan(seen.p[1])
    assert cached.lookup(QUERY, []).p.shape == (0,)


def test_fingerprints_tell_contents_apart() -> None:
    tokens = VisualTokens(torch.zeros(2, 3), None, (Block("global", 1, 2),))
    shown = [
        Item("x"),
        Item("x", text=""),
        Item("x", text="a"),
        Item("x", sha256="a"),
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
    assert fingerprint(shown[2]) == fingerprint(replace(shown[2], id="y", uri="z"))


def test_files_that_are_no_cache_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello, this is not a database at all" * 40)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    for name in ("text", "other.db", "no/such/folder.db"):
        with pytest.raises(StoreError, match="another file"):
            ScoreCache(tmp_path / name)
    assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_many_candidates_and_two_processes_worth_of_connections(tmp_path: Path) -> None:
    one, two = (Cached(Counting(), ScoreCache(tmp_path / "s.db")) for _ in range(2))
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
from looktwice.score.cache import Cached, ScoreCache
cached = Cached(Counting(), ScoreCache(sys.argv[1]))
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
        Cached(judge, cache).score(replace(QUERY, sha256=f"q{said}"), items(*(f"c{j}" for j in range(20))))
        assert judge.asked == []
        cache.close()
