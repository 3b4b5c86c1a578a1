"""Follow one query through the code: the files it enters, and the calls that climb back up.

    python scripts/trace_query.py            # one query over 12 images of the bundled gallery, with stored tokens

A call climbs when it enters a file that is waiting for the caller already, as a callback does. Files inside the stages
(encode, store, codecs, score, rank) and below are left out of the count; they are entered through one door each. The
way to the scorer are the files that wait while the first pair is scored.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import looktwice

SOURCE = Path(looktwice.__file__).parent
STAGES = ("encode", "store", "codecs", "late_interaction", "score", "rank", "evaluate")
INSIDE = (*STAGES, "sources", "models", "types", "errors", "files", "checked")


def main() -> None:
    from looktwice.cli.main import main as cli
    from looktwice.experiment.demo import bundled_gallery

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        table, images = f"{folder}/t.lt", sorted((bundled_gallery() / "images").glob("*.jpg"))[:12]
        run(cli, ["index", table, *map(str, images)])
        run(cli, ["add-tokens", table, "--codec", "int8"])
        trail = Trail()
        sys.setprofile(trail)
        run(cli, ["search", table, str(images[0]), "--shortlist", "8"])
        sys.setprofile(None)
    for name, calls in trail.entered.items():
        print(f"{calls:>5} calls  {name}")
    for (caller, callee), calls in trail.climbs.items():
        print(f"{calls:>5} climbs {caller} -> {callee}")
    print(f"{len(trail.entered)} files entered, {len(trail.climbs)} climbs")
    print(f"{len(trail.way)} files on the way to the scorer: {' > '.join(trail.way)}")


def run(cli: Any, arguments: list[str]) -> None:
    sys.argv = ["looktwice", *arguments]
    try:
        cli()
    except SystemExit as end:
        assert not end.code, end.code


class Trail:
    """A profiler that counts calls from one file of looktwice to another."""

    def __init__(self) -> None:
        self.entered: Counter[str] = Counter()
        self.climbs: Counter[tuple[str, str]] = Counter()
        self.way: list[str] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (callee := name_of(frame.f_code.co_filename)) is None:
            return
        if frame.f_code.co_name in ("<module>", "<genexpr>"):
            return
        above = [name for name in callers(frame.f_back) if name is not None]
        if not above or above[0] == callee:
            return
        if callee.startswith("score/") and frame.f_code.co_name == "score" and not self.way:
            self.way = list(dict.fromkeys(name for name in reversed(above) if not stage(name)))
        if stage(callee):
            return
        self.entered[callee] += 1
        if callee in above:
            self.climbs[above[0], callee] += 1


def callers(frame: FrameType | None) -> Iterator[str | None]:
    while frame is not None:
        yield name_of(frame.f_code.co_filename)
        frame = frame.f_back


@cache
def name_of(path: str) -> str | None:
    found = Path(path)
    return found.relative_to(SOURCE).as_posix() if found.is_relative_to(SOURCE) else None


def stage(name: str) -> bool:
    return name.split("/")[0].removesuffix(".py") in INSIDE


if __name__ == "__main__":
    main()
