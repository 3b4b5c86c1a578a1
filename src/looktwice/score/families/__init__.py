"""Model families that the fast path knows, by the `model_type` of their configuration.

A family is a small table of differences; a new one is one module and one line here (see docs/add-a-model.md).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from looktwice.score.families.base import Family

FAMILIES = {
    "idefics3": "looktwice.score.families.idefics3:Idefics3",
    "smolvlm": "looktwice.score.families.idefics3:Idefics3",
    "qwen2_5_vl": "looktwice.score.families.qwen:QwenVL",
    "qwen3_vl": "looktwice.score.families.qwen:QwenVL",
    "internvl": "looktwice.score.families.internvl:InternVL",
    "llava_onevision": "looktwice.score.families.llava_onevision:LlavaOnevision",
}


def find(config: Any) -> type[Family] | None:
    """The family of a model's configuration, or None where it must take the reference path."""
    name = FAMILIES.get(config.model_type)
    if name is None or why_not(config):
        return None
    module, _, cls = name.partition(":")
    found: type[Family] = getattr(importlib.import_module(module), cls)
    return found


def why_not(config: Any) -> str | None:
    """Why a model cannot take the fast path, in words, or None."""
    if config.model_type not in FAMILIES:
        return f"the family {config.model_type!r} is not one of {', '.join(FAMILIES)}"
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"its language model has layers of the kind {', '.join(sorted(kinds - {'full_attention'}))}"
    return None
