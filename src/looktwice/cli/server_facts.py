"""`looktwice models --probe URL`: print what a server can do, and what pairs would take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from looktwice.cli.console import emit, table
from looktwice.cli.server_options import ApiKeyFile, Price
from looktwice.errors import UsageError

MEANINGS = {
    "model": "model",
    "engine": "engine",
    "context": "longest prompt in tokens",
    "reading": "p is read from",
    "temperature": "temperature of requests",
    "order_kept": "the order of the items matters",
    "self_pair_first": "an identical pair scores highest",
    "prompt_tokens": "tokens of a small pair",
    "largest_image": "largest image taken",
    "cache_block": "tokens per block of the prefix cache",
}


@dataclass(frozen=True)
class Probing:
    """A server to probe (--probe)."""

    probe: Annotated[
        str | None,
        typer.Option(help="Ask a server what it can do, such as http://HOST:PORT/v1#MODEL.", show_default=False),
    ] = None
    pairs: Annotated[int, typer.Option(min=1, help="With --probe: estimate the tokens of this many pairs.")] = 1000
    api_key_file: ApiKeyFile = None
    price: Price = None

    def show(self, json: bool) -> None:
        """Probe the servers of a name and print the facts. Raises what loading a scorer raises."""
        from looktwice.score import load_scorer
        from looktwice.score.remote.config import RemoteConfig
        from looktwice.score.remote.scorer import RemoteScorer

        remote = RemoteConfig(key_file=self.api_key_file, price=self.price)
        scorer = load_scorer(self.probe or "", remote=remote)
        if not isinstance(scorer, RemoteScorer):
            raise UsageError(f"{self.probe!r} is not the address of a server; write it as http://HOST:PORT/v1#MODEL.")
        estimate = scorer.spending.estimate(self.pairs)
        cost = {} if estimate is None else {"pairs": self.pairs, "tokens": estimate[0], "cost": estimate[1]}
        for facts in scorer.probe():
            if json:
                emit({**facts, **cost})
            else:
                table(["server", str(facts["server"])], list(_rows(facts, cost)))


def _rows(facts: Mapping[str, Any], cost: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, what in MEANINGS.items():
        if name in facts:
            yield what, _shown(facts[name])
    if cost:
        money = "" if cost["cost"] is None else f", {cost['cost']:.4g} of money"
        yield f"{cost['pairs']:,} such pairs", f"{cost['tokens']:,} tokens{money}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
