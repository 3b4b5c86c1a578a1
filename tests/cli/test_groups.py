"""Groups of options: expanded into parameters for typer, handed over as one instance."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from typing import Annotated

import typer
from typer.testing import CliRunner

from looktwice.cli.groups import CommandLine, grouped, names


@dataclass(frozen=True)
class Frame:
    """Frame around it."""

    border: Annotated[int, typer.Option(help="How thick.")] = 0


@dataclass(frozen=True)
class Size(Frame):
    """Size of the sheet."""

    width: Annotated[int, typer.Option(help="How wide.")] = 4
    height: Annotated[int, typer.Option("--high")] = 3


@grouped
def paint(name: str, *, size: Size = Size(height=9)) -> None:
    """Paint."""
    typer.echo(f"{name} {size.width}x{size.height}+{size.border}")


def test_a_verb_gets_an_instance_made_of_the_options_given() -> None:
    app = typer.Typer()
    app.command()(paint)
    run = CliRunner().invoke
    assert run(app, ["a"]).stdout == "a 4x9+0\n", "the verb's own default instance"
    assert run(app, ["a", "--width", "5", "--high", "6", "--border", "1"]).stdout == "a 5x6+1\n"
    shown = run(app, ["--help"]).stdout
    assert "How wide." in shown and "Paint." in shown and "--size" not in shown


def test_the_signature_lists_fields_in_the_place_of_the_group() -> None:
    assert list(signature(paint).parameters) == ["name", "width", "height", "border"]
    assert names(Size) == ("width", "height", "border")


def test_help_has_a_section_for_each_group() -> None:
    app = CommandLine(rich_markup_mode=None)
    app.command()(paint)
    lines = CliRunner().invoke(app, ["--help"]).stdout.splitlines()
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Arguments:", "Size of the sheet:", "Frame around it:", "Options:"]
    starts = {line.index(what) for line in lines for what in ("How wide.", "How thick.") if what in line}
    assert len(starts) == 1, "the sections stand in the same columns"
