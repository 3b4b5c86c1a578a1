"""Folders, globs, lists and archives, hostile ones included: all is met once, in order, and read again by uri."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import pytest
from colour_encoder import picture
from hypothesis import given
from hypothesis import strategies as st

from looktwice.errors import MediaError, UsageError
from looktwice.sources import (
    REASONS,
    Hidden,
    Scope,
    Scopes,
    Source,
    Unreadable,
    display,
    file_uri,
    name_to_id,
    read_uri,
    scan,
)
from looktwice.sources.download import _Line, is_public
from looktwice.sources.uri import range_uri

ROOT = os.geteuid() == 0


def met(*paths: object, **options: object) -> list[Source | Unreadable]:
    found = list(scan([os.fspath(path) for path in paths], **options))
    for one in found:
        if isinstance(one, Unreadable):
            assert one.reason in REASONS and one.detail
    return found


def ids(*paths: object, **options: object) -> list[str]:
    return [one.id for one in met(*paths, **options) if isinstance(one, Source)]


def troubles(*paths: object, **options: object) -> list[tuple[str, str]]:
    return [(display(one.uri), one.reason) for one in met(*paths, **options) if isinstance(one, Unreadable)]


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture() + name.encode())  # every file's bytes differ
    return folder


# Folders


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
    make(tmp_path, "1.HEIC", "2.heic", "b/3.jsonl", "b/README", "b/4.png", ".5.heic")
    make(tmp_path / "t.lt", "manifest.json", "items.lance/data/x.lance", "codebooks/y.png", "6.png")
    make(tmp_path / "no.lt", "manifest.json", "7.png")
    found = scan([tmp_path])
    for _ in range(2):
        assert [one.id for one in found] == ["b/4.png", "no.lt/7.png"]
        assert found.ignored == {".heic": 2, ".jsonl": 1, "": 1, ".json": 1} and found.empty == []


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


# Several paths


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


# .jsonl


def write_list(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts))
    return path


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
    assert (one.text, one.metadata, one.picture, one.root) == ("red", {"year": 1999}, True, file_uri(listed))
    assert two.metadata == {"shop": "y"}
    assert one.read() == (tmp_path / "p" / "a.png").read_bytes()
    assert two.uri == four.uri == file_uri(tmp_path / "b.png")
    assert (three.picture, three.read()) == (False, "only words é".encode())
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


# .tar


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_tar(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "s-0.tar",
        [
            ("a/01.jpg", b"picture 1"),
            ("a/01.txt", b"  a caption\n"),
            ("a/01.json", b'{"year": 2001}'),
            ("a/01.cls", b"7"),
            ("a/02.png", b"picture 2"),
            ("words.txt", b"only words"),
            ("alone.json", b"{}"),
            (".hidden.png", b"x"),
            ("c.seg.png", b"picture 3"),
        ],
    )
    one, two, words, c = met(shard)
    assert [one.id, two.id, words.id, c.id] == ["s-0.tar/a/01", "s-0.tar/a/02", "s-0.tar/words", "s-0.tar/c"]
    assert (one.text, one.metadata) == ("a caption", {"year": 2001})
    assert [one.read(), two.read(), c.read()] == [b"picture 1", b"picture 2", b"picture 3"]
    assert read_uri(c.uri) == b"picture 3"
    assert (words.picture, words.text) == (False, "only words")
    assert ids(tmp_path) == [one.id, two.id, words.id, c.id]  # the same archive inside a folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s-0.tar"]  # nothing was extracted


HOSTILE = ["/etc/passwd.png", "../../up.png", "a" * 300 + ".png", "n\nl'.png", "日本.png", "x/../y.png", "//z.png"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_member_names_are_only_names(tmp_path: Path, name: str) -> None:
    (one,) = met(write_tar(tmp_path / "t.tar", [(name, b"data")]))
    assert one.id == f"t.tar/{name.removesuffix('.png')}"
    assert one.read() == b"data" == read_uri(one.uri)
    assert display(one.uri).startswith(f"{tmp_path}/t.tar#")


def test_member_names_that_are_not_utf8(tmp_path: Path) -> None:
    shard = tmp_path / "t.tar"
    with tarfile.open(shard, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        member = tarfile.TarInfo("café.png")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"data"))
    (one,) = met(shard)
    assert one.id == "//t.tar/caf%E9" and read_uri(one.uri) == b"data"


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "a.png"), (tarfile.LNKTYPE, "b.png"), (tarfile.CHRTYPE, "c.png")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert [reason for _, reason in troubles(tmp_path / "t.tar")] == ["not-a-file"] * 3
    assert ids(tmp_path / "t.tar") == []


@pytest.mark.parametrize(
    "members",
    [
        [("a.png", b"1"), ("a.jpg", b"2")],
        [("a.png", b"1"), ("a.png", b"2")],
        [("a.png", b"1"), ("a.json", b"{")],
        [("a.png", b"1"), ("a.json", b"[]")],
        [("a.png", b"1"), ("a.txt", b"\xff")],
        [("a.txt", b"  ")],
    ],
)
def test_bad_record_in_a_tar(tmp_path: Path, members: list[tuple[str, bytes]]) -> None:
    trouble, fine = met(write_tar(tmp_path / "t.tar", [*members, ("b.png", b"3")]))
    assert (trouble.reason, fine.id) == ("bad-record", "t.tar/b")


def test_cut_off_tar_keeps_what_is_whole(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "t.tar", [(f"{n}.png", bytes([n]) * 1000) for n in range(4)]).read_bytes()
    for end in range(512, 4 * 1536 + 1, 256):
        (tmp_path / "t.tar").write_bytes(whole[:end])
        found = met(tmp_path / "t.tar")
        complete = (end - 1512) // 1536 + 1 if end >= 1512 else 0
        sources = [one for one in found if isinstance(one, Source)]
        assert [one.id for one in sources] == [f"t.tar/{n}" for n in range(complete)], end
        assert [one.read() for one in sources] == [bytes([n]) * 1000 for n in range(complete)]
        assert isinstance(found[-1], Unreadable) and found[-1].hides == file_uri(tmp_path / "t.tar") + "#"


def test_damaged_header_in_the_middle_is_told(tmp_path: Path) -> None:
    data = bytearray(write_tar(tmp_path / "t.tar", [(f"{n}.png", b"x") for n in range(3)]).read_bytes())
    data[1024 + 150] ^= 255  # the checksum of the second header
    (tmp_path / "t.tar").write_bytes(data)
    one, trouble = met(tmp_path / "t.tar")
    assert (one.id, trouble.reason) == ("t.tar/0", "bad-archive")


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, patch: tuple[int, bytes] = (0, b"")) -> bytes:
    """One tar header, with some bytes changed and the checksum right."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    data = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    data[patch[0] : patch[0] + len(patch[1])] = patch[1]
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


