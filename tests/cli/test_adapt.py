"""`looktwice adapt` on flat images whose green says nothing of what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from looktwice.encode.linear import load_linear
from looktwice.testing import ColorEncoder


@pytest.fixture
def shop(looktwice: Any, tmp_path: Path) -> Path:
    """n.lt holds two images of each of 20 things; a thing is a share of red in red and blue, green is drawn by lot."""
    rng = np.random.default_rng(0)
    (tmp_path / "items").mkdir()
    (tmp_path / "queries").mkdir()
    lines, labels = [], []
    for thing in range(20):
        red, blue = 4 + 3 * thing, 61 - 3 * thing
        for name in (f"items/{thing:02}a.png", f"items/{thing:02}b.png", f"queries/{thing:02}.png"):
            Image.new("RGB", (4, 4), (red, int(rng.integers(0, 120)), blue)).save(tmp_path / name)
        lines.append(json.dumps({"id": f"q{thing}", "image": f"queries/{thing:02}.png"}))
        labels += [f"q{thing} 0 {thing:02}{one}.png 1" for one in "ab"]
    (tmp_path / "q.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "qrels.txt").write_text("\n".join(labels) + "\n")
    assert looktwice("index", "n.lt", "items").code == 0
    return tmp_path


ASKED = ("adapt", "n.lt", "--queries", "q.jsonl", "--qrels", "qrels.txt", "--measure", "mAP@10")


def test_what_was_learnt_is_written(looktwice: Any, shop: Path) -> None:
    done = looktwice(*ASKED, "--out", "n.npz", "--json")
    assert done.code == 0, done.err
    record = done.records[0]
    assert record["claimed"] and record["gain"]["low"] > 0 and record["queries"] == 20
    assert "--encoder colors+linear:n.npz" in done.err
    weight = load_linear("n.npz", ColorEncoder.info.dim).weight
    assert weight[1, 1] < min(weight[0, 0], weight[2, 2])


def test_no_gain_is_no_file(looktwice: Any, shop: Path) -> None:
    """Labels by lot leave nothing to learn."""
    rng = np.random.default_rng(1)
    drawn = rng.permutation(20)
    (shop / "qrels.txt").write_text("".join(f"q{i} 0 {thing:02}a.png 1\n" for i, thing in enumerate(drawn)))
    done = looktwice(*ASKED, "--out", "n.npz")
    assert done.code == 2 and "No gain can be claimed" in done.err and not Path("n.npz").exists()
    assert "adapted, on other queries" in done.out
    assert looktwice(*ASKED, "--out", "n.json").code == 2


def test_a_query_is_encoded_once_and_not_before_the_measure_is_read(
    looktwice: Any, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    encode = ColorEncoder.encode
    monkeypatch.setattr(
        ColorEncoder, "encode", lambda self, items: asked.extend(i.id for i in items) or encode(self, items)
    )
    done = looktwice(*ASKED[:-1], "mAPP@10", "--out", "n.npz")
    assert done.code == 2 and "did you mean mAP@10" in done.err and not asked
    assert looktwice(*ASKED, "--out", "n.npz").code == 0
    assert sorted(asked) == sorted(f"q{thing}" for thing in range(20))
