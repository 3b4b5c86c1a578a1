"""Kill each writing command at random moments: the resumed output equals that of a run that nobody interrupted."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from looktwice.experiment.demo import bundled_gallery

pytestmark = pytest.mark.hostile
RUNS = int(os.environ.get("HOSTILE_RUNS", "100"))
IMAGES = 40
FORMAT_1 = Path(__file__).parent.parent / "golden" / "format-1"
SMALL_COMMITS = {"looktwice.indexing.committing:COMMIT_ROWS": 8, "looktwice.token_index.fill:COMMIT_ROWS": 8}
PLACE = ["--device", "cpu", "--dtype", "float32", "--threads", "1"]


@dataclass(frozen=True)
class Verb:
    """A command, what must be there before it, and how to read what it made.

    `between` holds for the state after a kill: it gets the state before, the state of a whole run and the present one.
    """

    argv: list[str]
    before: list[list[str]] = field(default_factory=list)
    reads: tuple[str, ...] = ("table_state", "t.lt")
    between: Callable[[Any, Any, Any], bool] = lambda before, whole, now: True
    setup: Callable[[Path], None] = lambda folder: None
    missing: bool = False


INDEX = ["index", "t.lt", "images", *PLACE, "--batch-size", "4"]
TOKENS = ["add-tokens", "t.lt", "--codec", "int8", *PLACE]
SEARCH = ["--queries", "queries.jsonl", "--shortlist", "6", *PLACE, "--run", "out.trec", "--overwrite"]


def rows_are_some_of(before: Any, whole: Any, now: Any) -> bool:
    return all(whole["rows"].get(key) == row for key, row in now["rows"].items())


def rows_are_before_or_whole(before: Any, whole: Any, now: Any) -> bool:
    return now["rows"] in (before["rows"], whole["rows"])


def rows_stay(before: Any, whole: Any, now: Any) -> bool:
    return bool(now["rows"] == before["rows"] and now["tokens"] == before["tokens"])


def codes_are_some_of(before: Any, whole: Any, now: Any) -> bool:
    (key,) = whole["tokens"]
    found = now["tokens"].get(key, {})
    return now["rows"] == before["rows"] and all(
        one in (None, whole["tokens"][key][name]) for name, one in found.items()
    )


def file_is_missing_or_whole(before: Any, whole: Any, now: Any) -> bool:
    return all(now[name] in (before[name], whole[name]) for name in now if name.endswith(".trec"))


def old_table(folder: Path) -> None:
    shutil.copytree(FORMAT_1, folder / "t.lt")


VERBS = {
    "index": Verb(INDEX, between=rows_are_some_of, missing=True),
    "add-tokens": Verb(TOKENS, [INDEX], between=codes_are_some_of),
    "add-tokens pq8": Verb(["add-tokens", "t.lt", "--codec", "pq8", *PLACE], [INDEX], between=codes_are_some_of),
    "delete": Verb(
        ["delete", "t.lt", "--where", "id < 'scene-020'", "--yes"], [INDEX, TOKENS], between=rows_are_before_or_whole
    ),
    "compact --purge": Verb(
        ["compact", "t.lt", "--purge"],
        [INDEX, TOKENS, ["delete", "t.lt", "--where", "id < 'scene-020'", "--yes"]],
        between=rows_stay,
    ),
    "search --run": Verb(
        ["search", "t.lt", *SEARCH],
        [INDEX, TOKENS],
        reads=("files_state", "out.trec", "out.trec.json"),
        between=file_is_missing_or_whole,
    ),
    "rerank": Verb(
        ["rerank", "first.trec", "t.lt", *SEARCH],
        [INDEX, TOKENS, ["search", "t.lt", "--queries", "queries.jsonl", "--no-rerank", *PLACE, "--run", "first.trec"]],
        reads=("files_state", "out.trec", "out.trec.json"),
        between=file_is_missing_or_whole,
    ),
    "eval": Verb(
        ["eval", "run", "folder", "--root", "groups", "--out", "e", "--shortlist", "6", *PLACE],
        reads=("files_state", "e/result.json"),
    ),
    "migrate": Verb(["compact", "t.lt"], setup=old_table, between=rows_stay),
}


def world(folder: Path) -> None:
    """Lay out images, queries and a benchmark of folders."""
    images = sorted((bundled_gallery() / "images").glob("*.jpg"))[:IMAGES]
    (folder / "images").mkdir()
    for image in images:
        shutil.copy(image, folder / "images")
    for number, image in enumerate(images[:16]):
        (folder / "groups" / str(number // 4)).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / "groups" / str(number // 4))
    lines = [json.dumps({"id": f"q{n}", "image": f"images/{image.name}"}) for n, image in enumerate(images[:8])]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.timeout(1800)
def test_kill(name: str, tmp_path: Path, zygote: Any, tally: Any) -> None:
    verb, dice = VERBS[name], random.Random(name)
    folder, start = tmp_path / "here", tmp_path / "start"  # every run lies in one place, as tables name their folders
    folder.mkdir()
    world(folder)
    verb.setup(folder)
    for argv in verb.before:
        done = zygote.run(argv, folder, patch=SMALL_COMMITS)
        assert done.code == 0, done.err
    before = None if verb.missing else zygote.read(*verb.reads, folder=folder)
    shutil.copytree(folder, start)
    done = zygote.run(verb.argv, folder, patch=SMALL_COMMITS)
    assert done.code == 0, done.err
    whole = zygote.read(*verb.reads, folder=folder)
    for _ in range(RUNS):
        shutil.rmtree(folder)
        shutil.copytree(start, folder)
        if tally.add(attempt(verb, folder, dice.uniform(0, done.seconds), zygote, before, whole)) > 4:
            break
    tally.check()


def attempt(verb: Verb, folder: Path, moment: float, zygote: Any, before: Any, whole: Any) -> str | None:
    """Kill, look, run again, look; returns what is wrong, or None."""
    killed = zygote.run(verb.argv, folder, patch=SMALL_COMMITS, kill_after=moment)
    if killed.code not in (-9, 0):
        return f"at {moment:.3f} s: it ended by itself with {killed.code}: {killed.err}"
    try:
        if not (verb.missing and not (folder / "t.lt" / "manifest.json").exists()):
            now = zygote.read(*verb.reads, folder=folder)
            if not verb.between(before, whole, now):
                return f"at {moment:.3f} s: after the kill {difference(whole, now)}"
        again = zygote.run(verb.argv, folder, patch=SMALL_COMMITS)
        if again.code != 0:
            return f"at {moment:.3f} s: the next run ended with {again.code}: {again.err}"
        after = zygote.read(*verb.reads, folder=folder)
    except AssertionError as error:
        return f"at {moment:.3f} s: {error}"
    return None if after == whole else f"at {moment:.3f} s: resumed {difference(whole, after)}"


def difference(whole: Any, found: Any, place: str = "") -> str:
    """Return the places where two states differ, with both values."""
    if isinstance(whole, dict) and isinstance(found, dict):
        keys = [key for key in {**whole, **found} if whole.get(key) != found.get(key)]
        return "; ".join(difference(whole.get(key), found.get(key), f"{place}/{key}") for key in keys[:5])
    if isinstance(whole, list) and isinstance(found, list) and len(whole) == len(found):
        return difference(dict(enumerate(whole)), dict(enumerate(found)), place)
    return f"{place}: {str(found)[:300]} is not {str(whole)[:300]}"
