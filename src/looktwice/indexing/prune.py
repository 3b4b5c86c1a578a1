"""Remove items that a complete scan did not meet, and delete outdated failures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from looktwice.indexing.failures import STAGES
from looktwice.indexing.writer import IndexWriter
from looktwice.sources import Scopes, display


def prune_gone(run: IndexWriter, *, delete: bool) -> None:
    """Count, and with `delete` remove, items in the scopes of the run's scans that it did not meet.

    Failures that it did not meet again are deleted too.
    """
    for scan in run.scans:
        run.ignored.update(scan.ignored)
    scopes = Scopes([scope for scan in run.scans for scope in scan.scopes])
    empty = Scopes([scope for scan in run.scans for scope in scan.empty])
    kept: Counter[str] = Counter()
    gone: dict[str, list[str]] = defaultdict(list)
    for row in run.table.rows(["id", "uri", "root"]):
        scope = scopes.find(row["root"], row["uri"])
        if scope is None:
            continue
        met = row["id"] in run.seen
        if run.hidden.covers(row["root"], row["uri"]):
            run.unseen.update(() if met or not delete else [display(scope.place)])
        elif met:
            kept[scope.place] += 1
        else:
            gone[(empty.find(row["root"], row["uri"]) or scope).place].append(row["id"])
    moved = _moved(run)
    run.count["gone"] = sum(map(len, gone.values())) + len(moved)
    if delete and moved:
        run.count["pruned"] += run.table.delete(moved, remember=False)
    for place, ids in gone.items() if delete else ():
        if kept[place]:
            run.count["pruned"] += run.table.delete(ids, remember=False)
        else:
            run.withheld.append(display(place))
    _forget_failures(run, scopes)


def _moved(run: IndexWriter) -> list[str]:
    """Return the ids of items of vanished folders that this run met in a folder of later runs: same path, same bytes.

    Such an id names the old folder (see `naming.apart`), so that the item in the new one has got an id of its own.
    """
    order = {root: place for place, root in enumerate(run.table.manifest.roots)}
    gone = {root for root in order if root.endswith("/") and not run.roots.exists(root)}
    columns = ["id", "uri", "root", "sha256"]
    lost: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in run.table.rows(columns) if gone else ():
        if row["root"] in gone and "~" in row["id"]:
            lost[_file(row)].append(row)
    met = (row for row in run.table.rows(columns) if row["id"] in run.seen) if lost else ()
    found = {
        old["id"] for row in met for old in lost.get(_file(row), ()) if order.get(row["root"], 0) > order[old["root"]]
    }
    return sorted(found)


def _file(row: Mapping[str, str]) -> tuple[str, str]:
    """Return an item's path below its folder, and the hash of its bytes."""
    return row["uri"].removeprefix(row["root"]), row["sha256"]


def _forget_failures(run: IndexWriter, scopes: Scopes) -> None:
    """Delete failures that this run should have met again and did not; a list with one bad line counts as read."""
    old = [
        entry
        for entry in run.table.ledger
        if entry.at != run.started
        and entry not in run.failures
        and entry.stage in STAGES
        and not run.torn.covers(entry.root, entry.uri)
        and (scopes.accounts_for(entry.root, entry.uri) or not run.roots.exists(entry.root))
    ]
    for stage in {entry.stage for entry in old}:  # another stage of the same place may have failed in this run
        run.table.ledger.clear([entry.uri for entry in old if entry.stage == stage], [stage])
