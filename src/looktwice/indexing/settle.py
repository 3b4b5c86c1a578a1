"""The end of a complete scan: what is gone, and failures that are no more."""

from __future__ import annotations

from collections import Counter, defaultdict

from looktwice.indexing.failures import STAGES
from looktwice.indexing.run import Run
from looktwice.sources import Scan, Scopes, display


def settle(run: Run, scan: Scan, prune: bool) -> None:
    """Count, and with `prune` delete, items that this scan accounts for and did not meet; forget their failures too."""
    run.ignored = scan.ignored
    scopes, empty = Scopes(scan.scopes), Scopes(scan.empty)
    kept: Counter[str] = Counter()
    gone: dict[str, list[str]] = defaultdict(list)
    for row in run.table.rows(["id", "uri", "root"]):
        scope = scopes.find(row["root"], row["uri"])
        if scope is None:
            continue
        met = row["id"] in run.seen
        if run.hidden.covers(row["root"], row["uri"]):
            run.unseen.update(() if met or not prune else [display(scope.place)])
        elif met:
            kept[scope.place] += 1
        else:
            gone[(empty.find(row["root"], row["uri"]) or scope).place].append(row["id"])
    run.count["gone"] = sum(map(len, gone.values()))
    for place, ids in gone.items() if prune else ():
        if kept[place]:
            run.count["pruned"] += run.table.delete(ids)
        else:
            run.withheld.append(display(place))
    _forget_failures(run, scopes)


def _forget_failures(run: Run, scopes: Scopes) -> None:
    """Forget what this run did not meet again where it should have: a list with a bad line was read all the same."""
    old = [
        entry.uri
        for entry in run.table.ledger
        if entry.at != run.started
        and entry not in run.failures
        and entry.stage in STAGES
        and not run.torn.covers(entry.root, entry.uri)
        and (scopes.accounts_for(entry.root, entry.uri) or not run.still_there(entry.root))
    ]
    run.table.ledger.clear(old, STAGES)
