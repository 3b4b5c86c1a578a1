"""Start real processes in odd surroundings: locales, time zones, closed and full streams, a clock that was set back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from verbs import INDEX, PLACE, Stage, lost_rows

pytestmark = pytest.mark.hostile
ODD = (
    "LC_ALL=C",
    "LC_ALL=tr_TR.UTF-8",
    "PYTHONIOENCODING=ascii",
    "TZ=Pacific/Apia",
    "HOME=/nowhere",
    "TERM=",
    "COLUMNS=1",
)
SEARCH = ["search", "t.lt", "images/scene-001.jpg", "--no-rerank", *PLACE]


def looktwice(argv: list[str], folder: Path, shell: str = '"$@"', **more: str) -> tuple[int, str]:
    """Run a command by way of a line of shell, and return its exit code and what it told people."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}
    command = ["bash", "-c", f"set -o pipefail; {shell}", "bash", sys.executable, "-m", "looktwice", *argv]
    done = subprocess.run(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, timeout=300
    )
    return done.returncode, done.stderr.decode(errors="replace")


def wrong(ended: tuple[int, str], allowed: tuple[int, ...] = (0,)) -> str | None:
    code, told = ended
    return None if code in allowed and "Traceback" not in told and "This is a bug" not in told else f"{code}: {told}"


@pytest.mark.timeout(900)
def test_odd_settings(stage: Stage, tally: Any) -> None:
    """Index and search names that ASCII lacks under another locale, time zone, terminal or home."""
    stage.ready("index")
    (stage.folder / "images" / "scene-000.jpg").rename(stage.folder / "images" / "İıß-\u202e\n.jpg")
    for setting in ODD:
        name, _, value = setting.partition("=")
        shutil.rmtree(stage.folder / "t.lt", ignore_errors=True)
        for argv in (INDEX, SEARCH):
            failed = wrong(looktwice(argv, stage.folder, **{name: value}))
            tally.add(failed and f"{setting} {argv[0]}: {failed}")
    tally.check()


STREAMS = {
    '"$@" >&-': (0, 1),
    '"$@" 2>&-': (0,),
    '"$@" <&- >&- 2>&-': (0, 1),
    '"$@" > /dev/full': (0, 1),
    '"$@" 2> /dev/full': (0, 1),
    '"$@" | head -c 0': (0, 1, 141),
}


@pytest.mark.timeout(900)
def test_streams(stage: Stage, tally: Any) -> None:
    """Close streams, fill them, or stop reading them: no traceback, no false success; the next run is as usual."""
    ready = stage.ready("index")
    for shell, allowed in STREAMS.items():
        stage.reset(ready)
        ended = looktwice(INDEX, stage.folder, shell)
        failed = wrong(ended, allowed)
        if ended[0] == 0 and stage.state(ready.verb) != ready.whole:
            failed = "it says that it has succeeded, but the table is not whole"
        failed = failed or stage.resumed(ready)
        tally.add(failed and f"index {shell}: {failed}")
        failed = wrong(looktwice([*SEARCH, "--json"], stage.folder, shell), allowed)
        tally.add(failed and f"search {shell}: {failed}")
    tally.check()


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
def test_clock_set_back(stage: Stage, tally: Any) -> None:
    """Write a table in the future, then index, search and compact it today, and the other way round."""
    ready = stage.ready("index")
    for first, second in (("+400d", "+0d"), ("-20y", "+0d"), ("+0d", "-20y"), ("+0d", "+400d")):
        stage.reset(ready)
        runs = (
            (["index", "t.lt", "groups", *PLACE], first),
            (INDEX, second),
            (SEARCH, second),
            (["compact", "t.lt"], second),
        )
        for argv, when in runs:
            failed = wrong(looktwice(argv, stage.folder, f'faketime -f {when} "$@"'))
            tally.add(failed and f"{when} {argv[0]}: {failed}")
        tally.add(lost_rows(ready.whole, stage.state(ready.verb)))
    tally.check()
