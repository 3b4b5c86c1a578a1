"""Refuse options that were given but would have no effect: a command ignores nothing in silence.

Only what stands on the command line counts. The values of a preset and defaults are never refused.
"""

from __future__ import annotations

from collections.abc import Collection

import typer

from looktwice.cli.groups import names
from looktwice.cli.server_options import Servers
from looktwice.errors import UsageError


def refuse_unused(ctx: typer.Context, unused: Collection[str], where: str, fix: str = "leave it out") -> None:
    """Raise UsageError for a given option that would have no effect. `fix` says what to do."""
    for option in ctx.command.params:
        if option.name in unused and is_given(ctx, option.name):
            raise UsageError(f"{option.opts[0]} has no effect {where}; {fix}.")


def is_given(ctx: typer.Context, name: str) -> bool:
    """Return whether a parameter stands on the command line; the value of a preset does not."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_servers(ctx: typer.Context, *models: str) -> None:
    """Raise UsageError for a given option of servers if none of the models, the first of them --mllm, is on one."""
    if not any("://" in name for name in models):
        fix = "leave it out, or name a server: --mllm http://HOST:PORT/v1#MODEL"
        refuse_unused(ctx, names(Servers), f"on the local model {models[0]}", fix)
