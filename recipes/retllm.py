"""What RetLLM's recipes share (arXiv 2602.22278): its data sets, and its system as the paper and as the code has it."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from common import Column, parser

SETS = (("Flickr30K", "flickr30k"), ("COCO", "coco"), ("ShareGPT4V", "sharegpt4v"), ("Urban1K", "urban1k"))
AS: Mapping[str, dict[str, Any]] = {
    "paper": {"look": {"score_mode": "written", "retrace": "paper"}, "ties": "paper"},
    "released": {
        "look": {"score_mode": "p-true", "prompt": "match", "retrace": "released-code"},
        "listwise": {"score_mode": "choice"},
        "ties": "released-code",
    },
    "ours": {"look": {"retrace": "causal"}, "ties": "repaired"},
}


def options(doc: str | None, **defaults: Any) -> ArgumentParser:
    """Options of every RetLLM recipe, with the paper's models and depth."""
    given = {"encoder": "clip-l@336", "mllm": "qwen2.5-vl-7b", "shortlist": 5, **defaults}
    made = parser(doc, **given)
    made.add_argument(
        "--as", dest="system", choices=AS, default="paper", help="the paper's system, its code's, or ours"
    )
    return made


def columns(*folders: str) -> list[Column]:
    """Both directions of the named data sets, each below --root in a folder of its name."""
    chosen = [(name, folder) for name, folder in SETS if not folders or folder in folders]
    ways = (("i→t", "i2t"), ("t→i", "t2i"))
    return [Column(f"{name} {arrow}", f"{folder}:{way}", folder) for name, folder in chosen for arrow, way in ways]
