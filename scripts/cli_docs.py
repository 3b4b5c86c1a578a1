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
HEAD = """# The command line

Made from `--help` by `make docs`; a test holds it to that.

Answers go to stdout: a table for people, JSON Lines with `--json`. Progress, notes and warnings go to stderr.
`--debug` (anywhere) shows the traceback of an error.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | an error that is ours, the disk's or a model's |
| 2 | the call is wrong, or what it asks for is refused |
| 3 | finished, but some items failed: the ledger or the notes say which |
| 130 | interrupted; it says so where the same command goes on from there |

A bare query that names a file is a picture; one that looks like a path but names none is refused; all else is words.
It looks like a path where it ends like a picture (`.jpg`, `.png`, …), or has no white space and holds a `/`, begins
with `~`, or ends in a file suffix. `--image` and `--text` say which.

`looktwice --install-completion` teaches your shell (bash, zsh, fish, PowerShell) to complete verbs and options.
"""


def page() -> str:
    """The whole page."""
    from looktwice.cli.main import verbs

    parts = [HEAD, _help([])]
    parts += [_help([name]) for name in verbs()]
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
