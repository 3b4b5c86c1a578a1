"""Folders, globs, lists and archives, hostile ones included: all is met once, in order, and read again by uri."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from colour_encoder import picture
from hypothesis import given
from hypothesis import strategies as st
from sources_helpers import ids, make, met, troubles

from looktwice.errors import MediaError, UsageError
from looktwice.sources import (
    Scopes,
    Source,
    Unreadable,
    display,
    file_uri,
    name_to_id,
    read_uri,
    scan,
)
from looktwice.sources.uri import range_uri

ROOT = os.geteuid() == 0


def test_folder_is_walked_in_the_order_of_its_names(tmp_path: Path) -> None:
    make(tmp_path, "b.png", "a/2.JPG", "a/10.jpeg", "a.webp", "c/d/e.tiff", "notes.txt", ".hidden.png", ".git/x.png")
    assert ids(tmp_path) == ["a/10.jpeg", "a/2.JPG", "a.webp", "b.png", "c/d/e.tiff"]
    found = scan([tmp_path])
    assert [one.read() for one in found] == [read_uri(one.uri) for one in found]
    assert found.ignored == {".txt": 1}
    assert found.roots == (file_uri(tmp_path, folder=True),)


def test_one_text_is_no_list_of_paths(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be a list"):
        scan(str(tmp_path))


def test_files_of_other_kinds_are_counted_and_tables_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "1.PSD", "2.psd", "b/3.jsonl", "b/README", "b/4.png", ".5.psd")
    make(tmp_path / "t.lt", "manifest.json", "items.lance/data/x.lance", "codebooks/y.png", "6.png")
    make(tmp_path / "no.lt", "manifest.json", "7.png")
    found = scan([tmp_path])
    for _ in range(2):
        assert [one.id for one in found] == ["b/4.png", "no.lt/7.png"]
        assert found.ignored == {".psd": 2, ".jsonl": 1, "": 1, ".json": 1} and found.empty == []


def test_reading_is_lazy(tmp_path: Path) -> None:
    (one,) = met(make(tmp_path, "a.png"))
    (tmp_path / "a.png").write_bytes(b"later")
    assert one.read() == b"later"
    (tmp_path / "a.png").unlink()
    with pytest.raises(MediaError, match="missing"):
        one.read()


def test_empty_folder(tmp_path: Path) -> None:
    assert met(tmp_path) == []


@pytest.fixture
def deep_folder(tmp_path: Path) -> Iterator[Path]:
    """A picture 1,050 folders down, which neither shutil nor pytest could remove again."""
    subprocess.run(["mkdir", "-p", tmp_path / "deep" / ("d/" * 1050)], check=True)
    (tmp_path / "deep" / ("d/" * 1050) / "a.png").write_bytes(picture())
    yield tmp_path / "deep"
    subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)


def test_deep_folders_do_not_exhaust_the_stack(deep_folder: Path) -> None:
    assert ids(deep_folder) == ["d/" * 1050 + "a.png"]


def test_links(tmp_path: Path) -> None:
    shelf = make(tmp_path / "shelf", "in/a.png", "z.png")
    outside = make(tmp_path / "outside", "o.png", "more/p.png")
    (shelf / "file.png").symlink_to(outside / "o.png")
    (shelf / "out").symlink_to(outside)
    (shelf / "again").symlink_to(shelf / "in")  # its pictures have names of their own
    (shelf / "broken.png").symlink_to("nowhere")
    (shelf / "broken.txt").symlink_to("nowhere")
    (shelf / "in" / "up").symlink_to("..")
    (shelf / "self").symlink_to("self")
    assert ids(shelf) == ["file.png", "in/a.png", "out/more/p.png", "out/o.png", "z.png"]
    assert troubles(shelf) == [
        (f"{shelf}/broken.png", "dangling-link"),
        (f"{shelf}/in/up/", "link-loop"),
        (f"{shelf}/self", "link-loop"),
    ]


def test_links_that_fan_out_are_entered_once(tmp_path: Path) -> None:
    """Ten folders with two links each to the next would be 1,024 ways to one picture."""
    rooms = [tmp_path / "rooms" / str(number) for number in range(11)]
    for room, after in pairwise(rooms):
        after.mkdir(parents=True)
        room.mkdir(exist_ok=True)
        for name in "ab":
            (room / name).symlink_to(after)
    make(rooms[-1], "x.png")
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "go").symlink_to(rooms[0])
    found = met(tmp_path / "start")
    assert len([one for one in found if isinstance(one, Source)]) == 1
    assert len(found) < 15


def test_scanning_twice_gives_the_same(tmp_path: Path) -> None:
    (make(tmp_path, "a/1.png", "b.png") / "l").symlink_to(tmp_path / "a")
    again = scan([tmp_path])
    assert list(again) == list(again) == met(tmp_path)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    assert troubles(tmp_path) == [(f"{tmp_path}/pipe.png", "not-a-file")]
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(MediaError, match="not-a-file"):  # and does not wait for a writer
            read_uri(file_uri(tmp_path / name))


@pytest.mark.parametrize("name", ["pipe.tar", "pipe.jsonl"])
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert troubles(tmp_path / name) == [(f"{tmp_path}/{name}", "not-a-file")]
    assert troubles(tmp_path / "*") == [(f"{tmp_path}/{name}", "not-a-file")]


@pytest.mark.skipif(ROOT, reason="root may read everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    make(tmp_path, "open/a.png", "shut/b.png", "c.png")
    (tmp_path / "shut").chmod(0)
    (tmp_path / "c.png").chmod(0)
    try:
        assert troubles(tmp_path) == [(f"{tmp_path}/shut/", "permission")]
        with pytest.raises(MediaError, match="permission"):
            read_uri(file_uri(tmp_path / "c.png"))
    finally:
        (tmp_path / "shut").chmod(0o700)


def test_unlistable_folder_is_reported_and_hides_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "open/a.png", "shut/b.png")
    listdir = os.listdir

    def refuse(path: bytes) -> list[bytes]:
        if path.endswith(b"shut"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    source, trouble = met(tmp_path)
    assert source.id == "open/a.png"
    assert (trouble.reason, trouble.hides) == ("permission", file_uri(tmp_path / "shut", folder=True))


NAMES = [
    "ü.png",
    "日本 語.png",
    "a\nb.png",
    'it\'s "x".png',
    "%41.png",
    "#1?.png",
    "back\\slash.png",
    "-rf.png",
    "[x].png",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_their_own_ids(tmp_path: Path, name: str) -> None:
    (one,) = met(make(tmp_path, name))
    assert one.id == name
    assert one.read() == picture() + name.encode() == read_uri(one.uri)
    assert display(one.uri) == f"{tmp_path}/{name}"
    assert met(tmp_path / name) == [one]  # wild cards in a name that exists are not wild


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path)
    names = [b"caf\xe9.png", b"caf%E9.png", b"\xff.png", b"\xfe.png", b"\xff\xff/x.png"]
    for number, name in enumerate(names):
        os.makedirs(os.path.dirname(raw + b"/" + name), exist_ok=True)
        with open(raw + b"/" + name, "wb") as file:
            file.write(b"%d" % number)
    found = {one.id: one for one in met(tmp_path)}
    assert set(found) == {"//caf%E9.png", "caf%E9.png", "//%FF.png", "//%FE.png", "//%FF%FF/x.png"}
    for one in found.values():
        one.id.encode(), one.uri.encode("ascii")
    assert sorted(read_uri(one.uri) for one in found.values()) == [b"0", b"1", b"2", b"3", b"4"]


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_ids_are_valid_and_distinct(one: bytes, other: bytes) -> None:
    def path(name: bytes) -> bytes:  # what a relative path can be
        return b"/".join(part for part in name.replace(b"\0", b"").split(b"/") if part) or b"x"

    one, other = path(one), path(other)
    name_to_id(one).encode()
    assert (name_to_id(one) == name_to_id(other)) == (one == other)


@given(st.binary(min_size=1))
def test_uris_are_ascii_and_lead_back(name: bytes) -> None:
    from looktwice.sources import parse_uri

    path = b"/" + name.replace(b"\0", b"")
    uri = file_uri(path)
    assert uri.isascii() and uri.isprintable() and " " not in uri
    assert parse_uri(uri).path == os.path.abspath(path)
    assert parse_uri(range_uri(uri, 5, 7)).size == 7


def test_files_and_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/1.png", "a/2.png", "b/3.png", "b/c/4.jpg", "5.txt")
    assert ids(tmp_path / "b" / "c" / "4.jpg") == ["4.jpg"]
    assert ids(tmp_path / "*" / "*.png") == ["a/1.png", "a/2.png", "b/3.png"]
    assert ids(tmp_path / "**" / "*.jpg") == ["b/c/4.jpg"]
    assert ids(tmp_path / "a*") == ["a/1.png", "a/2.png"]
    monkeypatch.chdir(tmp_path / "a")
    assert ids("1.png", "../b") == ["1.png", "3.png", "c/4.jpg"]


def test_a_named_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(picture())
    assert ids(tmp_path / "picture") == ["picture"]
    assert ids(tmp_path) == []


def test_a_pattern_does_not_go_round_in_links(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b/c.png", "b/.d/e.png", ".f.png")
    for number in range(4):  # 4 ways on from every place: as many paths as could never be listed
        (tmp_path / f"l{number}").symlink_to(tmp_path)
    assert ids(tmp_path / "**/*.png") == ["a.png", "b/c.png"]
    assert ids(tmp_path / "b/**") == ids(tmp_path / "b") == ["c.png"]


@pytest.mark.parametrize("path", ["nowhere", "nowhere.png", "*.nothing", "a.png/b", ""])
def test_paths_that_do_not_exist(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path, "a.png"))
    if path == "":
        with pytest.raises(UsageError, match="No path was given"):
            scan([])
        with pytest.raises(UsageError, match="A path is empty"):
            scan([path])
    else:
        with pytest.raises(UsageError, match=r"does not exist|Nothing matches"):
            scan([path])


def test_part_of_a_known_root_keeps_its_ids(tmp_path: Path) -> None:
    make(tmp_path, "a/b/1.png", "a/2.png")
    roots = scan([tmp_path]).roots
    assert ids(tmp_path / "a" / "b", roots=roots) == ["a/b/1.png"]
    assert ids(tmp_path / "a" / "b" / "1.png", roots=roots) == ["a/b/1.png"]
    assert ids(tmp_path / "a" / "b") == ["1.png"]
    assert ids(tmp_path, tmp_path / "a") == ["a/2.png", "a/b/1.png"] * 1 + ["a/2.png", "a/b/1.png"]
    sibling = make(tmp_path.with_name(tmp_path.name + "x"), "3.png")
    assert ids(sibling, roots=roots) == ["3.png"]


def test_known_roots_below_keep_their_ids(tmp_path: Path) -> None:
    make(tmp_path, "a/b/1.png", "a/b/c/d/2.png", "a/bb/3.png", "a/4.png")
    for name in ("pipe.png", "c/d/none.png"):
        (tmp_path / "a" / "b" / name).symlink_to("nowhere")
    roots = [file_uri(tmp_path / name, folder=True) for name in ("a/b", "a/b/c", "elsewhere", "a/gone")]
    found = scan([tmp_path / "a"], roots=roots)
    assert [(one.id, one.root) for one in found if isinstance(one, Source)] == [
        ("4.png", file_uri(tmp_path / "a", folder=True)),
        ("1.png", roots[0]),
        ("d/2.png", roots[1]),
        ("bb/3.png", file_uri(tmp_path / "a", folder=True)),
    ]
    assert [one.root for one in found if isinstance(one, Unreadable)] == [roots[1], roots[0]]
    accounts = Scopes(found.scopes)
    for root in (roots[0], roots[1], roots[3]):
        assert accounts.find(root, file_uri(tmp_path / "a" / "b" / "x.png"))
        assert not accounts.find(root, file_uri(tmp_path / "x.png"))
    assert found.roots == (file_uri(tmp_path / "a", folder=True),)
