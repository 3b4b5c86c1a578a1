"""Remove items that a complete scan did not meet, and delete outdated failures."""

from __future__ import annotations

from collections import Counter, defaultdict

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
    run.count["gone"] = sum(map(len, gone.values()))
    for place, ids in gone.items() if delete else ():
        if kept[place]:
            run.count["pruned"] += run.table.delete(ids, remember=False)
        else:
            run.withheld.append(display(place))
    _forget_failures(run, scopes)


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
