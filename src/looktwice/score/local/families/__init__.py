"""Find the fast path's model family by the `model_type` of a configuration.

A family is a small table of differences; a new one is one module and one line here (see docs/guides/add-a-model.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from looktwice.score.local.families.base import Family

FAMILIES = {
    "idefics3": "looktwice.score.local.families.idefics3:Idefics3",
    "smolvlm": "looktwice.score.local.families.idefics3:Idefics3",
    "qwen2_vl": "looktwice.score.local.families.qwen:QwenVL",
    "qwen2_5_vl": "looktwice.score.local.families.qwen:QwenVL",
    "qwen3_vl": "looktwice.score.local.families.qwen:QwenVL",
    "qwen3_vl_moe": "looktwice.score.local.families.qwen:QwenVL",
    "qwen3_5": "looktwice.score.local.families.qwen:Qwen35",
    "qwen3_5_moe": "looktwice.score.local.families.qwen:Qwen35",
    "gemma3": "looktwice.score.local.families.gemma:Gemma3",
    "gemma4": "looktwice.score.local.families.gemma:Gemma4",
    "internvl": "looktwice.score.local.families.internvl:InternVL",
    "llava_onevision": "looktwice.score.local.families.llava_onevision:LlavaOnevision",
}


def find(config: Any, processor: Any) -> tuple[type[Family] | None, str | None]:
    """Return the family of a model with this configuration and processor, or None and why it has no fast path."""
    if config.model_type not in FAMILIES:
        return None, f"the family {config.model_type!r} is not one of {', '.join(FAMILIES)}"
    module, _, cls = FAMILIES[config.model_type].partition(":")
    found: type[Family] = getattr(importlib.import_module(module), cls)
    text_config = config.get_text_config()
    kinds = set(_layer_kinds(text_config)) - found.layer_kinds
    if kinds:
        return None, f"its language model has layers of the kind {', '.join(sorted(kinds))}"
    attention = getattr(text_config, "_attn_implementation", None) or "sdpa"
    if attention != "sdpa":
        return None, f"it was loaded with the attention {attention!r}, not 'sdpa'"
    why = found.refuses(config, processor)
    return (None, why) if why else (found, None)


def _layer_kinds(text_config: Any) -> Sequence[str]:
    """Return the kinds of the layers, in transformers' terms; older configurations give only a window."""
    if kinds := getattr(text_config, "layer_types", None):
        return tuple(kinds)
    return ("sliding_attention",) if getattr(text_config, "sliding_window", None) else ("full_attention",)
