"""Archives (.tar): members, hostile headers and names."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from sources_helpers import ids, met, troubles

from looktwice.errors import MediaError
from looktwice.sources import (
    Source,
    Unreadable,
    display,
    file_uri,
    read_uri,
)


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
    assert [one.id, two.id, words.id, c.id] == ["s-0.tar/a/01", "s-0.tar/a/02", "s-0.tar/words", "s-0.tar/c.seg"]
    assert (one.text, one.metadata) == ("a caption", {"year": 2001})
    assert [one.read(), two.read(), c.read()] == [b"picture 1", b"picture 2", b"picture 3"]
    assert read_uri(c.uri) == b"picture 3"
    assert (words.has_image, words.text) == (False, "only words")
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
    # Python before 3.11.3 takes a negative size in an extended header for one that ends past the file.
    assert [reason for _, reason in troubles(tmp_path / "t.tar")] in (["bad-archive"], ["truncated"])
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


def test_two_images_under_one_key_are_two_items(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "t.tar",
        [
            ("a.png", b"1"),
            ("a.jpg", b"2"),
            ("a.txt", b"both"),
            ("b.left.jpg", b"3"),
            ("b.right.jpg", b"4"),
            ("b.right.txt", b"right"),
            ("b.json", b'{"n": 1}'),
            ("c.jpg", b"5"),
            ("c.mask.jpg", b"6"),
            ("c.mask.json", b"{"),
        ],
    )
    *found, damaged = met(shard)
    assert [one.id for one in found] == ["t.tar/a.png", "t.tar/a.jpg", "t.tar/b.left", "t.tar/b.right", "t.tar/c"]
    assert [one.text for one in found] == ["both", "both", None, "right", None]
    assert [one.metadata for one in found] == [{}, {}, {"n": 1}, {"n": 1}, {}]
    assert [one.read() for one in found] == [b"1", b"2", b"3", b"4", b"5"]
    assert (damaged.reason, damaged.hides) == ("bad-record", f"{damaged.uri.partition('#')[0]}#")


def test_a_failure_names_the_member(tmp_path: Path) -> None:
    (one,) = met(write_tar(tmp_path / "t.tar", [("x/a.b.jpg", b"1")]))
    assert one.describe_failure("the image ends early") == "x/a.b.jpg: the image ends early"


def test_forks_of_other_systems_are_passed_over(tmp_path: Path) -> None:
    names = ["__MACOSX/a.jpg", "__MACOSX/._a.jpg", "._a.jpg", "x/@eaDir/a.jpg", "Previews.lrdata/1/a.jpg", "a.jpg"]
    assert ids(write_tar(tmp_path / "t.tar", [(name, b"1") for name in names])) == ["t.tar/a"]
