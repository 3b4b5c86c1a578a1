"""Print the results of `looktwice eval`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looktwice.cli.console import note, number, plural, say, size, table


def tell(record: Mapping[str, Any]) -> None:
    """Print the figures: one line per system, losses by stage, groups."""
    names = record["dataset"]["measures"]
    head = ["ranking", *(f">{name}" for name in names), ">pairs/query", ">s/query", ">pairs/s", ">bytes/item"]
    for title, rows in ((record["dataset"]["name"], record["systems"]), ("other settings", record["sweep"])):
        if rows:
            table(head, [_cells(row, names) for row in rows], title=f"{title} · {rows[0]['queries']:,} queries")
    if "loss" in record:
        _tell_loss(record["loss"], record["second_look"], record["systems"][-1]["system"])
    for other in record.get("also", ()):
        _tell_other(other, record["systems"][-1]["system"])
    if record["tuning"]:
        tuned = record["tuning"]
        say(
            f"λ = {tuned['fusion']} was chosen on {tuned['queries']:,} queries ({tuned['rule']}) that are not reported."
        )
    if record["groups"]:
        _tell_groups(record["groups"], names[0], [row["system"] for row in record["systems"]])
    if "confidence" in record:
        _tell_confidence(record["confidence"])


def _tell_confidence(found: Mapping[str, Mapping[str, float]]) -> None:
    names = list(next(iter(found.values())))
    rows = [[system, *(number(values[name]) for name in names)] for system, values in found.items()]
    table(["ranking", *(f">{name}" for name in names)], rows, title="first answers by confidence")


def _tell_loss(loss: Mapping[str, float], second: Mapping[str, Any], name: str) -> None:
    change = second["difference"]
    say(
        f"{loss['measure']}: best possible {number(loss['best_possible'])} · lost by the shortlist "
        f"{number(loss['lost_by_the_shortlist'])} · lost by the {name} {number(loss['lost_by_the_second_look'])}"
    )
    say(
        f"The {name} changed it by {change['mean']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}], p-value "
        f"{second['p']:.4f}: {second['helped']:,} queries gained, {second['hurt']:,} lost, {second['same']:,} stayed."
    )
    if second["hurt_queries"]:
        worst = ", ".join(f"{query} ({change:+.2f})" for query, change in second["hurt_queries"][:5])
        say(f"Lost most: {worst}")


def _tell_other(other: Mapping[str, Any], second: str) -> None:
    for against, name in (("against_shortlist", "shortlist"), ("against_second_look", second)):
        found = other[against]
        change, queries = found["difference"], found["helped"] + found["hurt"] + found["same"]
        say(
            f"{other['system']} against the {name}: {other['measure']} {change['mean']:+.3f} [{change['low']:+.3f}, "
            f"{change['high']:+.3f}], p-value {found['p']:.4f}: {found['helped'] / queries:.0%} of queries gained, "
            f"{found['hurt'] / queries:.0%} lost."
        )


def _tell_groups(groups: Mapping[str, Any], measure: str, systems: list[str]) -> None:
    rows = [[name, group["queries"], *(interval(group[s][measure]) for s in systems)] for name, group in groups.items()]
    table(["group", ">queries", *(f">{system}" for system in systems)], rows, title=measure)


def _cells(row: Mapping[str, Any], names: list[str]) -> list[object]:
    rate = number(row["pairs_per_second"], 1)
    cost = [number(row["pairs_per_query"], 0), number(row["seconds_per_query"]), rate, size(row["bytes_per_item"])]
    return [row["system"], *(interval(row["measures"][name]) for name in names), *cost]


def tell_problems(record: Mapping[str, Any]) -> None:
    """Print notes on skipped queries and items, and on those that count as 0."""
    found = record["problems"]
    for key, what in (
        ("queries_without_relevant_items", "queries have no relevant items and are skipped"),
        ("queries_without_an_answer", "queries have no answer and count as 0"),
        ("relevant_items_outside_the_table", "relevant items are not in the table; index them to make them findable"),
        ("pairs_without_a_score", "pairs got no score and rank below the others"),
        ("groups_without_relevant_items", "groups have no relevant items and are skipped"),
    ):
        if found[key]:
            note(f"{found[key]:,} {what}.")
    for query, why in list(record["unreadable_queries"].items())[:5]:
        note(f"Query {query} cannot be read: {why}")
    if record["unreadable_items"]:
        note(f"{plural(record['unreadable_items'], 'item')} could not be indexed; list them with: looktwice ledger")


def interval(found: Mapping[str, float]) -> str:
    """Format a mean with its interval."""
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
