"""Share the fork server, and print at the end what was tried, held and failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from campaign import TALLY, Tally, Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.process.terminate()
    made.process.wait()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    return Tally(request.node.name.removeprefix("test_").replace("_", " "))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY:
        terminalreporter.write_line("\n| what | tried | held | failed |\n|---|---|---|---|")
    for name, outcomes in TALLY.items():
        failed = sum(one is not None for one in outcomes)
        terminalreporter.write_line(f"| {name} | {len(outcomes)} | {len(outcomes) - failed} | {failed} |")
