"""Kill -9 in the middle of a many-query run over a large table with stored tokens, and what it costs to go on.

    python benchmarks/resume.py                                   # 20,000 items, 200 queries; half an hour on one core
    python benchmarks/resume.py --items 400 --queries 20          # quick
    python benchmarks/resume.py --folder /some/where              # keep the table there, and use it again

Pictures are the bundled gallery's, redrawn with a seed: turned over, cut, shifted in colour. They are indexed by the
command line with the bundled models and `--codec`, and asked for by further pictures of the same kind. The same
command writes one run uninterrupted; another is killed once half of the scores are there, and run again. Fails unless
both run files are the same byte for byte and no score that had been kept was made again. Prints a table and, as its
last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

from _smoke import finish, parse
from PIL import Image, ImageEnhance, ImageOps

from looktwice.cli.main import app
from looktwice.experiment.demo import bundled_gallery

CLI = [sys.executable, "-c", "from looktwice.cli.main import main; main()"]
SIDE = 128


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--shortlist", type=int, default=100)
    parser.add_argument("--codec", default="pq8")
    parser.add_argument("--folder", type=Path, help="where to make everything; a temporary folder unless told")
    parser.add_argument("--wait", type=float, default=0.2, help="seconds between looks at what is kept")
    asked = parse(parser, argv, items=48, queries=24, shortlist=12, codec="pq8x4", wait=0.01)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        seconds = prepare(folder, asked)
        row = measure(folder, asked)
    for name, value in (seconds | row).items():
        print(f"{name:<28}{value:>14,}" if isinstance(value, int) else f"{name:<28}{value:>14,.1f}")
    settings = {name: value for name, value in vars(asked).items() if name != "folder"}
    finish("resume", asked, {"rows": [seconds | row], **settings})


def prepare(folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    """Pictures, queries, table and tokens, as far as they are not there yet; seconds of each."""
    seconds = {}
    begun = time.perf_counter()
    images = sorted((bundled_gallery() / "images").iterdir())
    draw(folder / "pictures", images, asked.items, "item")
    queries = draw(folder / "queries", images, asked.queries, "query")
    lines = [json.dumps({"id": path.stem, "image": str(path.relative_to(folder))}) for path in queries]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    seconds["pictures_s"] = time.perf_counter() - begun
    for name, command in {
        "index_s": ["index", folder / "t.lt", folder / "pictures"],
        "tokens_s": ["add-tokens", folder / "t.lt", "--codec", asked.codec],
    }.items():
        begun = time.perf_counter()
        here(command)
        seconds[name] = time.perf_counter() - begun
    return seconds


def draw(folder: Path, images: list[Path], count: int, what: str) -> list[Path]:
    """`count` pictures, each one of `images` seen another way; those that are there already stay."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{what}-{i:06}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        if path.exists():
            continue
        rng = Random(f"{what} {i}")
        image = Image.open(images[i % len(images)]).convert("RGB")
        image = ImageOps.mirror(image) if rng.random() < 0.5 else image
        left, top = (int(rng.random() * 0.25 * side) for side in image.size)
        width, height = (int(rng.uniform(0.7, 0.75) * side) for side in image.size)
        image = image.crop((left, top, left + width, top + height)).resize((SIDE, SIDE))
        image = ImageEnhance.Color(image).enhance(rng.uniform(0.3, 1.6))
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.6, 1.3))
        image.save(path.with_suffix(".part"), "JPEG", quality=88)
        path.with_suffix(".part").replace(path)
    return paths


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    """Seconds of the uninterrupted run, of the run that is killed, and of the one that goes on."""
    ask = ["search", folder / "t.lt", "--queries", folder / "queries.jsonl", "--shortlist", asked.shortlist]
    pairs = asked.queries * min(asked.shortlist, asked.items)
    for old in folder.glob("*.trec*"):
        old.unlink()
    whole_s, whole = timed([*ask, "--run", folder / "whole.trec"])
    begun = time.perf_counter()
    killed = subprocess.Popen([*CLI, *map(str, ask), "--run", str(folder / "out.trec")], stderr=subprocess.DEVNULL)
    kept = 0
    while killed.poll() is None and (kept := known(folder / "out.trec.scores")) < pairs // 2:
        time.sleep(asked.wait)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed_s = time.perf_counter() - begun
    kept = known(folder / "out.trec.scores")
    resumed_s, resumed = timed([*ask, "--run", folder / "out.trec"])
    check(0 < kept < pairs and not (folder / "out.trec.scores").exists(), f"killed with {kept} of {pairs} scores")
    same = (folder / "whole.trec").read_bytes() == (folder / "out.trec").read_bytes()
    check(same, "the resumed run file is not that of the uninterrupted run")
    check(resumed["remembered"] >= kept, f"{kept} scores were kept and only {resumed['remembered']} used")
    return {
        "whole_s": whole_s,
        "whole_pairs": whole["scored"],
        "killed_s": killed_s,
        "kept_pairs": kept,
        "resumed_s": resumed_s,
        "remembered_pairs": resumed["remembered"],
        "scored_after": resumed["scored"] - resumed["remembered"],
    }


def timed(command: list[Any]) -> tuple[float, dict[str, int]]:
    """Seconds of a search, and the counts in its manifest."""
    begun = time.perf_counter()
    run(command)
    seconds = time.perf_counter() - begun
    counts: dict[str, int] = json.loads(Path(f"{command[-1]}.json").read_text())["candidates"]
    return seconds, counts


def here(command: list[Any]) -> None:
    """Run a command of looktwice in this process."""
    print("looktwice", *command, file=sys.stderr, flush=True)
    with redirect_stdout(sys.stderr):
        code = app([*map(str, command)], standalone_mode=False)
    check(not code, f"it ended with {code}")


def run(command: list[Any]) -> None:
    """Run a command of looktwice in a process of its own."""
    print("looktwice", *command, file=sys.stderr, flush=True)
    subprocess.run([*CLI, *map(str, command)], check=True, stdout=subprocess.DEVNULL)


def known(path: Path) -> int:
    """How many scores a score cache holds."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, timeout=60)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM scores").fetchone()[0])
        except sqlite3.OperationalError:  # being made
            return 0


def check(right: bool, otherwise: str) -> None:
    if not right:
        sys.exit(f"FAILED: {otherwise}")


if __name__ == "__main__":
    main()