LONG = header("././@LongLink", 10, tarfile.GNUTYPE_LONGNAME) + b"a".ljust(512, b"\0")
PAX = header("pax", 14, tarfile.XHDTYPE) + b"14 size=-1536\n".ljust(512, b"\0")
HEADERS = [
    pytest.param(header("b.txt", patch=(124, b"\xff" * 10 + b"\xfe\0")), id="negative size"),
    pytest.param(PAX + header("b.txt"), id="negative size in an extended header"),
    pytest.param(LONG * 600 + header("b.txt"), id="names of names of names"),
    pytest.param(header("b.png", kind=tarfile.GNUTYPE_SPARSE, patch=(482, b"\1")), id="sparse and cut off"),
]


@pytest.mark.parametrize("hostile", HEADERS)
def test_hostile_headers_are_a_bad_archive_and_end(tmp_path: Path, hostile: bytes) -> None:
    whole = header("a.txt", 3) + b"abc".ljust(512, b"\0")
    (tmp_path / "t.tar").write_bytes(whole + hostile)
    assert [reason for _, reason in troubles(tmp_path / "t.tar")] == ["bad-archive"]
    assert ids(tmp_path / "t.tar") == ["t.tar/a"]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [2**28, 2**19])
def test_headers_that_state_a_size_take_no_such_memory(tmp_path: Path, kind: bytes, size: int) -> None:
    """A few KB on the disk, as the rest is a hole; smaller ones are held one inside the other."""
    with open(tmp_path / "t.tar", "wb") as file:
        file.write(header("a.txt", 3) + b"abc".ljust(512, b"\0"))
        for _ in range(2**28 // size // 4 + 1):
            file.write(header("x", size, kind))
            file.seek(size, os.SEEK_CUR)
        file.write(header("b.txt"))
    tracemalloc.start()
    found = met(tmp_path / "t.tar")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [getattr(one, "reason", one.uri and "ok") for one in found] == ["ok", "bad-archive"]
    assert peak < 2**23 and "more than 1,048,576 bytes" in found[1].detail


def test_long_names_are_read(tmp_path: Path) -> None:
    name = "/".join(["x" * 200] * 20)
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "t.tar", "w", format=kind) as archive:
            for number in range(300):  # more in all than one member may have
                archive.addfile(tarfile.TarInfo(f"{name}/{number}.png"))
        assert ids(tmp_path / "t.tar") == [f"t.tar/{name}/{number}" for number in range(300)]


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 5000, b"\x1f\x8b" + b"x" * 600])
def test_what_is_no_tar(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.tar").write_bytes(data)
    assert [reason for _, reason in troubles(tmp_path / "t.tar")] in (["bad-archive"], ["truncated"])


def test_compressed_tar_says_what_to_do(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz"):
        pass
    (trouble,) = met(tmp_path / "t.tar.gz")
    assert "decompress it first" in trouble.detail


def test_tar_that_shrank_since_it_was_scanned(tmp_path: Path) -> None:
    (one,) = met(write_tar(tmp_path / "t.tar", [("a.png", b"x" * 600)]))
    (tmp_path / "t.tar").write_bytes(b"x" * 700)
    with pytest.raises(MediaError, match="truncated"):
        one.read()


# Reading again by uri


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    uri = file_uri(make(tmp_path, "a.png") / "a.png")
    from hashlib import sha256

    right = sha256(read_uri(uri)).hexdigest()
    assert read_uri(uri, sha256=right)
    (tmp_path / "a.png").write_bytes(b"other")
    with pytest.raises(MediaError, match="changed"):
        read_uri(uri, sha256=right)


@pytest.mark.parametrize(
    "uri",
    ["", "a.png", "/a.png", "file://host/a.png", "file:///a%00", "file:///a\0b", "file:///a#x", "ftp://h/a"]
    + [f"file:///a#offset={place}&size=1" for place in ("9" * 20, "9" * 5000, "\u0661", "-1")],
)
def test_uris_that_looktwice_does_not_write(uri: str) -> None:
    with pytest.raises(MediaError, match="bad-uri"):
        read_uri(uri)


def test_too_many_bytes(tmp_path: Path) -> None:
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(2**29 + 1)  # sparse: it takes no disk
    with pytest.raises(MediaError, match="too-large"):
        read_uri(file_uri(tmp_path / "a.png"))


class Trickle(io.FileIO):
    """A file of a network share: one read gives a few bytes at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(7)

    def readinto(self, into: memoryview) -> int:
        return super().readinto(memoryview(into)[:7])


def test_a_file_that_comes_in_pieces_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = file_uri(make(tmp_path, "a.png") / "a.png")
    whole = read_uri(uri)
    monkeypatch.setattr(
        "os.fdopen", lambda handle, _, size=-1: io.BufferedReader(Trickle(handle)) if size else Trickle(handle)
    )
    assert read_uri(uri) == whole
    assert read_uri(range_uri(uri, 5, 30)) == whole[5:35]


@pytest.fixture
def server() -> Iterator[str]:
    closing = Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/slow.png":
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):  # until the other side has had enough
                    while not closing.wait(0.02):
                        self.wfile.write(b"x")
                return
            if self.path == "/slow-headers.png":
                with suppress(OSError):
                    self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Note: ")
                    while not closing.wait(0.02):
                        self.wfile.write(b"x")
                return
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to?"))
                self.end_headers()
                return
            self.send_response(404 if self.path == "/none.png" else 200)
            if self.path == "/cut.png":
                self.send_header("Content-Length", str(len(picture("blue")) + 1000))
            self.end_headers()
            self.wfile.write(picture("blue"))

        def log_message(self, *_: object) -> None:
            pass

    running = HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    closing.set()
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize("what", ["slow.png", "slow-headers.png"])
def test_a_server_that_never_ends_is_given_up(server: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("looktwice.sources.download.FETCH_SECONDS", 0.2)
    with pytest.raises(MediaError, match="download: it took longer"):
        read_uri(f"{server}/{what}", urls="private")


def test_an_answer_that_ends_early_is_no_picture(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="download: the answer ended 1,000 bytes early"):
        read_uri(f"{server}/cut.png", urls="private")
    monkeypatch.setattr("looktwice.sources.uri.MAX_BYTES", len(picture("blue")) - 1)
    with pytest.raises(MediaError, match="too-large"):
        read_uri(f"{server}/cut.png", urls="private")


def test_a_connection_made_when_the_time_is_over_is_not_used(server: str) -> None:
    with pytest.raises(TimeoutError, match="longer than"), _Line(private=True) as line:
        line._end()
        with pytest.raises(TimeoutError):
            line.dial(("127.0.0.1", int(server.rpartition(":")[2])))


def test_urls_are_refused_unless_allowed(tmp_path: Path, server: str) -> None:
    listed = write_list(tmp_path / "l.jsonl", {"id": "a", "image": f"{server}/a.png"})
    (refused,) = met(listed)
    with pytest.raises(MediaError, match="url-refused"):
        refused.read()
    (allowed,) = met(listed, urls="private")
    assert allowed.read() == picture("blue") == read_uri(allowed.uri, urls="private")
    with pytest.raises(MediaError, match="download"):
        read_uri(f"{server}/none.png", urls="private")
    with pytest.raises(MediaError, match="download"):
        read_uri("http://127.0.0.1:1/a.png", urls="private")


def test_addresses_of_this_machine_and_its_network_are_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server)  # nor does a proxy fetch them for us
    for host in (server, server.replace("127.0.0.1", "localhost"), "http://[::1]:1", "http://169.254.169.254"):
        with pytest.raises(MediaError, match="forbidden-address"):
            read_uri(f"{host}/a.png", urls="public")
    with pytest.raises(MediaError, match="forbidden-address"):
        read_uri("https://10.0.0.1/a.png", urls="public")


def test_redirects_are_checked_and_stay_with_http(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_uri(f"{server}/to?{server}/a.png", urls="private") == picture("blue")
    with pytest.raises(MediaError, match="download"):
        read_uri(f"{server}/to?ftp://127.0.0.1/a.png", urls="private")
    asked = []

    def first_only(address: str) -> bool:
        asked.append(address)
        return len(asked) == 1

    monkeypatch.setattr("looktwice.sources.download.is_public", first_only)
    with pytest.raises(MediaError, match="forbidden-address"):
        read_uri(f"{server}/to?{server}/a.png", urls="public")
    assert len(asked) == 2


def test_the_address_that_was_checked_is_the_one_asked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers with a public address first and a private one later gets nowhere."""
    port, connected = int(server.rpartition(":")[2]), []
    answers = iter(["93.184.216.34", "127.0.0.1"])
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (next(answers), port))])
    monkeypatch.setattr("socket.create_connection", lambda place, timeout: connected.append(place) or refuse())
    with pytest.raises(MediaError, match="download"):
        read_uri(f"http://rebinding.invalid:{port}/a.png", urls="public")
    assert connected == [("93.184.216.34", port)]


