"""Filling a table with tokens: what is work, what is kept, what ends in the ledger, and what survives kill -9."""

import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from token_fakes import NoTokens, ToyScorer, draw, make_table, row_of

from looktwice.codecs import layout_from_json, parse_codec
from looktwice.errors import Locked, Mismatch, TooManyFailures, UsageError
from looktwice.store import LedgerEntry, Table
from looktwice.token_index import add_tokens, fill, open_set


def stored(table: Table, key: str) -> dict[str, tuple[str, str, bytes]]:
    ids = sorted(table.hashes())
    rows = table.read_codes(ids, key)
    return {row.id: (row.sha256, row.layout, row.codes) for row in rows if row is not None}


@pytest.mark.parametrize("spec", ["none", "int8", "pool2+pq4x4", "sample2:replicate+group2"])
@pytest.mark.parametrize("levels", [0, 2])
def test_every_picture_gets_the_codes_of_its_own_tokens(tmp_path: Path, spec: str, levels: int) -> None:
    table, scorer = make_table(tmp_path), ToyScorer().with_levels(levels)
    steps = []
    report = add_tokens(table, scorer, spec, progress=steps.append)
    assert (report.images, report.encoded, report.failed, report.codec) == (12, 12, 0, spec)
    rows = stored(table, report.tokens_key)
    assert sorted(rows) == [f"p{n:03}.png" for n in range(12)]  # the text is no picture
    assert report.bytes == sum(len(codes) for _, _, codes in rows.values()) == round(12 * report.bytes_per_image)
    assert (steps[-1].stage, steps[-1].done, steps[-1].total, steps[-1].bytes) == ("encode", 12, 12, report.bytes)
    codec = open_set(table, scorer.info).codec
    for id_, (sha256, layout, codes) in rows.items():
        (path,) = (tmp_path / "pictures").glob(id_)
        from PIL import Image

        from looktwice.types import Item

        (tokens,) = scorer.visual_tokens([Item(id_, Image.open(path).convert("RGB"))])
        assert codec.encode(tokens) == codes
        assert layout_from_json(layout) == tokens.layout
        assert sha256 == table.hashes()[id_]


