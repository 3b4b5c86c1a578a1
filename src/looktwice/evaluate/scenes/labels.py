"""Label composed scenes from the placed drawings, never by guessing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from looktwice.evaluate.groups import JUNK, by_pair_value
from looktwice.evaluate.scenes.cutouts import Cutout
from looktwice.evaluate.trec import Qrels

VISIBLE = 0.35
EDGES = {"size": (0.0, 0.4, 0.5, 0.6), "clutter": (0.0, 1.0, 3.0, 5.0), "covered": (0.0, 0.01, 0.25)}
"""Edges of the groups.

Size is the longer side as a share of the frame's, clutter the number of other drawings, covered a share of the drawing.
"""

Shows: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class PlacedDrawing:
    """One drawing in one scene."""

    scene: str
    scale: float
    visible: float
    others: int


class Account:
    """The contents of all scenes, by drawing."""

    def __init__(self, scenes: Mapping[str, Shows], cutouts: Iterable[Cutout]) -> None:
        self.sights: dict[str, list[PlacedDrawing]] = defaultdict(list)
        for scene, shows in scenes.items():
            for one in shows:
                self.sights[one["id"]].append(PlacedDrawing(scene, one["scale"], one["visible"], len(shows) - 1))
        self._cutouts = list(cutouts)

    def same(self, cutout: Cutout, words: bool) -> list[PlacedDrawing]:
        """Return the most visible sight per scene of the drawing, or with `words` of any drawing of its label."""
        names = [c.id for c in self._cutouts if c.label == cutout.label] if words else [cutout.id]
        best: dict[str, PlacedDrawing] = {}
        for sight in (sight for name in names for sight in self.sights.get(name, ())):
            known = best.get(sight.scene)
            best[sight.scene] = sight if known is None or sight.visible > known.visible else known
        return [*best.values()]

    def labels(self, cutout: Cutout, words: bool) -> dict[str, int]:
        """Return 1 for scenes that show enough of it, JUNK for too little and, with `words`, for others of its kind."""
        kin = [c.id for c in self._cutouts if words and c.group == cutout.group and c.label != cutout.label]
        junk = {sight.scene: JUNK for name in kin for sight in self.sights.get(name, ())}
        return junk | {s.scene: 1 if s.visible >= VISIBLE else JUNK for s in self.same(cutout, words)}

    def by_others(self, cutout: Cutout) -> dict[str, int]:
        """Return labels for scenes that show the thing as another artist drew it; the drawing itself is junk."""
        others = [c for c in self._cutouts if c.label and c.label == cutout.label and c.id != cutout.id]
        kin = [c.id for c in self._cutouts if c.group == cutout.group and c.label != cutout.label]
        labels = {sight.scene: JUNK for name in (*kin, cutout.id) for sight in self.sights.get(name, ())}
        sights = [sight for other in others for sight in self.sights.get(other.id, ())]
        enough = {sight.scene for sight in sights if sight.visible >= VISIBLE}
        return labels | {sight.scene: 1 if sight.scene in enough else JUNK for sight in sights}

    def groups(self, qrels: Qrels, asked: Mapping[str, tuple[Cutout, bool]]) -> dict[str, Qrels]:
        """Split the labels by size, clutter and occlusion of the target drawing."""
        groups: dict[str, Qrels] = {}
        sights = {query: self.same(*what) for query, what in asked.items()}
        for axis, edges in EDGES.items():
            values = {query: {s.scene: _value(s, axis) for s in found} for query, found in sights.items()}
            groups |= by_pair_value(qrels, values, edges, axis)
        return groups


def _value(sight: PlacedDrawing, axis: str) -> float:
    return {"size": sight.scale, "clutter": float(sight.others), "covered": max(0.0, 1.0 - sight.visible)}[axis]