def refuse() -> None:
    raise ConnectionRefusedError("refused")


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1%1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::a00:1",
        "192.0.0.192",
        "192.0.0.9",
        "192.88.99.1",
        "168.63.129.16",
        "100.100.100.200",
        "198.18.0.1",
        "240.0.0.1",
        "64:ff9b:1::808:808",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:7f00:1",
        "fec0::1",
        "3fff::1",
        "5f00::1",
        "2001::1",
        "2001:db8::1",
        "4000::1",
        "2606:4700::5efe:10.0.0.1",
        "2606:4700::200:5efe:169.254.169.254",
        "2002:c000:00c0::1",
        "2002:a83f:8110::",
        "::ffff:168.63.129.16",
        "64:ff9b::c000:c0",
    ],
)
def test_what_is_no_public_address(address: str) -> None:
    assert not is_public(address)


def test_what_is_a_public_address() -> None:
    plain = ("8.8.8.8", "168.63.129.17", "2606:4700::1111", "2001:4860:4860::8888", "3ffe::1", "192.0.1.1")
    wrapped = ("::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2606:4700::5efe:8.8.8.8")
    assert all(map(is_public, (*plain, *wrapped)))


def test_a_resolver_that_never_answers_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr("looktwice.sources.download.RESOLVE_SECONDS", 0.1)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: released.wait(30) and [])
    for urls in ("public", "private"):
        with pytest.raises(MediaError, match=r"download: .*the address of slow\.invalid was not found"):
            read_uri("http://slow.invalid/a.png", urls=urls)
    released.set()


