"""Lists (.jsonl): ids, texts, metadata and bad lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sources_helpers import ids, make, met, troubles, write_list

from looktwice.errors import MediaError
from looktwice.sources import (
    file_uri,
    read_uri,
)


def test_jsonl(tmp_path: Path) -> None:
    make(tmp_path, "p/a.png", "b.png")
    listed = write_list(
        tmp_path / "p" / "list.jsonl",
        {"id": "one", "image": "a.png", "text": "red", "metadata": {"year": 1999}},
        b"   ",
        {"id": "two", "image": "../b.png", "shop": "x", "metadata": {"shop": "y"}},
        {"id": 3, "text": "only words é"},
        {"id": "four", "image": str(tmp_path / "b.png"), "text": None, "metadata": None},
    )
    one, two, three, four = met(listed)
    assert [one.id, two.id, three.id, four.id] == ["one", "two", "3", "four"]
    assert (one.text, one.metadata, one.has_image, one.root) == ("red", {"year": 1999}, True, file_uri(listed))
    assert two.metadata == {"shop": "y"}
    assert one.read() == (tmp_path / "p" / "a.png").read_bytes()
    assert two.uri == four.uri == file_uri(tmp_path / "b.png")
    assert (three.has_image, three.read()) == (False, "only words é".encode())
    assert json.loads(read_uri(three.uri)) == {"id": 3, "text": "only words é"}


BAD_LINES = [
    b"{",
    b"[1]",
    b"5",
    b'"x"',
    b'{"id": "x"}',
    b'{"id": "x", "text": "  "}',
    b'{"image": "a.png"}',
    b'{"id": "", "text": "t"}',
    b'{"id": true, "text": "t"}',
    b'{"id": ["x"], "text": "t"}',
    b'{"id": "x", "text": 5}',
    b'{"id": "x", "image": {"path": "a.png"}}',
    b'{"id": "x", "text": "t", "metadata": [1]}',
    b'{"id": "x", "text": "t", "metadata": {"a": NaN}}',
    b'{"id": "x\\ud800", "text": "t"}',
    b'{"id": "x", "text": "t", "metadata": {"\\udc00": 1}}',
    b'{"id": "x", "text": "\xff"}',
    b'{"id": "x", "image": "a\\u0000.png"}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("bad", BAD_LINES, ids=range(len(BAD_LINES)))
def test_bad_lines_do_not_stop_the_list(tmp_path: Path, bad: bytes) -> None:
    listed = write_list(tmp_path / "l.jsonl", {"id": "a", "text": "t"}, bad, {"id": "b", "text": "t"})
    first, trouble, last = met(listed)
    assert (first.id, trouble.reason, last.id) == ("a", "bad-record", "b")
    assert trouble.detail.startswith("line 2: ")
    assert read_uri(trouble.uri).strip() == bad
    assert trouble.hides == file_uri(listed)


@pytest.mark.parametrize("depth", [150, 490, 900])
def test_deeply_nested_metadata_is_one_bad_line(tmp_path: Path, depth: int) -> None:
    deep = b'{"id": "a", "text": "t", "m": ' + b"[" * depth + b"]" * depth + b"}"
    (tmp_path / "l.jsonl").write_bytes(deep + b'\n{"id": "b", "text": "t"}\n')
    assert [reason for _, reason in troubles(tmp_path / "l.jsonl")] == ["bad-record"]
    assert ids(tmp_path / "l.jsonl") == ["b"]


def test_picture_whose_address_holds_a_nul(tmp_path: Path) -> None:
    listed = write_list(tmp_path / "l.jsonl", {"id": "a", "image": "file:///a\0b"}, {"id": "b", "text": "t"})
    assert [reason for _, reason in troubles(listed)] == ["bad-record"] and ids(listed) == ["b"]


def test_a_data_uri_in_a_list_is_no_path(tmp_path: Path) -> None:
    write_list(tmp_path / "l.jsonl", {"id": "a", "image": "data:image/png;base64,iVBORw0KGgo="})
    (trouble,) = met(tmp_path / "l.jsonl")
    assert trouble.reason == "bad-record" and "is a data URI; write it to a file" in trouble.detail


def test_list_with_byte_order_mark_and_dos_line_ends(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "a", "text": "t"}\r\n{"id": "b", "text": "t"}\r\n')
    assert ids(tmp_path / "l.jsonl") == ["a", "b"]


def test_endless_line_is_one_bad_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.sources.jsonl.MAX_LINE", 100)
    listed = write_list(tmp_path / "l.jsonl", {"id": "a", "text": "x" * 1000}, {"id": "b", "text": "t"})
    trouble, last = met(listed)
    assert (trouble.reason, last.id) == ("bad-record", "b")


def test_missing_picture_of_a_list_is_found_when_it_is_read(tmp_path: Path) -> None:
    (one,) = met(write_list(tmp_path / "l.jsonl", {"id": "a", "image": "no.png"}))
    with pytest.raises(MediaError, match="missing"):
        one.read()
