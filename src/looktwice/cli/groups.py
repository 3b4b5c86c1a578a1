"""Groups of options: each is a dataclass of annotated fields that a verb takes as one parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar, get_type_hints

R = TypeVar("R")


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
    return run


def names(*groups: type) -> tuple[str, ...]:
    """Return the names of the parameters that groups of options expand to."""
    return tuple(field.name for group in groups for field in fields(group))


def _expanded(parameter: Parameter) -> Iterator[Parameter]:
    group = parameter.annotation
    if not is_dataclass(group):
        yield parameter.replace(kind=Parameter.KEYWORD_ONLY)
        return
    source = group if parameter.default is Parameter.empty else parameter.default
    for name, annotation in get_type_hints(group, include_extras=True).items():
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(source, name), annotation=annotation)
