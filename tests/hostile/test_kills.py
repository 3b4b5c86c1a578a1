"""Kill each writing command at random moments: the resumed output equals that of a run that nobody interrupted."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from verbs import VERBS, Ready, Stage, difference

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
    return (wrong := resumed(ready, stage)) and f"at {moment:.3f} s: {wrong}"


def resumed(ready: Ready, stage: Stage) -> str | None:
    """Look at what an interruption left, run again and look again; return what is wrong, or None."""
    verb = ready.verb
    again = stage.run([*verb.reads, "--", verb.call or "", *verb.argv], call="states:resume")
    if again.code != 0:
        return f"it cannot be read: {again.err}"
    now, code, after = again.value
    if not verb.between(ready.before, ready.whole, now):
        return f"the interruption left {difference(ready.whole, now)}"
    if code != 0:
        return f"the next run ended with {code}: {again.err}"
    return None if after == ready.whole else f"the next run made {difference(ready.whole, after)}"
