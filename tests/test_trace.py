"""The walk of one query: few files on the way to the scorer, and no call back into one that waits."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "trace_query.py"


def test_a_query_walks_straight_to_the_scorer() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=120)
    found = re.search(r"(\d+) files entered, (\d+) climbs\n(\d+) files on the way", done.stdout)
    assert found is not None, done.stderr[-2000:]
    _, climbs, way = map(int, found.groups())
    assert climbs == 0 and way <= 8