def test_the_manifest_says_what_they_were_made_with(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    report = add_tokens(table, ToyScorer(), "pq8x4", train_tokens=200, seed=7)
    (entry,) = Table.open(table.path).manifest.tokens
    sample = entry.pop("rarity")
    assert (sample["images"], sample["of"], sample["seed"]) == (12, 12, 0) and len(sample["sha256"]) == 64
    assert entry == {
        "tokens_key": report.tokens_key, "mllm": "toy", "revision": "1", "preprocessing": "patch8", "codec": "pq8x4",
        "codebook_sha256": report.codebook_sha256, "width": 16, "levels": 0, "resampler": "Pillow",
        "trained": {"tokens": 200, "seed": 7},
    }  # fmt: skip
    assert "trained on only 200 tokens" in report.warnings[0]


def test_a_second_run_has_nothing_to_do_and_new_pictures_are_added_with_the_same_codebook(tmp_path: Path) -> None:
    table, scorer = make_table(tmp_path), ToyScorer()
    first = add_tokens(table, scorer, "pq8x4")
    scorer.looked.clear()
    again = add_tokens(table, scorer, "pq8x4")
    assert (again.encoded, again.bytes, again.tokens_key, scorer.looked) == (0, 0, first.tokens_key, [])
    assert math.isnan(again.bytes_per_image)
    table.add([row_of(draw(tmp_path / "pictures", "new.png", 99))])
    third = add_tokens(table, scorer, "pq8x4")
    assert (third.encoded, third.codebook_sha256, scorer.looked) == (1, first.codebook_sha256, ["new.png"])


def test_a_picture_that_changed_is_done_again(tmp_path: Path) -> None:
    table, scorer = make_table(tmp_path), ToyScorer()
    before = stored(table, add_tokens(table, scorer, "int8").tokens_key)
    changed = draw(tmp_path / "pictures", "p003.png", 77)
    table.add([row_of(changed)])
    scorer.looked.clear()
    report = add_tokens(table, scorer, "int8")
    after = stored(table, report.tokens_key)
    assert scorer.looked == ["p003.png"]
    assert {id_ for id_ in after if after[id_] != before[id_]} == {"p003.png"}


def test_codecs_and_models_live_side_by_side(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    other = ToyScorer(replace(ToyScorer().info, preprocessing="patch8@448"))
    keys = [
        add_tokens(table, scorer, codec).tokens_key for scorer in (ToyScorer(), other) for codec in ("int8", "pool2")
    ]
    assert len(set(keys)) == 4
    assert [len(stored(table, key)) for key in keys] == [12] * 4


def test_one_bad_picture_is_a_ledger_line_and_is_tried_again(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    (tmp_path / "pictures" / "p001.png").unlink()
    (tmp_path / "pictures" / "p002.png").write_bytes(b"not what was indexed")
    scorer = ToyScorer(refuses=frozenset({"p005.png"}))
    report = add_tokens(table, scorer, "int8")
    assert (report.encoded, report.failed) == (9, 3)
    lines = {entry.uri.rsplit("/", 1)[-1]: (entry.stage, entry.reason) for entry in table.ledger}
    stage = f"tokens:{report.tokens_key}"
    assert lines == {"p001.png": (stage, "missing"), "p002.png": (stage, "changed"), "p005.png": (stage, "model")}
    assert add_tokens(table, ToyScorer(), "int8").encoded == 1
    assert len(table.ledger) == 2


def test_a_picture_that_fails_for_one_set_stays_listed_whatever_others_do(tmp_path: Path) -> None:
    table, none = make_table(tmp_path), ToyScorer(refuses=frozenset({"p005.png"}))
    keys = [add_tokens(table, none, codec).tokens_key for codec in ("int8", "pool2")]
    assert sorted(entry.stage for entry in table.ledger) == sorted(f"tokens:{key}" for key in keys)
    for codec in ("none", "pool2"):
        add_tokens(table, ToyScorer(), codec)
        assert f"tokens:{keys[0]}" in {entry.stage for entry in table.ledger}
    assert len(table.ledger) == 1
    table.delete(["p005.png"])
    assert len(table.ledger) == 0


@pytest.mark.parametrize(("refuses", "left"), [((), 0), (("p005.png",), 1)])
def test_lines_that_name_no_set_are_replaced(tmp_path: Path, refuses: tuple[str, ...], left: int) -> None:
    """As tables made by the first versions have them."""
    table = make_table(tmp_path)
    (row,) = table.lookup(["p005.png"], ["uri"])
    table.ledger.put([LedgerEntry(row["uri"], "tokens", "model")])
    report = add_tokens(table, ToyScorer(refuses=frozenset(refuses)), "int8")
    assert [entry.stage for entry in table.ledger] == [f"tokens:{report.tokens_key}"] * left


def test_what_a_codec_cannot_take_is_a_ledger_line(tmp_path: Path) -> None:
    table = make_table(tmp_path, 20)
    report = add_tokens(table, ToyScorer(), "pool2:zero:released")
    odd = [
        row["id"] for row in table.rows(["id", "width", "height"]) if row["width"] // 8 % 2 or row["height"] // 8 % 2
    ]
    assert 0 < report.failed == len(odd) < 20
    assert {entry.reason for entry in table.ledger} == {"grid"}


def test_too_many_failures_stop_the_run_and_keep_what_was_done(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    scorer = ToyScorer(refuses=frozenset(f"p{n:03}.png" for n in range(12)))
    allowed = "3 images got no tokens, more than the 2 that max_failures (--max-failures) allows"
    with pytest.raises(
        TooManyFailures, match=re.escape(f"{allowed}; see the reasons with: looktwice ledger {table.path}")
    ):
        add_tokens(table, scorer, "int8", max_failures=2)
    assert len(table.ledger) == 3
    assert add_tokens(table, ToyScorer(), "int8").encoded == 12


def test_a_codebook_is_loaded_from_a_file_and_goes_with_another_table(tmp_path: Path) -> None:
    table, scorer = make_table(tmp_path / "a"), ToyScorer()
    first = add_tokens(table, scorer, "pq8x4")
    file = tmp_path / "book.safetensors"
    file.write_bytes(open_set(table, scorer.info).codec.codebook.to_bytes())
    other = make_table(tmp_path / "b", 3)
    report = add_tokens(other, scorer, "pool2+pq8x4", codebook=file)
    assert report.codebook_sha256 == first.codebook_sha256 and report.warnings == ()
    assert open_set(other, scorer.info).codec.codebook == open_set(table, scorer.info).codec.codebook


def test_what_is_refused_before_any_work(tmp_path: Path) -> None:
    table, scorer = make_table(tmp_path), ToyScorer()
    with pytest.raises(UsageError, match="reference path"):
        add_tokens(table, NoTokens(), "int8")
    with pytest.raises(UsageError, match="object is not a scorer"):
        add_tokens(table, object(), "int8")
    with pytest.raises(Mismatch, match="widths of sub-vectors that do: 1, 2, 4, 8, 16"):
        add_tokens(table, scorer, "pq12")
    with pytest.raises(UsageError, match="too few to train on; pq16x12 needs 4096"):
        add_tokens(make_table(tmp_path / "few", 1), scorer, "pq16x12")
    with pytest.raises(UsageError, match="1 to 65,536 tokens"):
        add_tokens(table, scorer, "pq8", train_tokens=0)
    wide = tmp_path / "wide"
    add_tokens(table, scorer, "pq8x4")
    wide.write_bytes(open_set(table, scorer.info).codec.codebook.to_bytes())
    deep = scorer.with_levels(1)
    with pytest.raises(Mismatch, match="further levels"):
        add_tokens(table, deep, "pq8x4", codebook=wide)
    assert scorer.looked and not deep.looked
    with Table.open(table.path).writer(), pytest.raises(Locked):
        add_tokens(table, scorer, "int8")


def test_the_sample_is_drawn_by_the_seed_alone(tmp_path: Path) -> None:
    from looktwice.token_index.images import draw_images, sample_tokens

    table, scorer, codec = make_table(tmp_path), ToyScorer(), parse_codec("pool2+pq8x4")
    first, same, other = (sample_tokens(table, scorer, codec, 60, seed) for seed in (1, 1, 2))
    assert first.shape == (1, 60, 16) and first.equal(same) and not first.equal(other)
    drawn = draw_images(table, 5, 1)
    assert drawn == draw_images(Table.open(table.path), 5, 1)
    assert not {entry.id for entry in drawn} & {e.id for e in draw_images(table, 12, 1, [e.id for e in drawn])}


def test_commits_are_small_and_many_are_tidied_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(tmp_path, 20)
    monkeypatch.setattr(fill, "COMMIT_ROWS", 1)
    compacted = []
    monkeypatch.setattr(Table, "compact", lambda self, purge=False: compacted.append(len(self)))
    report = add_tokens(table, ToyScorer(), "int8")
    assert len(stored(table, report.tokens_key)) == 20 and compacted == [21]


SLOW = """
import sys, time
sys.path[:0] = {path!r}
from token_fakes import ToyScorer
from looktwice.store import Table
from looktwice.token_index import add_tokens, fill
fill.COMMIT_ROWS = 3
def step(p):
    print(p.stage, p.done, flush=True)
    time.sleep(0.02)
add_tokens(Table.open({table!r}), ToyScorer(), "pool2+pq8x4", progress=step)
"""


def test_kill_9_loses_at_most_a_batch_and_the_result_is_the_same(tmp_path: Path) -> None:
    whole = make_table(tmp_path / "whole", 30)
    wanted = add_tokens(whole, ToyScorer(), "pool2+pq8x4")
    table = make_table(tmp_path / "killed", 30)
    code = SLOW.format(path=[str(Path(__file__).parent)], table=str(table.path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert child.stdout is not None
    for line in child.stdout:
        if line.split() == ["encode", "14"]:
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    table = Table.open(table.path)
    left = sum(map(len, table.pending_tokens(wanted.tokens_key)))
    assert 30 - 15 <= left <= 30 - 12 + 3
    report = add_tokens(table, ToyScorer(), "pool2+pq8x4")
    assert (report.encoded, report.tokens_key) == (left, wanted.tokens_key)
    assert {i: row[1:] for i, row in stored(table, report.tokens_key).items()} == {
        i: row[1:] for i, row in stored(whole, wanted.tokens_key).items()
    }


def test_a_slow_model_commits_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(tmp_path, 6)
    monkeypatch.setattr(fill, "COMMIT_SECONDS", -1.0)
    sizes, put = [], Table.put_codes
    monkeypatch.setattr(Table, "put_codes", lambda self, rows: (sizes.append(len(rows)), put(self, rows)))
    report = add_tokens(table, ToyScorer(), "int8")
    assert len(stored(table, report.tokens_key)) == 6 and sizes[:6] == [1] * 6


def test_many_tokens_are_read_through_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.store.ann.EXACT_ROWS", 20)
    table = make_table(tmp_path)
    indices = []
    for codec in ("int8", "pool2"):
        add_tokens(table, ToyScorer(), codec)
        indices.append([index.columns for index in table._tokens.list_indices()])
    assert indices == [[], [["key"]]], "12 rows are few, 24 are many"
