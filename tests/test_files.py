"""A file is written whole or not at all, and nothing else is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from looktwice import files
from looktwice.errors import LooktwiceError, UsageError
from looktwice.files import followed, is_replaced, write_whole
from looktwice.rank.calibration import Calibration


def draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.part")


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_replaced(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "m"
    for data in (b"old", b"", b"new"):
        write_whole(path, data, sync=sync)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["m"]
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_draft_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    draft(tmp_path / "m").symlink_to(tmp_path / "victim")
    write_whole(tmp_path / "m", b"new")
    assert (tmp_path / "victim").read_text() == "mine" and not (tmp_path / "m").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["m", "victim"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_stops_it_leaves_the_old_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write_whole(tmp_path / "m", b"old")

    def stop(handle: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises((LooktwiceError, KeyboardInterrupt)) as caught:
        write_whole(tmp_path / "m", b"new", sync=True)
    full = f"{tmp_path}/m cannot be written (No space left on device); choose another path or free some space."
    assert str(caught.value) in ("", full)
    assert not isinstance(caught.value, UsageError)
    assert os.listdir(tmp_path) == ["m"] and (tmp_path / "m").read_bytes() == b"old"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "m", tmp_path):
        with pytest.raises(UsageError, match="cannot be written"):
            write_whole(path, b"new")
    with pytest.raises(LooktwiceError, match=r"/dev/full cannot be written \(No space"):
        write_whole(Path("/dev/full"), b"new")


def test_a_pipe_is_written_straight(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_whole(tmp_path / "pipe", b"new")
    reader.join()
    assert heard == [b"new"] and (tmp_path / "pipe").is_fifo()


def test_links_that_the_user_named_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data/other")
    (tmp_path / "data" / "other").symlink_to("../data/real")
    for data in (b"first", b"second"):  # it is not there yet; it is
        write_whole(followed(tmp_path / "link"), data)
        assert (tmp_path / "data" / "real").read_bytes() == data
    assert (tmp_path / "link").is_symlink() and (tmp_path / "data" / "other").is_symlink()
    assert sorted(os.listdir(tmp_path / "data")) == ["other", "real"]
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(UsageError, match=r"link cannot be written \(Too many levels"):
        followed(tmp_path / "link")


def test_links_that_nobody_named_are_replaced_wherever_they_lead(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "victim").write_text("mine")
    for target in ("pipe", "victim", "nowhere"):
        (tmp_path / "m").unlink(missing_ok=True)
        (tmp_path / "m").symlink_to(target)
        write_whole(tmp_path / "m", b"new")
        assert not (tmp_path / "m").is_symlink() and (tmp_path / "m").read_bytes() == b"new"
    assert (tmp_path / "victim").read_text() == "mine"


def test_stdout_that_is_a_file_stays_the_link_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With folders in the place of /dev and /proc: the real ones are everybody's."""
    for name in ("dev", "proc/self/fd"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(files, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(files, "PROCESSES", tmp_path / "proc")
    (tmp_path / "out").write_text("before\n")
    (tmp_path / "proc/self/fd/1").symlink_to(tmp_path / "out")
    (tmp_path / "dev/fd").symlink_to(tmp_path / "proc/self/fd")
    (tmp_path / "dev/stdout").symlink_to(tmp_path / "proc/self/fd/1")
    (tmp_path / "own").symlink_to("dev/stdout")
    for number, name in enumerate(("dev/stdout", "dev/fd/1", "own")):
        path = followed(tmp_path / name)
        assert not is_replaced(path)
        write_whole(path, f"{number}\n".encode())
    assert (tmp_path / "out").read_text() == "before\n0\n1\n2\n", "as the shell's >> asked"
    assert all((tmp_path / name).is_symlink() for name in ("dev/stdout", "proc/self/fd/1", "own"))
    (tmp_path / "dev" / "shm").mkdir()
    write_whole(tmp_path / "dev" / "shm" / "run", b"old")
    write_whole(tmp_path / "dev" / "shm" / "run", b"new")
    assert (tmp_path / "dev/shm/run").read_bytes() == b"new", "/dev/shm is a folder like any other"


def test_a_calibration_leaves_no_draft_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LooktwiceError, match="cannot be written"):
        Calibration({}, "platt", ((1.0, 0.0),), (1.0, 0.0), (), {}, {}).save(tmp_path / "c.json")
    assert os.listdir(tmp_path) == []
