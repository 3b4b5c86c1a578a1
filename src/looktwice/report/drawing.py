"""Compute the geometry of the report: threads between two rows of images, ticks, and the line of all queries.

This module knows coordinates only; the style sheet sets colours and widths. The browser stretches every drawing to its
box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from looktwice.report.views import ResultView

COLUMN = 100  # width of one column of images, in drawing units
HEIGHT = 60  # height of the band between the rows


@dataclass(frozen=True, slots=True)
class RankPath:
    """One candidate's way from the upper row to the lower: an SVG path and its CSS classes."""

    path: str
    kind: str


def threads(results: Sequence[ResultView], columns: int) -> list[RankPath]:
    """Return a thread for every candidate that is visible in at least one row, the most important last.

    The thread of a candidate that leaves or enters the visible columns runs to or from the right-hand edge. Later
    threads are drawn on top: relevant ones last, and among equals the ones that moved further.
    """
    visible = [r for r in results if min(r.before, r.after) <= columns]
    visible.sort(key=lambda r: (bool(r.relevant), abs(r.before - r.after), -r.after))
    return [RankPath(_path(r, columns), " ".join(_kinds(r, columns))) for r in visible]


def move(result: ResultView) -> str:
    """Return `up`, `down` or `same`."""
    if result.before == result.after:
        return "same"
    return "up" if result.after < result.before else "down"


def ticks(results: Sequence[ResultView], limit: int = 20) -> list[tuple[int, int]]:
    """Return (row, column) of every relevant candidate: row 0 the shortlist, row 1 the answer, columns from 0."""
    found = [(0, r.before - 1) for r in results if r.relevant] + [(1, r.after - 1) for r in results if r.relevant]
    return sorted(place for place in found if place[1] < limit)


def _path(result: ResultView, columns: int) -> str:
    edge, start, end = columns * COLUMN, (result.before - 0.5) * COLUMN, (result.after - 0.5) * COLUMN
    if result.before > columns:
        return f"M{edge} 18C{(edge + end) / 2:g} 18 {end:g} 18 {end:g} {HEIGHT}"
    if result.after > columns:
        return f"M{start:g} 0C{start:g} {HEIGHT - 18} {(edge + start) / 2:g} {HEIGHT - 18} {edge} {HEIGHT - 18}"
    return f"M{start:g} 0C{start:g} {HEIGHT // 2} {end:g} {HEIGHT // 2} {end:g} {HEIGHT}"


def _kinds(result: ResultView, columns: int) -> list[str]:
    label = {True: "relevant", False: "other", None: "unlabelled"}[result.relevant]
    return [label, move(result), *(["out"] if max(result.before, result.after) > columns else [])]
