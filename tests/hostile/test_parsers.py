"""Damage files of every kind that comes from outside: each is read, or refused with an error of ours, and soon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from parsers import PARSERS

pytestmark = pytest.mark.hostile
FILES = int(os.environ.get("HOSTILE_FILES", "1000"))
SLOW = {"weights": 10, "model config": 10, "vectors in Parquet": 2, "vectors of clip-retrieval": 2}
"""Kinds that take long to read: only one in so many files is tried."""
LIMITS = {"AS": 12 * 2**30}


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.timeout(900)
def test_damaged(name: str, tmp_path: Path, zygote: Any, tally: Any) -> None:
    count = max(20, FILES // SLOW.get(name, 1))
    count_failures("parsers:attack", [name, str(tmp_path), "0", str(count)], tmp_path, zygote, tally)


@pytest.mark.timeout(1800)
def test_damaged_images(tmp_path: Path, zygote: Any, tally: Any) -> None:
    count_failures("pixels:attack", [str(tmp_path), "1", str(10 * FILES)], tmp_path, zygote, tally)


@pytest.mark.parametrize("call", ["attack_scorers", "attack_client"])
@pytest.mark.timeout(900)
def test_damaged_answers(call: str, tmp_path: Path, zygote: Any, tally: Any) -> None:
    count_failures(f"servers:{call}", ["0", str(FILES)], tmp_path, zygote, tally)


@pytest.mark.timeout(1800)
def test_damaged_tables(tmp_path: Path, zygote: Any, tally: Any) -> None:
    """A process that LanceDB ends counts as a failure; another one goes on."""
    first = 0
    while first < FILES:
        argv = [str(tmp_path), "0", str(first), str(FILES)]
        done = zygote.run(argv, tmp_path, call="tables:attack", seconds=1800, limits=LIMITS)
        at = (tmp_path / "at").read_text()
        ended = int(at.split()[0]) + 1
        for _ in range(ended - first - len(done.value or ())):
            tally.add(None)
        for wrong in done.value or ():
            tally.add(wrong)
        if done.code != 0:
            tally.add(f"the process ended with {done.code} at {at}: {done.err[-2000:]}")
        first = ended
    tally.check()


def count_failures(call: str, argv: list[str], folder: Path, zygote: Any, tally: Any) -> None:
    """Run an attack of as many attempts as its last argument says."""
    done = zygote.run(argv, folder, call=call, seconds=1800, limits=LIMITS)
    assert done.code == 0, f"the process ended with {done.code}: {done.err[-3000:]}"
    for _ in range(int(argv[-1]) - len(done.value)):
        tally.add(None)
    for wrong in done.value:
        tally.add(wrong)
    tally.check()
