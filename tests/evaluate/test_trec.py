"""Runs and labels as files: exact round trips, plain refusals, and what other tools read out of them."""

from __future__ import annotations

import errno
import gzip
import json
import logging
import os
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from looktwice.errors import LooktwiceError, UsageError
from looktwice.evaluate import read_qrels, read_run, write_run
from looktwice.evaluate.trec import escape, unescape

any_id = st.text(st.characters(), min_size=1, max_size=8) | st.text("\\u0041 ", min_size=1, max_size=8)
any_id = any_id | st.text(st.characters(categories=["Cs", "Zs", "Cc", "L"]), min_size=1, max_size=6)
score = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 0.5, 0.5 + 1e-12, 1.0])
runs = st.dictionaries(any_id, st.dictionaries(any_id, score, min_size=1, max_size=6), max_size=4)


def best_first(scores):
    return sorted(scores.items(), key=lambda pair: -pair[1])


@given(any_id)
@example("my photo.jpg")
@example("\\u0020")
@example("\\\\u0020 \\u005c")
@example("caf\udce9 \ud800.jpg")
@example("\u3000\xa0\x85\u2028\ufeff")
def test_any_id_is_one_column_and_comes_back(name):
    column = escape(name)
    assert len(column.split()) == 1
    column.encode("utf-8")
    assert unescape(column) == name


@pytest.mark.parametrize(
    "name", ["a/b.jpg", "50%.jpg", "C:\\users\\ünder.png", "图像/猫.jpg", "a%20b", '"quoted"', "\\U0041"]
)
def test_an_ordinary_id_stands_as_it_is(name):
    assert escape(name) == name


