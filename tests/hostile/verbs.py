"""The commands that the campaign attacks: what must be there before, how to read what they made, what may be between.

`Stage` lays each of them out once and keeps a copy, so that every attempt begins alike.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign import Zygote
from zygote import Outcome

from looktwice.experiment.demo import bundled_gallery

IMAGES = 24
FORMAT_1 = Path(__file__).parent.parent / "golden" / "format-1"
SMALL_COMMITS = {
    "looktwice.indexing.writer:COMMIT_ROWS": 8,
    "looktwice.token_index.fill:COMMIT_ROWS": 8,
}
PLACE = ["--device", "cpu", "--dtype", "float32", "--threads", "1"]


@dataclass(frozen=True)
class Verb:
    """A command, what must be there before it, and how to read what it made.

    `between` holds for the state after a kill: it gets the state before, the state of a whole run and the present one.
    `call` is a function of `states` that is called with `argv` in place of a command; `before` may name one first.
    """

    argv: list[str]
    before: list[list[str]] = field(default_factory=list)
    reads: tuple[str, ...] = ("table_state", "t.lt")
    between: Callable[[Any, Any, Any], bool] = lambda before, whole, now: True
    setup: Callable[[Path], None] = lambda folder: None
    call: str | None = None


def rows_are_some_of(before: Any, whole: Any, now: Any) -> bool:
    return now is None or all(whole["rows"].get(key) == row for key, row in now["rows"].items())


def rows_are_of_either(before: Any, whole: Any, now: Any) -> bool:
    """Each row is the old or the new one, and none of the old ones is gone."""
    return before["rows"].keys() <= now["rows"].keys() and all(
        row in (before["rows"].get(key), whole["rows"].get(key)) for key, row in now["rows"].items()
    )


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


INDEX = ["index", "t.lt", "images", *PLACE, "--batch-size", "4"]
TOKENS = ["add-tokens", "t.lt", "--codec", "int8", *PLACE]
SEARCH = ["--queries", "queries.jsonl", "--shortlist", "4", *PLACE, "--run", "out.trec", "--overwrite"]
DELETE = ["delete", "t.lt", "--where", "id < 'scene-012'", "--yes"]
FILL = ["states:fill", "t.lt", "images"]
FIRST = ["search", "t.lt", "--queries", "queries.jsonl", "--no-rerank", *PLACE, "--run", "first.trec"]
RUN = ("files_state", "out.trec", "out.trec.json")
VERBS = {
    "index": Verb(INDEX, between=rows_are_some_of),
    "add-tokens": Verb(TOKENS, [INDEX], between=codes_are_some_of),
    "add-tokens pq8": Verb(["add-tokens", "t.lt", "--codec", "pq8", *PLACE], [INDEX], between=codes_are_some_of),
    "upsert": Verb(["t.lt", "images"], [FILL], between=rows_are_of_either, call="states:upsert"),
    "delete": Verb(DELETE, [INDEX, TOKENS], between=rows_are_before_or_whole),
    "compact --purge": Verb(["compact", "t.lt", "--purge"], [INDEX, TOKENS, DELETE], between=rows_stay),
    "search --run": Verb(["search", "t.lt", *SEARCH], [INDEX, TOKENS], RUN, file_is_missing_or_whole),
    "rerank": Verb(["rerank", "first.trec", "t.lt", *SEARCH], [INDEX, TOKENS, FIRST], RUN, file_is_missing_or_whole),
    "eval": Verb(
        ["eval", "run", "folder", "--root", "groups", "--out", "e", "--shortlist", "4", *PLACE],
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
    for number, image in enumerate(images[:9]):
        (folder / "groups" / str(number // 3)).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / "groups" / str(number // 3))
    lines = [json.dumps({"id": f"q{n}", "image": f"images/{image.name}"}) for n, image in enumerate(images[:5])]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Ready:
    """A verb with a copy of the folder before it, the states before and after a whole run, and its seconds."""

    verb: Verb
    start: Path
    before: Any
    whole: Any
    seconds: float


class Stage:
    """One folder for all attempts, as tables name their folders."""

    def __init__(self, zygote: Zygote, base: Path) -> None:
        self.zygote, self.base, self.folder = zygote, base, base / "here"
        self._ready: dict[str, Ready] = {}

    def run(self, argv: list[str], **how: object) -> Outcome:
        return self.zygote.run(argv, self.folder, patch=SMALL_COMMITS, **how)

    def attack(self, verb: Verb, **how: object) -> Outcome:
        return self.run(verb.argv, call=verb.call, **how)

    def state(self, verb: Verb) -> Any:
        return self.zygote.read(*verb.reads, folder=self.folder)

    def ready(self, name: str) -> Ready:
        """Lay a verb out, unless it is; the folder is then as before it."""
        if name not in self._ready:
            self._ready[name] = self._prepare(VERBS[name], self.base / f"before {name}")
        self.reset(self._ready[name])
        return self._ready[name]

    def reset(self, ready: Ready) -> None:
        """Bring the folder back to what it was before the verb; the folder itself stays, as it may be a mount."""
        self._clear()
        shutil.copytree(ready.start, self.folder, dirs_exist_ok=True, symlinks=True)

    def _clear(self) -> None:
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _prepare(self, verb: Verb, start: Path) -> Ready:
        self._clear()
        world(self.folder)
        verb.setup(self.folder)
        for argv in verb.before:
            done = self.run(argv[1:], call=argv[0]) if argv[0].startswith("states:") else self.run(argv)
            assert done.code == 0, done.err
        before = self.state(verb)
        shutil.copytree(self.folder, start)
        self.attack(verb)  # once for the imports, once for the time
        self.reset(Ready(verb, start, None, None, 0))
        done = self.attack(verb)
        assert done.code == 0, done.err
        return Ready(verb, start, before, self.state(verb), done.seconds)

    def resumed(self, ready: Ready) -> str | None:
        """Look at what an interruption left, run again and look again; return what is wrong, or None."""
        verb = ready.verb
        again = self.run([*verb.reads, "--", verb.call or "", *verb.argv], call="states:resume")
        if again.code != 0:
            return f"it cannot be read: {again.err}"
        now, code, after = again.value
        if not verb.between(ready.before, ready.whole, now):
            return f"the interruption left {difference(ready.whole, now)}"
        if code != 0:
            return f"the next run ended with {code}: {again.err}"
        return None if after == ready.whole else f"the next run made {difference(ready.whole, after)}"


def difference(whole: Any, found: Any, place: str = "") -> str:
    """Return the places where two states differ, with both values."""
    if isinstance(whole, dict) and isinstance(found, dict):
        keys = [key for key in {**whole, **found} if whole.get(key) != found.get(key)]
        return "; ".join(difference(whole.get(key), found.get(key), f"{place}/{key}") for key in keys[:5])
    if isinstance(whole, list) and isinstance(found, list) and len(whole) == len(found):
        return difference(dict(enumerate(whole)), dict(enumerate(found)), place)
    return f"{place}: {str(found)[:300]} is not {str(whole)[:300]}"


def lost_rows(whole: Any, found: Any) -> str | None:
    """Return what is wrong if a state lacks rows of another, or has other ones in their place."""
    lost = [key for key, row in whole["rows"].items() if found["rows"].get(key) != row]
    return f"rows are missing or changed: {lost}" if lost else None
