"""Take away what every command relies on: space, permissions, files, descriptors, the clock, being alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from campaign import Zygote
from test_kills import SMALL_COMMITS, VERBS, Verb, difference, world

pytestmark = pytest.mark.hostile
STEPS = int(os.environ.get("HOSTILE_STEPS", "20"))
SPACE = 64 * 2**20
NAMES = ("index", "add-tokens", "delete", "compact --purge", "search --run", "rerank", "eval")


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a small file system in memory; skips where nobody may."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def prepared(verb: Verb, folder: Path, zygote: Any) -> None:
    world(folder)
    verb.setup(folder)
    for argv in verb.before:
        done = zygote.run(argv, folder, patch=SMALL_COMMITS)
        assert done.code == 0, done.err


def complaint(done: Any, allowed: tuple[int, ...]) -> str | None:
    """Return what is wrong with how a command ended: a signal, a hang, another code, or no plain sentence."""
    if done.code not in allowed:
        return f"it ended with {done.code}: {done.err[-2000:]}"
    if "Traceback" in done.err or "This is a bug" in done.err:
        return f"it showed its insides: {done.err[-2000:]}"
    return None if done.code in (0, 130) or "Error:" in done.err or done.code == 3 else f"no sentence: {done.err!r}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(1800)
def test_full_disk(name: str, tmp_path: Path, zygote: Any, tally: Any) -> None:
    """Leave less space than a command needs, in steps; with space again it ends as if nothing had been."""
    verb, folder, start = VERBS[name], tmp_path / "here", tmp_path / "start"
    with small_disk(folder):
        prepared(verb, folder, zygote)
        shutil.copytree(folder, start)
        before = used(folder)
        assert zygote.run(verb.argv, folder, patch=SMALL_COMMITS).code == 0
        needed, whole = max(used(folder) - before, 64 * 1024), zygote.read(*verb.reads, folder=folder)
        for step in range(STEPS):
            remount(folder, f"size={SPACE}")
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(start, folder, dirs_exist_ok=True)
            remount(folder, f"size={used(folder) + int(needed * step / STEPS) // 4096 * 4096}")
            failed = complaint(zygote.run(verb.argv, folder, patch=SMALL_COMMITS), (0, 1, 2, 3))
            remount(folder, f"size={SPACE}")
            tally.add(failed or ends_whole(verb, folder, zygote, whole))
    tally.check()


def ends_whole(verb: Verb, folder: Path, zygote: Any, whole: Any) -> str | None:
    done = zygote.run(verb.argv, folder, patch=SMALL_COMMITS)
    if done.code != 0:
        return f"with space again it ended with {done.code}: {done.err[-2000:]}"
    found = zygote.read(*verb.reads, folder=folder)
    return None if found == whole else difference(whole, found)


@pytest.mark.parametrize("name", NAMES)
def test_read_only(name: str, tmp_path: Path, zygote: Any, tally: Any) -> None:
    """Make the disk read-only: a sentence, and afterwards everything is as before."""
    verb, folder = VERBS[name], tmp_path / "here"
    with small_disk(folder):
        prepared(verb, folder, zygote)
        outer = tmp_path / "logs"  # the process writes its own output elsewhere
        outer.mkdir()
        before = None if verb.missing else zygote.read(*verb.reads, folder=folder)
        argv = [str(folder / one) if (folder / one).exists() or one.endswith(".trec") else one for one in verb.argv]
        argv = [str(folder / one) if one in ("t.lt", "e") else one for one in argv]
        remount(folder, "ro")
        done = zygote.run(argv, outer, patch=SMALL_COMMITS)
        remount(folder, "rw")
        tally.add(complaint(done, (1, 2)))
        if before is not None:
            after = zygote.read(*verb.reads, folder=folder)
            tally.add(None if after == before else difference(before, after))
    tally.check()


@pytest.mark.parametrize("limit", [{"NOFILE": 64}, {"NOFILE": 24}, {"FSIZE": 100_000}, {"NPROC": 1}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_limits(name: str, limit: dict[str, int], tmp_path: Path, zygote: Any, tally: Any) -> None:
    """Allow few descriptors, small files or no process: it works, or says what is missing; then it ends as usual."""
    verb, folder = VERBS[name], tmp_path / "here"
    folder.mkdir()
    prepared(verb, folder, zygote)
    shutil.copytree(folder, tmp_path / "start")
    assert zygote.run(verb.argv, folder, patch=SMALL_COMMITS).code == 0
    whole = zygote.read(*verb.reads, folder=folder)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "start", folder)
    done = zygote.run(verb.argv, folder, patch=SMALL_COMMITS, limits=limit)
    tally.add(complaint(done, (0, 1, 2, 3)) or ends_whole(verb, folder, zygote, whole))
    tally.check()


@pytest.mark.parametrize("name", NAMES)
def test_full_tmp(name: str, tmp_path: Path, zygote: Any, tally: Any) -> None:
    """Point TMPDIR to a full disk."""
    verb, folder, full = VERBS[name], tmp_path / "here", tmp_path / "full"
    folder.mkdir()
    prepared(verb, folder, zygote)
    with small_disk(full):
        remount(full, "size=4096")
        done = zygote.run(verb.argv, folder, patch=SMALL_COMMITS, env={"TMPDIR": str(full), "SQLITE_TMPDIR": str(full)})
    tally.add(complaint(done, (0, 1)))
    tally.check()


@pytest.mark.timeout(600)
def test_folder_removed_in_mid_run(tmp_path: Path, zygote: Any, tally: Any) -> None:
    """Remove table or images while they are read and written: a sentence or failed items, no crash."""
    for number in range(STEPS):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        verb = VERBS[("index", "add-tokens", "search --run")[number % 3]]
        prepared(verb, folder, zygote)
        victim = folder / ("images" if number % 2 else "t.lt")
        timer = threading.Timer(1.2 + 0.1 * number, lambda gone=victim: shutil.rmtree(gone, ignore_errors=True))
        timer.start()
        done = zygote.run(verb.argv, folder, patch=SMALL_COMMITS)
        timer.join()
        tally.add(complaint(done, (0, 1, 2, 3)))
        shutil.rmtree(folder, ignore_errors=True)
    tally.check()


@pytest.mark.timeout(900)
def test_two_writers_and_a_reader(tmp_path: Path, zygote: Any, tally: Any) -> None:
    """Let two processes write one table while a third reads: each works or says that it is locked; no row is lost."""
    folder, whole = tmp_path / "here", None
    folder.mkdir()
    world(folder)
    reader = ["search", "t.lt", "images/scene-000.jpg", "--no-rerank"]
    jobs = (VERBS["index"].argv, ["compact", "t.lt", "--purge"], reader)
    runners = [zygote, Zygote(), Zygote()]
    for _ in range(STEPS):
        shutil.rmtree(folder / "t.lt", ignore_errors=True)
        assert zygote.run(["index", "t.lt", "groups", "--device", "cpu"], folder).code == 0
        with ThreadPoolExecutor(3) as pool:
            started = [pool.submit(one.run, argv, folder) for one, argv in zip(runners, jobs, strict=True)]
        for outcome in started:
            tally.add(complaint(outcome.result(), (0, 1)))
        again = zygote.run(VERBS["index"].argv, folder)
        found = zygote.read("table_state", "t.lt", folder=folder)["rows"] if again.code == 0 else again.err
        whole = whole or found
        tally.add(None if found == whole else f"rows are missing: {str(found)[:500]}")
    for other in runners[1:]:
        other.process.terminate()
    tally.check()


ODD = ("LC_ALL=C", "LC_ALL=tr_TR.UTF-8", "PYTHONIOENCODING=ascii", "TZ=Pacific/Apia", "HOME=/nowhere")


@pytest.mark.parametrize("setting", ODD)
def test_odd_settings(setting: str, tmp_path: Path, tally: Any) -> None:
    """Index and search names that ASCII lacks under another locale, time zone or home."""
    world(tmp_path)
    (tmp_path / "images" / "scene-000.jpg").rename(tmp_path / "images" / "İıß-\u202e\n.jpg")
    name, _, value = setting.partition("=")
    environment = {**os.environ, name: value, "PYTHONPATH": os.pathsep.join(sys.path)}
    for argv in (VERBS["index"].argv, ["search", "t.lt", "images/scene-001.jpg", "--shortlist", "3"]):
        command = [sys.executable, "-m", "looktwice", *argv]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=300)
        told = done.stderr.decode(errors="replace")
        tally.add(None if done.returncode == 0 and "Traceback" not in told else f"{argv[0]}: {done.returncode} {told}")
    tally.check()