def test_a_name_that_is_none_is_a_download_that_fails() -> None:
    for name in ("a" * 70, "a..b"):
        with pytest.raises(MediaError, match="download"):
            read_uri(f"http://{name}/a.png", urls="public")


# What a scan accounts for


@given(st.lists(st.text("ab/", max_size=4), max_size=6), st.text("ab/", max_size=6))
def test_scopes_find_as_a_plain_loop_does(prefixes: list[str], uri: str) -> None:
    found = Scopes(Scope("r", prefix) for prefix in prefixes).find("r", uri)
    plain = [prefix for prefix in prefixes if uri.startswith(prefix)]
    assert found == (Scope("r", min(plain, key=len)) if plain else None)
    assert Scopes(Scope("r", prefix) for prefix in prefixes).find("other", uri) is None


def test_many_places_out_of_sight_are_found_quickly() -> None:
    hidden = Hidden()
    for number in range(100_000):  # links that point to nothing, as an annex without its files has them
        hidden.add(f"file:///r/{number:06}.png")
    hidden.add("file:///r/sub/")
    assert hidden.covers("file:///r/", "file:///r/sub/a.png") and hidden.covers("file:///r/000001.png", "")
    assert not any(hidden.covers("file:///r/", f"file:///r/x{number}.png") for number in range(1000))


