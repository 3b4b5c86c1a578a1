"""Kill each writing command at random moments: the resumed output equals that of a run that nobody interrupted."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from verbs import VERBS, Ready, Stage

pytestmark = pytest.mark.hostile
RUNS = int(os.environ.get("HOSTILE_RUNS", "100"))


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.timeout(1800)
def test_kill(name: str, stage: Stage, tally: Any) -> None:
    ready, dice = stage.ready(name), random.Random(name)
    for _ in range(RUNS):
        stage.reset(ready)
        if tally.add(attempt(ready, stage, dice.uniform(0, ready.seconds))) > 4:
            break
    tally.check()


def attempt(ready: Ready, stage: Stage, moment: float) -> str | None:
    """Kill, look, run again, look; return what is wrong, or None."""
    killed = stage.attack(ready.verb, kill_after=moment)
    if killed.code not in (-9, 0):
        return f"at {moment:.3f} s: it ended by itself with {killed.code}: {killed.err}"
    return (wrong := stage.resumed(ready)) and f"at {moment:.3f} s: {wrong}"
