"""Share the fork server, and print at the end what was tried, held and failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from campaign import TALLY, Tally, Zygote
from verbs import Stage


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.process.terminate()
    made.process.wait()


@pytest.fixture(scope="session")
def stage(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(zygote, tmp_path_factory.mktemp("stage"))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    return Tally(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report for some in terminalreporter.stats.values() for report in some if getattr(report, "when", "") == "call"
    ]
    rows = [
        value for report in reports for name, value in report.user_properties if name == TALLY and report.when == "call"
    ]
    if rows:
        terminalreporter.write_line("\n| what | tried | held | failed |\n|---|---|---|---|")
    for name, tried, failed in sorted(rows):
        terminalreporter.write_line(f"| {name} | {tried} | {tried - failed} | {failed} |")