def test_a_huge_file_that_is_no_picture_is_not_read(tmp_path: Path) -> None:
    """A sparse file takes no room on the disk, and half a gigabyte of memory once it is read."""
    for head, word in ((b"", "not-an-image"), (b"\x89PNG\r\n\x1a\n", None)):
        (tmp_path / "a.png").write_bytes(head)
        os.truncate(tmp_path / "a.png", 2**25)
        if word is None:
            assert len(read_uri(file_uri(tmp_path / "a.png"))) == 2**25
            continue
        tracemalloc.start()
        with pytest.raises(MediaError, match=word):
            read_uri(file_uri(tmp_path / "a.png"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20


def test_what_a_server_says_is_kept_in_part() -> None:
    assert len(MediaError("download", "HTTP Error 404: " + "x" * 65_000).detail) == MediaError.MOST_DETAIL + 1
    assert MediaError("download", "x" * MediaError.MOST_DETAIL).detail == "x" * MediaError.MOST_DETAIL


def test_a_list_that_names_a_strangers_file_learns_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password=hunter2" * 2**21)
    (tmp_path / "list.jsonl").write_text(json.dumps({"id": "a", "image": file_uri(tmp_path / "secret")}) + "\n")
    [one] = [one for one in met(tmp_path / "list.jsonl") if isinstance(one, Source)]
    with pytest.raises(MediaError) as caught:
        one.read()
    assert caught.value.reason == "not-an-image" and caught.value.detail == "it is text, of 33,554,432 bytes"