@given(run=runs)
@example(run={"{": {"a": 0.5}, '{"a"': {"b": 0.5}})
def test_a_run_round_trips_with_its_order(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("run") / "a.trec"
    ranked = {query: best_first(scores) for query, scores in run.items()}
    write_run(path, ranked, "my tag")
    back = read_run(path)
    assert {q: [d for d, _ in found] for q, found in back.items()} == {q: [d for d, _ in f] for q, f in ranked.items()}
    for query, found in back.items():
        assert [s for _, s in found] == pytest.approx([s for _, s in ranked[query]], rel=1e-5, abs=1e-5)


@given(run=runs)
def test_another_reader_finds_the_same_order_in_32_bits(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("run") / "a.trec"
    write_run(path, {query: best_first(scores) for query, scores in run.items()})
    last = {}
    for line in path.read_text("utf-8").split("\n")[:-1]:
        query, q0, _, rank, score, tag = line.split()
        above_rank, above_score = last.get(query, (0, float("inf")))
        assert (q0, tag, int(rank)) == ("Q0", "looktwice", above_rank + 1)
        assert np.float32(score) < np.float32(above_score)
        last[query] = int(rank), score


def test_ir_measures_agrees_although_all_scores_tie(tmp_path):
    """trec_eval breaks ties by descending id, so tied scores would put z first and give 1 instead of 1/3."""
    write_run(tmp_path / "r", {"q": [("a", 0.7), ("b", 0.7), ("z", 0.7)]})
    run = list(ir_measures.read_trec_run(str(tmp_path / "r")))
    value = ir_measures.calc_aggregate([ir_measures.RR], [ir_measures.Qrel("q", "z", 1)], run)[ir_measures.RR]
    assert value == pytest.approx(1 / 3)


def test_the_written_text_is_plain(tmp_path):
    write_run(tmp_path / "r", {"q 1": [("a b.jpg", 0.82), ("c", 0.82), ("d", -1)]}, "0.5")
    assert (tmp_path / "r").read_text() == (
        "q\\u00201 Q0 a\\u0020b.jpg 1 0.82 0.5\nq\\u00201 Q0 c 2 0.81999993 0.5\nq\\u00201 Q0 d 3 -1.0 0.5\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"q": [("a", 0.1), ("b", 0.2)]}, "'b' is higher than the one above"),
        ({"q": [("a", float("nan"))]}, "'a' is not a finite 32-bit"),
        ({"q": [("a", float("inf"))]}, "finite 32-bit"),
        ({"q": [("a", 1e39)]}, "32-bit"),
        ({"q": [("a", 0.2), ("a", 0.1)]}, "lists 'a' 2 times"),
        ({"q": [("", 0.2)]}, "empty id"),
        ({"": [("a", 0.2)]}, "empty id"),
    ],
)
def test_a_run_that_cannot_be_written_is_refused_and_leaves_the_old_file(tmp_path, run, message):
    path = tmp_path / "r"
    path.write_text("old")
    with pytest.raises(UsageError, match=message):
        write_run(path, run)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_writing_where_one_cannot_is_said_plainly(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        write_run(tmp_path / "nowhere" / "r", {"q": [("a", 1)]})


def test_scores_decide_and_disagreeing_ranks_are_counted(tmp_path, caplog):
    (tmp_path / "r").write_text(
        "q Q0 a 1 0.1 t\nq Q0 b 2 0.9 t\nq Q0 c 4 0.1 t\nq Q0 d 3 0.1 t\np Q0 a 0 1 t\np Q0 b 0 1 t\n"
    )
    with caplog.at_level(logging.WARNING):
        assert read_run(tmp_path / "r") == {
            "q": [("b", 0.9), ("a", 0.1), ("d", 0.1), ("c", 0.1)],
            "p": [("a", 1.0), ("b", 1.0)],
        }
    assert "1 of 2 queries" in caplog.text


def test_files_from_elsewhere_are_read(tmp_path):
    plain = tmp_path / "crlf"
    plain.write_bytes(b"\xef\xbb\xbfq\tQ0\ta\xc2\xa0b\t1\t1e-3\ttag\r\n\r\nq Q0 caf\xe9.jpg 2 -5 tag\r\n")
    assert read_run(plain) == {"q": [("a\xa0b", 0.001), ("caf\udce9.jpg", -5.0)]}
    packed = tmp_path / "r.gz"
    packed.write_bytes(gzip.compress(b"q Q0 a 1 0.5 t\n"))
    assert read_run(packed) == {"q": [("a", 0.5)]}
    assert read_run_text(tmp_path, "") == {}


def read_run_text(tmp_path, text):
    (tmp_path / "text").write_text(text, "utf-8")
    return read_run(tmp_path / "text")


def test_a_json_shortlist_is_a_run(tmp_path):
    text = json.dumps({"q 1": {"a b": 0.25, "ü": 1, "c": 0.25}, "empty": {}})
    assert read_run_text(tmp_path, text) == {"q 1": [("ü", 1.0), ("a b", 0.25), ("c", 0.25)], "empty": []}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 0.5\n", "line 1: .*write `query Q0"),
        ("q Q0 a 1 0.5 t\nq Q0 b two 0.4 t\n", "line 2"),
        ("q Q0 a 1 nan t\n", "finite numbers as rank and score"),
        ("q Q0 a 1 inf t\n", "write finite numbers"),
        ("q Q0 a 1 0.5 t\nq Q0 a 2 0.4 t\n", "lists 'a' 2 times"),
        ("\x00\x01PNG", "line 1"),
        ('{"q": {"a": NaN}}', "'a' for query 'q' is nan"),
        ('{"q": {"a": "0.5"}}', "give a number"),
        ('{"q": {"a": true}}', "give a number"),
        ('{"q": ["a"]}', "the value of 'q' is not an object"),
        ('{"q": 3}', "the value of 'q' is not an object"),
        ('{"q": {"a": 1, "a": 2}}', "lists 'a' 2 times"),
        ('{"q": ', "not valid JSON"),
        ('{"q":' * 100_000, "not valid JSON"),
    ],
)
def test_a_broken_run_is_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read_run_text(tmp_path, text)


@pytest.mark.parametrize("read", [read_run, read_qrels])
def test_an_unreadable_path_is_said_plainly(tmp_path, read):
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"q Q0 a 1 0.5 t\n" * 99)[:-9])
    (tmp_path / "not.gz").write_bytes(b"q Q0 a 1 0.5 t\n")
    packed = bytearray(gzip.compress(b"q Q0 a 1 0.5 t\n" * 99))
    packed[10:14] = b"\xff" * 4
    (tmp_path / "damaged.gz").write_bytes(packed)
    for name in ("missing", ".", "cut.gz", "not.gz", "damaged.gz"):
        with pytest.raises(UsageError, match="cannot be read"):
            read(tmp_path / name)


def qrels_text(tmp_path, text):
    (tmp_path / "qrels").write_text(text, "utf-8")
    return read_qrels(tmp_path / "qrels")


def test_trec_labels(tmp_path):
    text = "q\\u00201 0 a\\u0020b 1\nq\\u00201 0 c 0\nq2 0 d -1\nq2 0 d -1\nq2\tx\te\t2\n"
    assert qrels_text(tmp_path, text) == {"q 1": {"a b": 1, "c": 0}, "q2": {"d": -1, "e": 2}}


def test_beir_labels_with_and_without_a_header(tmp_path):
    assert qrels_text(tmp_path, "query-id\tcorpus-id\tscore\nq 1\ta b\t1\n") == {"q 1": {"a b": 1}}
    assert qrels_text(tmp_path, "q 1\ta\\u0020b\t1\nq 1\tc\t2.0\n") == {"q 1": {"a\\u0020b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q 0 a\n", "line 1: .*write `query 0"),
        ("q 0 a 1 extra 1\n", "line 1"),
        ("q 0 a yes\n", "line 1"),
        ("q 0 a 0.5\n", "line 1"),
        ("q 0 a nan\n", "line 1"),
        ("q 0 a 1\nq 0 a 0\n", "line 2: 'a' has two different labels for query 'q'"),
        ("query-id\tcorpus-id\tscore\nq\ta\n", "line 2"),
        ("query-id\tcorpus-id\tscore\nq\ta\tmany\n", "line 2"),
    ],
)
def test_broken_labels_are_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        qrels_text(tmp_path, text)


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 1), (errno.EACCES, 2)])
def test_a_full_disk_is_not_the_callers_mistake(tmp_path, monkeypatch, number, code):
    (tmp_path / "r.trec").write_text("as it was")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(LooktwiceError, match=os.strerror(number)) as caught:
        write_run(tmp_path / "r.trec", {"q": [("a", 1.0)]})
    assert caught.value.exit_code == code and (tmp_path / "r.trec").read_text() == "as it was"


@pytest.mark.parametrize("name", ["r.trec", "r.trec.gz"])
def test_what_unpacks_without_bound_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"q Q0 d 1 0.5 t\n" + b" " * 2**25
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read_run(tmp_path / name)
    monkeypatch.setattr("looktwice.evaluate.trec.MOST_BYTES", 2**25)
    with pytest.raises(UsageError, match="has more than 33,554,432 bytes"):
        read_run(tmp_path / name)
