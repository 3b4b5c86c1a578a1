"""Options of verbs that spread their work over a Ray cluster, and the plan that --dry-run prints."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.buckets import parse_address
from looktwice.cli.console import emit, note, plural, show_cost, table
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.models.cluster import Cluster


@dataclass(frozen=True)
class WorkerCost:
    """What workers cost since `begun`: hours and, with the `price` of an hour, money."""

    workers: int
    price: float | None
    begun: float = field(default_factory=time.monotonic)

    def in_progress(self, left: float | None) -> str:
        """Return the cost so far and, if the seconds that are `left` are known, at the end; "" without a price."""
        if self.price is None:
            return ""
        total = "" if left is None else f" of {self._money(left):.4g}"
        return f"cost {self._money():.4g}{total}"

    def in_all(self) -> str:
        """Return the line that ends the command."""
        seconds = time.monotonic() - self.begun
        money = "" if self.price is None else f"; at {self.price:g} each: {self._money():.4g}"
        return f"{plural(self.workers, 'worker')} for {seconds:,.0f} s: {self._hours():.3g} worker hours{money}"

    def _hours(self, left: float = 0) -> float:
        return self.workers * (time.monotonic() - self.begun + left) / 3600

    def _money(self, left: float = 0) -> float:
        return self._hours(left) * (self.price or 0)


@dataclass(frozen=True)
class Distribution:
    """Ray cluster."""

    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|ADDRESS",
            help="Spread the work over a Ray cluster; auto: the one that runs here, else workers on this machine.",
        ),
    ] = None
    worker_price: Annotated[
        float | None,
        typer.Option(help="With --ray: price of a worker's hour, for the cost in the progress and in the last line."),
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")] = False

    def connect(self, ctx: typer.Context) -> Cluster | None:
        """Connect to the cluster, and tell at the end of the command what it cost; None without --ray."""
        if self.ray is None:
            if self.worker_price is not None:
                raise UsageError("--worker-price is the price of a worker of --ray; pass both, or neither.")
            return None
        from looktwice.models.cluster import Cluster

        made = Cluster(self.ray)
        note(f"Ray cluster {self.ray}: {plural(made.workers, 'worker')}")
        if not self.dry_run:
            cost = WorkerCost(made.workers, self.worker_price)
            show_cost(cost.in_progress)
            ctx.call_on_close(partial(show_cost, None))
            ctx.call_on_close(lambda: note(cost.in_all()))
        return made

    def for_queries(self, ctx: typer.Context, queries: Sized | None, table: Path, json: bool) -> Cluster | None:
        """Connect for a file of queries; with --dry-run, print the plan and exit. Raises UsageError for one query."""
        if self.ray is not None and queries is None:
            raise UsageError("--ray spreads a file of queries; pass --queries FILE, or leave --ray out.")
        cluster = self.connect(ctx)
        if self.dry_run:
            asked = 1 if queries is None else len(queries)
            self.plan(cluster, {"table": str(parse_address(table) or table), "queries": asked}, json)
            raise typer.Exit()
        return cluster

    def plan(self, cluster: Cluster | None, what: Mapping[str, Any], json: bool) -> None:
        """Print what would be done."""
        workers = 1 if cluster is None else cluster.workers
        rows = {**what, "workers": workers}
        if self.worker_price is not None:
            rows["price_per_hour"] = workers * self.worker_price
        if json:
            emit(rows)
        else:
            table(["", ""], [(name.replace("_", " "), str(value)) for name, value in rows.items()])
