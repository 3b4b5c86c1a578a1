"""A file is written whole or not at all, and nothing else is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from looktwice.calibration import Calibration
from looktwice.errors import LooktwiceError, UsageError
from looktwice.files import write_whole


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
    assert str(caught.value) in ("", f"{tmp_path}/m cannot be written: No space left on device.")
    assert not isinstance(caught.value, UsageError)
    assert os.listdir(tmp_path) == ["m"] and (tmp_path / "m").read_bytes() == b"old"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "m", tmp_path):
        with pytest.raises(UsageError, match="cannot be written"):
            write_whole(path, b"new")
    with pytest.raises(LooktwiceError, match=r"/dev/full cannot be written: No space"):
        write_whole(Path("/dev/full"), b"new")


def test_a_pipe_is_written_straight(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_whole(tmp_path / "pipe", b"new")
    reader.join()
    assert heard == [b"new"] and (tmp_path / "pipe").is_fifo()


def test_a_calibration_leaves_no_draft_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LooktwiceError, match="cannot be written"):
        Calibration({}, "platt", ((1.0, 0.0),), (1.0, 0.0), (), {}, {}).save(tmp_path / "c.json")
    assert os.listdir(tmp_path) == []
