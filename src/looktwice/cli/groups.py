"""Groups of options: each is a dataclass of annotated fields that a verb takes as one parameter.

In --help every group has a section of its own; the first line of the dataclass's docstring is its heading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import wraps
from inspect import Parameter, Signature, getdoc, signature
from typing import Any, TypeVar, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand

R = TypeVar("R")
WIDEST = 30
"""Most columns of --help for the names of options; a longer name has a line of its own."""


class CommandLine(typer.Typer):
    """A typer app whose verbs are `Verb`s."""

    def command(self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **options: Any) -> Any:
        """Register a verb."""
        return super().command(name, cls=cls or Verb, **options)


class Verb(TyperCommand):
    """A verb whose --help has a section for each group of options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections in the order of their first options."""
        headings = getattr(self.callback, "__headings__", {})
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (row := parameter.get_help_record(ctx)) is not None:
                argument = isinstance(parameter, TyperArgument)
                heading = "Arguments" if argument else headings.get(parameter.name, "Options")
                sections.setdefault(heading, []).append(row)
        width = min(WIDEST, max(len(name) for rows in sections.values() for name, _ in rows))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])


def grouped(verb: Callable[..., R]) -> Callable[..., R]:
    """Return `verb` with every dataclass parameter expanded into one parameter per field.

    typer reads the expanded signature; the verb gets the instance back. A default instance gives the fields' defaults
    for this verb.
    """
    own = signature(verb, eval_str=True).parameters.values()
    groups: dict[str, Any] = {one.name: one.annotation for one in own if is_dataclass(one.annotation)}
    shown = [one for parameter in own for one in _expanded(parameter)]

    @wraps(verb)
    def run(**given: Any) -> R:
        for name, group in groups.items():
            given[name] = group(**{option: given.pop(option) for option in names(group)})
        return verb(**given)

    run.__signature__ = Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    run.__headings__ = {  # type: ignore[attr-defined]
        option: (getdoc(part) or "").split("\n")[0].rstrip(".")
        for group in groups.values()
        for part in _parts(group)
        for option in part.__annotations__
    }
    return run


def names(*groups: type) -> tuple[str, ...]:
    """Return the names of the parameters that groups of options expand to."""
    return tuple(name for group in groups for part in _parts(group) for name in part.__annotations__)


def _parts(group: type) -> list[type]:
    """Return a group and those that it inherits: their options come after its own, in sections of their own."""
    return [part for part in group.__mro__ if is_dataclass(part)]


def _expanded(parameter: Parameter) -> Iterator[Parameter]:
    group = parameter.annotation
    if not is_dataclass(group):
        yield parameter.replace(kind=Parameter.KEYWORD_ONLY)
        return
    source = group if parameter.default is Parameter.empty else parameter.default
    hints = get_type_hints(group, include_extras=True)
    for name in names(parameter.annotation):
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(source, name), annotation=hints[name])
