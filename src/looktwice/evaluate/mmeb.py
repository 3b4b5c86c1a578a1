"""List MMEB's 36 data sets and average their scores in the two published ways. This module knows names and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from looktwice.errors import UnknownName, UsageError

GROUPS: dict[str, tuple[str, ...]] = {
    "Classification": (
        "ImageNet-1K", "N24News", "HatefulMemes", "VOC2007", "SUN397",
        "Place365", "ImageNet-A", "ImageNet-R", "ObjectNet", "Country211",
    ),
    "VQA": (
        "OK-VQA", "A-OKVQA", "DocVQA", "InfographicsVQA", "ChartQA", "Visual7W",
        "ScienceQA", "VizWiz", "GQA", "TextVQA",
    ),
    "Retrieval": (
        "VisDial", "CIRR", "VisualNews_t2i", "VisualNews_i2t", "MSCOCO_t2i", "MSCOCO_i2t", "NIGHTS", "WebQA",
        "FashionIQ", "Wiki-SS-NQ", "OVEN", "EDIS",
    ),
    "Grounding": ("MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"),
}  # fmt: skip
"""Data sets by kind of task (VLM2Vec, ICLR 2025, table 1)."""

OUT_OF_DISTRIBUTION = frozenset(
    {
        "Place365", "ImageNet-A", "ImageNet-R", "ObjectNet", "Country211", "ScienceQA", "VizWiz", "GQA", "TextVQA",
        "FashionIQ", "Wiki-SS-NQ", "OVEN", "EDIS", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing",
    }
)  # fmt: skip
"""The 16 data sets that VLM2Vec was not trained on; the other 20 are called in-distribution."""

NAMES = tuple(name for names in GROUPS.values() for name in names)


def averages(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of each group, of IND and OOD, and both overall means of per-data-set P@1.

    `overall by data set` is the mean of the 36 scores; `overall by group` is the mean of the four group means, which
    gives a grounding set three times the weight of a retrieval set. Tables print either as "Overall". Raises
    UnknownName for a data set that MMEB does not have, UsageError if one is missing, as averages are then incomparable.
    """
    for name in scores:
        if name not in NAMES:
            raise UnknownName("MMEB data set", name, NAMES)
    if missing := [name for name in NAMES if name not in scores]:
        raise UsageError(f"MMEB's averages need all 36 data sets; add the missing ones: {', '.join(missing)}.")
    groups = {group: fmean(scores[name] for name in names) for group, names in GROUPS.items()}
    return {
        **groups,
        "IND": fmean(value for name, value in scores.items() if name not in OUT_OF_DISTRIBUTION),
        "OOD": fmean(value for name, value in scores.items() if name in OUT_OF_DISTRIBUTION),
        "overall by data set": fmean(scores.values()),
        "overall by group": fmean(groups.values()),
    }
