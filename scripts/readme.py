"""Run the commands that README.md shows and put their output under them; with --check, say whether it is the same.

Numbers are not compared, as times differ; everything else is. `--demo` also runs `looktwice demo` for its block.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

os.environ["COLUMNS"] = "100"
os.environ["TERM"] = "dumb"

from typer.testing import CliRunner

from looktwice.cli.main import app
from looktwice.experiment.demo import bundled_gallery

PAGE = Path(__file__).resolve().parents[1] / "README.md"
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
DEMO = re.compile(r"(<!-- output of: looktwice demo -->\n```\n)(.*?)(```)", re.DOTALL)


def make_place(folder: Path) -> Path:
    """Put what the examples ask for into a folder: photos/, forty pictures of the gallery, and query.jpg."""
    gallery = bundled_gallery()
    (folder / "photos").mkdir(parents=True)
    wanted = [line.split()[2] for line in (gallery / "qrels.txt").read_text().splitlines() if line.startswith("p00 ")]
    for name in list(dict.fromkeys([*wanted, *sorted(p.name for p in (gallery / "images").iterdir())]))[:40]:
        shutil.copy(gallery / "images" / name, folder / "photos" / name)
    shutil.copy(gallery / "queries" / "p00.jpg", folder / "query.jpg")
    return folder


def filled(page: str, folder: Path) -> str:
    """The page with what its commands really print, run in `folder`."""
    with chdir(folder):
        return CONSOLE.sub(lambda block: f"```console\n{_run(block[1])}```", page)


def with_demo(page: str, folder: Path) -> str:
    """The page with what `looktwice demo` really prints."""
    with chdir(folder):
        return DEMO.sub(lambda block: f"{block[1]}{_output('looktwice demo')}{block[3]}", page)


def same(one: str, other: str) -> bool:
    """Whether two pages are equal but for numbers and the room they take."""
    return _masked(one) == _masked(other)


def _run(block: str) -> str:
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    return "".join(f"{line}\n{_output(line[2:])}" for line in commands)


def _output(command: str) -> str:
    name, *arguments = shlex.split(command)
    result = CliRunner().invoke(app, arguments)
    if name != "looktwice" or result.exit_code:
        raise SystemExit(f"{command}: exit code {result.exit_code}\n{result.stderr}")
    return result.stdout


def _masked(page: str) -> list[str]:
    lines = (re.sub(r"[─\s]+", " ", re.sub(r"\d[\d.,]*", "#", line)).strip() for line in page.splitlines())
    return [line for line in lines if line]


def main() -> int:
    """Rewrite the page, or compare it."""
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        made = filled(page, make_place(Path(folder)))
        made = with_demo(made, Path(folder)) if "--demo" in sys.argv else made
    if "--check" not in sys.argv:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if not same(page, made):
        print("README.md does not show what its commands print; run: make docs", file=sys.stderr)
    return 0 if same(page, made) else 1


if __name__ == "__main__":
    sys.exit(main())
