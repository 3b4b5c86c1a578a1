"""Refuse options that were given but would have no effect: a command ignores nothing in silence.

Only what stands on the command line counts. The values of a preset and defaults are never refused.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import typer

from looktwice.cli.groups import names
from looktwice.cli.server_options import Servers
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.search.retriever import Retriever
    from looktwice.store import TableReader
    from looktwice.types import Item

MIDDLE = ("maxsim_codec", "zoom", "crops")
"""Parameters that only a middle look uses. --shown both has a refusal of its own."""
TOKENS = ("missing_tokens", "asymmetric")
"""Parameters that only a second look at stored tokens uses."""
SERVERS = names(Servers)
"""Parameters that only a model on a server uses."""


def refuse_unused(ctx: typer.Context, unused: Collection[str], where: str, fix: str = "leave it out") -> None:
    """Raise UsageError for a given option that would have no effect. `fix` says what to do."""
    for option in ctx.command.params:
        if option.name in unused and is_given(ctx, option.name):
            raise UsageError(f"{option.opts[0]} has no effect {where}; {fix}.")


def is_given(ctx: typer.Context, name: str) -> bool:
    """Return whether a parameter stands on the command line; the value of a preset does not."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_servers(ctx: typer.Context) -> None:
    """Raise UsageError for a given option of servers if no model of the command is on one."""
    models = [ctx.params["mllm"], *(ctx.params.get("also") or ())]
    if not any("://" in name for name in models):
        fix = "leave it out, or name a server: --mllm http://HOST:PORT/v1#MODEL"
        refuse_unused(ctx, SERVERS, f"on the local model {models[0]}", fix)


def refuse_middle(ctx: typer.Context, depth: int | None) -> None:
    """Raise UsageError for a given option of a middle look if there is none: its `depth` is 0 or None."""
    if not depth:
        refuse_unused(ctx, MIDDLE, "without a middle look", "add --maxsim 1000, or leave it out")


def refuse_tokens(ctx: typer.Context, table: TableReader, codec: str) -> None:
    """Raise UsageError for a given option of stored tokens if the second look reads images: by `codec`, or for want of
    tokens in the table.
    """
    from looktwice.search.token_choice import IMAGES
    from looktwice.token_index.sets import lacking, shown_codecs

    if codec == IMAGES:
        refuse_unused(ctx, TOKENS, "with --codec images")
    elif not shown_codecs(table):
        has, command = lacking(table)
        fix = f"leave it out, or store some with: {command}"
        refuse_unused(ctx, TOKENS, f"on {table.path}, which {has} visual tokens for the second look", fix)


def refuse_looks(ctx: typer.Context, opened: Retriever) -> None:
    """Raise UsageError for given options of a middle look or of stored tokens that a search does not use."""
    refuse_middle(ctx, opened.config.maxsim)
    if opened.config.budget.first_pass is None:  # a cascade reads tokens whatever --codec says
        refuse_tokens(ctx, opened.table, opened.loader.codec)


def refuse_examples(ctx: typer.Context, positive: int) -> None:
    """Raise UsageError for a given --examples if the query has fewer than two of them."""
    if positive < 2:
        refuse_unused(ctx, ("examples",), "on one example", "add another with --like, or leave it out")


def refuse_query(ctx: typer.Context, query: Item | None) -> None:
    """Raise UsageError for given options that do not apply to a query; None stands for a file of queries."""
    from looktwice.search.examples import positives
    from looktwice.search.hubness import is_text

    if query is None:
        refuse_unused(ctx, ("examples",), "with --queries, each of which is one example")
        return
    refuse_examples(ctx, len(positives(query)))
    if not is_text(query) and ctx.params["hubness"] != "off":
        refuse_unused(ctx, ("hubness",), "on this query, as its bank is for a text without an image or examples")
