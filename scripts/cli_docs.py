"""Write docs/reference/cli.md from `looktwice --help`; with --check, say whether it is current (exit code 1 if not)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["COLUMNS"] = "100"
os.environ["TERM"] = "dumb"

from typer.testing import CliRunner

from looktwice.cli.main import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "cli.md"
HEAD = """# Command line

`make docs` writes this page from `--help`, and a test compares both.

Answers go to stdout: a table for people, or JSON Lines with `--json`. Progress, notes and warnings go to stderr.
Control characters in names of files are shown as escapes. `--debug` (anywhere) shows the traceback of an error.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | looktwice, the disk (perhaps full) or a model failed |
| 2 | the command is wrong, or its request is refused, as while another process writes to the table |
| 3 | finished, but some items failed, which the ledger or the notes name; or `duplicates` found some |
| 130 | interrupted; a note says so if the same command goes on from there |

A bare query that names a file is an image. A query that looks like a path but names no file is refused. Every other
query is a text. `--image` and `--text` say which of both it is. A query looks like a path if

- it ends like an image (`.jpg`, `.png`, …), or begins with `/`, `./`, `../` or `~/`;
- or it has no white space and holds a `/`, begins with `~`, or ends in a file suffix.

`looktwice --install-completion` teaches your shell (bash, zsh, fish, PowerShell) to complete verbs and options.
"""


def page() -> str:
    """The whole page."""
    from looktwice.cli.main import verbs

    parts = [HEAD, _help([])]
    parts += [_help(name.split()) for name in verbs()]
    return "\n".join(parts)


def _help(verb: list[str]) -> str:
    text = CliRunner().invoke(app, [*verb, "--help"], prog_name="looktwice").stdout.strip()
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## {' '.join(['looktwice', *verb])}\n\n```\n{lines}\n```\n"


def main() -> int:
    """Write the page, or compare it."""
    made = page()
    if "--check" not in sys.argv:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == made
    if not current:
        print("docs/reference/cli.md is not what --help says; run: make docs", file=sys.stderr)
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
