"""Share the fork server, and print at the end what was tried, held and failed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from zygote import Job, Outcome

HERE = Path(__file__).parent
TALLY: dict[str, list[str | None]] = defaultdict(list)


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


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.process.terminate()
    made.process.wait()


class Tally:
    """Counts what was tried under one name; a failure is kept with its reason and fails the test at the end."""

    def __init__(self, name: str) -> None:
        self.name = name

    def add(self, failure: str | None) -> int:
        """Count one attempt, and return how many have failed so far."""
        TALLY[self.name].append(failure)
        return sum(one is not None for one in TALLY[self.name])

    def check(self) -> None:
        failures = [one for one in TALLY[self.name] if one is not None]
        assert not failures, f"{len(failures)} of {len(TALLY[self.name])} failed:\n" + "\n\n".join(failures[:5])


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    return Tally(request.node.name.removeprefix("test_").replace("_", " "))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY:
        terminalreporter.write_line("\n| what | tried | held | failed |\n|---|---|---|---|")
    for name, outcomes in TALLY.items():
        failed = sum(one is not None for one in outcomes)
        terminalreporter.write_line(f"| {name} | {len(outcomes)} | {len(outcomes) - failed} | {failed} |")
