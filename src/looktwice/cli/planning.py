"""Options of `looktwice estimate` for a table in a bucket, and the rows that it prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli.console import size
from looktwice.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from looktwice.estimate.cost import Estimate
    from looktwice.estimate.plan import StoragePlan


@dataclass(frozen=True)
class Planning:
    """Machines and prices of the plan."""

    dim: Annotated[int, typer.Option(min=1, help="Numbers in a vector of the encoder.")] = 512
    gpus: Annotated[int, typer.Option(min=1, help="Devices that encode at once.")] = 1
    cores: Annotated[int, typer.Option(min=1, help="Cores that build the index.")] = 8
    images_per_second: Annotated[float, typer.Option(help="Images that one device encodes a second.")] = 1000.0
    searches: Annotated[str, typer.Option(help="Searches a month, such as 1e6.")] = "1e6"
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MONEY", help="A price: gigabyte_month, puts_1000, gets_1000, gpu_hour, core_hour."),
    ] = None

    def of(self, estimate: Estimate) -> StoragePlan:
        """Return the plan of a collection whose tokens were estimated."""
        from looktwice.estimate.plan import Machines, Prices, plan

        names = [one.name for one in fields(Prices)]
        prices = replace(Prices(), **dict(_price(text, names) for text in self.price or ()))
        have = Machines(self.gpus, self.cores, self.images_per_second, _positive("--searches", self.searches))
        size, hours = estimate.bytes_per_item, estimate.index_hours
        return plan(estimate.items, dim=self.dim, token_bytes=size, tower_hours=hours, machines=have, prices=prices)


def plan_rows(p: StoragePlan) -> Iterator[tuple[str, str]]:
    """Yield what the plan says, line by line."""
    yield "bytes in the bucket", f"{size(p.bytes['total'])}: {_listed(p.bytes, size)}"
    yield "memory of a searcher", size(p.searcher_bytes)
    yield "requests", f"{p.requests['writes']:,} writes, {p.requests['images_read']:,} reads of images"
    yield "hours", ", ".join(f"{name} {hours:,.3g}" for name, hours in p.hours.items())
    yield "money", ", ".join(f"{name.replace('_', ' ')} {money:,.2f}" for name, money in p.money.items())


def _listed(parts: dict[str, int], shown: Any) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in parts.items() if value and name != "total")


def _price(text: str, names: list[str]) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if name not in names:
        raise UnknownName("price", name, names)
    return name, _positive(f"--price {name}", value)


def _positive(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e18:
        raise UsageError(f"{option} must be a number, at least 0, not {text!r}.")
    return value
