"""`looktwice eval`: run a benchmark, compare runs, or measure both stages on damaged images."""

from __future__ import annotations

import typer

from looktwice.cli.eval.compare import compare
from looktwice.cli.eval.robustness import robustness
from looktwice.cli.eval.run import run
from looktwice.cli.groups import CommandLine


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    verbs = CommandLine(no_args_is_help=True, rich_markup_mode=None)
    verbs.command("run", short_help="Run a benchmark, or measure your own table.")(run)
    verbs.command("compare", short_help="Measure one run, or compare two.")(compare)
    verbs.command("robustness", short_help="Measure both stages on damaged images.")(robustness)
    app.add_typer(
        verbs,
        name="eval",
        help="Measure rankings against labels: run a benchmark, compare run files, or test damaged images.",
        short_help="Run a benchmark, compare runs, test damaged images.",
    )
