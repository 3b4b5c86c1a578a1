"""Run the examples of README.md and of the documentation, and put what the commands print under them.

Pages listed in PLACES are run in their order, those of one place in the same folder. A ```python block is executed. A
```toml block is written to the file that its first line names. Each command of a ```console block is run, and its
output is filled in. A ```sh block is not run: it needs a download, or minutes.

With --check, compare instead of writing. Numbers are not compared, as times and last digits differ between machines.
`--demo` also runs `looktwice demo` for its block of the README.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

os.environ["COLUMNS"] = "100"
os.environ["TERM"] = "dumb"

from typer.testing import CliRunner

from looktwice.cli.main import app
from looktwice.experiment.demo import bundled_gallery

ROOT = Path(__file__).resolve().parents[1]
PLACES = (
    ("README.md",),
    ("docs/tutorial.md", "docs/guides/experiment.md"),
    ("docs/guides/photos.md", "docs/reference/prompts.md", "docs/reference/scores.md", "docs/reference/python.md"),
    ("docs/guides/examples.md",),
    ("docs/guides/shop.md",),
    ("docs/guides/pipeline.md",),
)
FINISHED = (0, 3)  # 3: some items failed, as the page is about to explain
BLOCK = re.compile(r"```(console|python|toml)\n(.*?)```", re.DOTALL)
DEMO = re.compile(r"(<!-- output of: looktwice demo -->\n```\n)(.*?)(```)", re.DOTALL)


def make_place(folder: Path) -> Path:
    """Put what the examples ask for into a folder: photos/, forty images of the gallery, and query.jpg."""
    gallery = bundled_gallery()
    (folder / "photos").mkdir(parents=True)
    wanted = [line.split()[2] for line in (gallery / "qrels.txt").read_text().splitlines() if line.startswith("p00 ")]
    for name in list(dict.fromkeys([*wanted, *sorted(p.name for p in (gallery / "images").iterdir())]))[:40]:
        shutil.copy(gallery / "images" / name, folder / "photos" / name)
    shutil.copy(gallery / "queries" / "p00.jpg", folder / "query.jpg")
    return folder


def filled(pages: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Run the pages of one place in `folder`; returns them with what their commands really print."""
    with chdir(folder):
        return {name: _filled(name, page) for name, page in pages.items()}


def with_demo(page: str, folder: Path) -> str:
    """Return the page with what `looktwice demo` really prints."""
    with chdir(folder):
        return DEMO.sub(lambda block: f"{block[1]}{_output('looktwice demo')}{block[3]}", page)


def masked(page: str) -> list[str]:
    """Return the lines of a page without numbers, and without what moves with them from machine to machine."""
    return [line for line in map(_masked, page.splitlines()) if line]


def _masked(line: str) -> str:
    line = re.sub(r" on (cpu|cuda|mps)\b(:\d+)?", " on #", re.sub(r"[↑↓]\d+", "", line))
    numbers = re.sub(r"[A-Za-z]*\d[\d.,]*", "#", line)
    units = re.sub(r"# ([KMG]i)?B\b", "# B", numbers)
    several = re.sub(r"# \(-#\)(, # \(-#\))+", "# (-#)", units)
    return re.sub(r"[─\s]+", " ", several).strip()


def _filled(name: str, page: str) -> str:
    names: dict[str, Any] = {"__name__": name}

    def run(block: re.Match[str]) -> str:
        kind, body = block[1], block[2]
        if kind == "python":
            with redirect_stdout(io.StringIO()):
                exec(compile(body, name, "exec"), names)
        elif kind == "toml":
            Path(body.split()[1]).write_text(body, encoding="utf-8")
        else:
            return f"```console\n{''.join(_answered(body))}```"
        return block[0]

    return BLOCK.sub(run, page)


def _answered(body: str) -> Iterator[str]:
    for line in body.splitlines():
        if line.startswith("$ "):
            yield f"{line}\n{_output(line[2:])}"


def _output(command: str) -> str:
    name, *arguments = shlex.split(command)
    result = CliRunner().invoke(app, arguments)
    if name != "looktwice" or result.exit_code not in FINISHED:
        raise SystemExit(f"{command}: exit code {result.exit_code}\n{result.stderr}")
    return (result.stdout or result.stderr).replace(os.getcwd(), "/data")


def main() -> int:
    """Rewrite the pages, or compare them. In float32, so that every machine prints nearly the same."""
    os.environ["LOOKTWICE_DTYPE"] = "float32"
    stale = []
    for names in PLACES:
        pages = {name: (ROOT / name).read_text(encoding="utf-8") for name in names}
        with tempfile.TemporaryDirectory() as folder:
            made = filled(pages, make_place(Path(folder) / "place"))
            if "--demo" in sys.argv and "README.md" in made:
                made["README.md"] = with_demo(made["README.md"], Path(folder))
        stale += [name for name in names if masked(made[name]) != masked(pages[name])]
        if "--check" not in sys.argv:
            for name, page in made.items():
                (ROOT / name).write_text(page, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"{', '.join(stale)}: not what the commands print; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
