"""`looktwice eval`: run a benchmark, compare runs, or measure how both looks stand up to damaged images."""

from __future__ import annotations

import typer

from looktwice.cli.eval.compare import compare
from looktwice.cli.eval.robustness import robustness
from looktwice.cli.eval.run import run


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    verbs = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    verbs.command("run", short_help="Run a benchmark, or measure a table of your own.")(run)
    verbs.command("compare", short_help="Measure one run, or compare two.")(compare)
    verbs.command("robustness", short_help="Measure both looks on damaged images.")(robustness)
    app.add_typer(
        verbs,
        name="eval",
        help="Measure rankings against labels: benchmarks, runs that are there already, damaged images.",
        short_help="Run a benchmark, compare runs, damage images.",
    )
