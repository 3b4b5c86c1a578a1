"""What the tests of the campaign share: processes that have everything imported, and counts of what was tried."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zygote import Job, Outcome

HERE = Path(__file__).parent
TALLY = "tally"
"""The property of a test that carries its counts, from the process that ran it to the one that prints."""


class Zygote:
    """Runs jobs in processes that have everything imported."""

    def __init__(self) -> None:
        command = [sys.executable, str(HERE / "zygote.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE)

    def run(self, argv: list[str], folder: Path, **how: object) -> Outcome:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(asdict(Job(argv, str(folder), **how))) + "\n")  # type: ignore[arg-type]
        self.process.stdin.flush()
        return Outcome(**json.loads(self.process.stdout.readline()))

    def read(self, call: str, *argv: str, folder: Path) -> object:
        """Call a function of `states` in a process of its own and return its value."""
        done = self.run(list(argv), folder, call=f"states:{call}")
        assert done.code == 0, done.err
        return done.value


class Tally:
    """Counts what was tried under one name; failures are kept with their reasons and fail the test at the end."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.outcomes: list[str | None] = []

    def add(self, failure: str | None) -> int:
        """Count one attempt, and return how many have failed so far."""
        self.outcomes.append(failure)
        return len(self.failures)

    @property
    def failures(self) -> list[str]:
        return [one for one in self.outcomes if one is not None]

    def check(self) -> None:
        name = self.node.name.removeprefix("test_").replace("_", " ")
        self.node.user_properties.append((TALLY, [name, len(self.outcomes), len(self.failures)]))
        failed = f"{len(self.failures)} of {len(self.outcomes)} failed:\n"
        assert not self.failures, failed + "\n\n".join(self.failures[:5])
