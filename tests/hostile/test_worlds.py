"""Take away what every command relies on: space, permissions, memory, descriptors, a home, time, being alone."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from campaign import Zygote
from verbs import INDEX, PLACE, VERBS, Stage, difference, lost_rows

pytestmark = pytest.mark.hostile
STEPS = int(os.environ.get("HOSTILE_STEPS", "20"))
SPACE = 64 * 2**20
NAMES = tuple(name for name in VERBS if name != "add-tokens pq8")


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a small file system in memory; skips where nobody may."""
    folder.mkdir(exist_ok=True)
    done = run(["mount", "-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def complaint(done: Any, allowed: tuple[int, ...]) -> str | None:
    """Return what is wrong with how a command ended: a signal, a hang, another code, or no plain sentence."""
    if done.code not in allowed:
        return f"it ended with {done.code}: {done.err[-2000:]}"
    if "This is a bug" in done.err or "Traceback" in done.err:
        return f"it showed its insides: {done.err[-2000:]}"
    return None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(1800)
def test_full_disk(name: str, stage: Stage, tally: Any) -> None:
    """Leave less space than a command needs, in steps; with space again it ends as if nothing had been."""
    with small_disk(stage.folder):
        ready = stage.ready(name)
        before = used(stage.folder)
        assert stage.attack(ready.verb).code == 0
        needed = max(used(stage.folder) - before, 64 * 1024)
        for step in range(STEPS):
            stage.reset(ready)
            remount(stage.folder, f"size={before + int(needed * step / STEPS) // 4096 * 4096}")
            failed = complaint(stage.attack(ready.verb), (0, 1, 2, 3))
            remount(stage.folder, f"size={SPACE}")
            tally.add(failed or stage.resumed(ready))
    tally.check()


@pytest.mark.parametrize("name", NAMES)
def test_read_only_disk(name: str, stage: Stage, tally: Any) -> None:
    """Make the disk read-only: a sentence, and afterwards everything is as before."""
    with small_disk(stage.folder):
        ready = stage.ready(name)
        before = stage.state(ready.verb)
        remount(stage.folder, "ro")
        done = stage.attack(ready.verb)
        remount(stage.folder, "rw")
        tally.add(complaint(done, (1, 2)))
        after = stage.state(ready.verb)
        tally.add(None if after == before else difference(before, after))
    tally.check()


LIMITS = {
    "64 descriptors": {"limits": {"NOFILE": 64}},
    "24 descriptors": {"limits": {"NOFILE": 24}},
    "files of 100 KB": {"limits": {"FSIZE": 100_000}},
    "no further process": {"limits": {"NPROC": 1}},
    "no home": {"env": {"HOME": "/proc", "XDG_CACHE_HOME": "/proc", "HF_HOME": "/proc"}},
}


@pytest.mark.parametrize("name", NAMES)
def test_limits(name: str, stage: Stage, tally: Any) -> None:
    """Allow few descriptors, small files, no process or no home: it works, or says what is missing; then it goes on."""
    ready = stage.ready(name)
    for what, how in LIMITS.items():
        stage.reset(ready)
        wrong = complaint(stage.attack(ready.verb, **how), (0, 1, 2, 3)) or stage.resumed(ready)
        tally.add(wrong and f"{what}: {wrong}")
    tally.check()


MEMORY = {f"{size} GiB": int(size * 2**30) for size in (1.5, 2.5, 4, 6)}
"""Of address space: libraries alone take about 2 GiB of it."""


@pytest.mark.parametrize("name", ("index", "add-tokens", "compact --purge", "search --run"))
def test_low_memory(name: str, stage: Stage, tally: Any) -> None:
    """Refuse memory at some point: however the process ends, nothing is lost, and the next run ends as usual."""
    ready = stage.ready(name)
    for what, size in MEMORY.items():
        stage.reset(ready)
        done = stage.attack(ready.verb, limits={"AS": size})
        wrong = "it hung" if done.code is None else stage.resumed(ready)
        tally.add(wrong and f"{what}: {wrong}")
    tally.check()


@pytest.mark.parametrize("name", NAMES)
def test_full_tmp(name: str, stage: Stage, tmp_path: Path, tally: Any) -> None:
    """Point TMPDIR to a full disk."""
    ready, full = stage.ready(name), tmp_path / "full"
    with small_disk(full):
        remount(full, "size=4096")
        done = stage.attack(ready.verb, env={"TMPDIR": str(full), "SQLITE_TMPDIR": str(full)})
        tally.add(complaint(done, (0, 1)) or stage.resumed(ready))
    tally.check()


def vandalise(folder: Path, way: int) -> None:
    """Remove the table, remove the images, or write over images and queries, while a command reads them."""
    if way == 0:
        shutil.rmtree(folder / "t.lt", ignore_errors=True)
    elif way == 1:
        shutil.rmtree(folder / "images", ignore_errors=True)
    else:
        for number, image in enumerate(sorted((folder / "images").iterdir())):
            image.write_bytes(image.read_bytes()[: 300 * (number % 3)])
        (folder / "queries.jsonl").write_text('{"id": "q0", "image": ')


@pytest.mark.timeout(900)
def test_folder_changed_in_mid_run(stage: Stage, tally: Any) -> None:
    """Change or remove what is read and written: a sentence or failed items, no crash."""
    for number in range(2 * STEPS):
        ready = stage.ready(("index", "add-tokens", "search --run", "upsert", "compact --purge")[number % 5])
        moment = ready.seconds * ((number * 7) % 20) / 20
        timer = threading.Timer(moment, vandalise, (stage.folder, number % 3))
        timer.start()
        done = stage.attack(ready.verb)
        timer.join()
        tally.add(complaint(done, (0, 1, 2, 3)))
    tally.check()


@pytest.mark.timeout(900)
def test_two_writers_and_a_reader(stage: Stage, tally: Any) -> None:
    """Let two processes write one table while a third reads: each works or says that it is locked; no row is lost."""
    ready = stage.ready("index")
    ways = (INDEX, ["compact", "t.lt", "--purge"], ["search", "t.lt", "images/scene-000.jpg", "--no-rerank", *PLACE])
    runners = [stage.zygote, Zygote(), Zygote()]
    for _ in range(STEPS):
        stage.reset(ready)
        assert stage.run(["index", "t.lt", "groups", *PLACE]).code == 0
        with ThreadPoolExecutor(3) as pool:
            started = [pool.submit(one.run, argv, stage.folder) for one, argv in zip(runners, ways, strict=True)]
        for outcome in started:
            tally.add(complaint(outcome.result(), (0, 1)))
        again = stage.run(INDEX)
        tally.add(lost_rows(ready.whole, stage.state(ready.verb)) if again.code == 0 else again.err)
    for other in runners[1:]:
        other.process.terminate()
    tally.check()
