"""Options of verbs that spread their work over a Ray cluster, and the plan that --dry-run prints."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from looktwice.cli.console import emit, note, table
from looktwice.cli.options import refuse_unused
from looktwice.errors import UsageError

if TYPE_CHECKING:
    from looktwice.models.cluster import Cluster


@dataclass(frozen=True)
class Distribution:
    """The cluster that a verb uses."""

    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|ADDRESS",
            help="Spread the work over a Ray cluster; auto: the one that runs here, else workers on this machine.",
        ),
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")] = False

    @property
    def cluster(self) -> Cluster | None:
        """Connect to the cluster; None without --ray."""
        if self.ray is None:
            return None
        from looktwice.models.cluster import Cluster

        made = Cluster(self.ray)
        note(f"Ray cluster {self.ray}: {made.workers} workers")
        return made

    def for_queries(self, ctx: typer.Context, queries: Sized | None, table: str, json: bool) -> Cluster | None:
        """Connect for a file of queries; with --dry-run, print the plan and exit. Raises UsageError for one query."""
        if self.ray is not None and queries is None:
            raise UsageError("--ray spreads a file of queries; pass --queries FILE, or leave --ray out.")
        outside = self.ray is not None and self.ray.startswith("ray://")
        refuse_unused(ctx, ("score_cache",) if outside else (), "with --ray ray://…")
        cluster = self.cluster
        if self.dry_run:
            self.plan(cluster, {"table": table, "queries": 1 if queries is None else len(queries)}, json)
            raise typer.Exit()
        return cluster

    def plan(self, cluster: Cluster | None, what: Mapping[str, Any], json: bool) -> None:
        """Print what would be done."""
        rows = {**what, "workers": 1 if cluster is None else cluster.workers}
        if json:
            emit(rows)
        else:
            table(["", ""], [(name.replace("_", " "), str(value)) for name, value in rows.items()])
