"""Compute the cost of a language model's layers from the `text_config` of its config.json.

It covers dense layers, mixtures of experts, windows, gated delta nets, and Gemma 4's layers, which differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Config: TypeAlias = Mapping[str, Any]

# The configuration classes of transformers assume these where config.json says nothing (tests compare the two).
_LLAMA = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
_QWEN = {**_LLAMA, "intermediate_size": 22016, "vocab_size": 151_936, "num_key_value_heads": 32}
_NETS = {
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "num_attention_heads": 16, "head_dim": 256, "vocab_size": 248_320,
}  # fmt: skip
_GEMMA = {
    "hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
}  # fmt: skip
TEXT_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {**_LLAMA, "vocab_size": 32_000},
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "head_dim": 128},
    "qwen3_vl_text": {**_QWEN, "head_dim": 128},
    "qwen3_vl_moe_text": {
        "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "vocab_size": 151_936, "moe_intermediate_size": 1408, "num_experts": 60,
        "num_experts_per_tok": 4, "decoder_sparse_step": 1,
    },
    "qwen3_5_text": {
        **_NETS, "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 32, "num_key_value_heads": 4,
    },
    "qwen3_5_moe_text": {
        **_NETS, "hidden_size": 2048, "num_hidden_layers": 40, "num_key_value_heads": 2, "num_experts": 256,
        "num_experts_per_tok": 8, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
    },
    "gemma3_text": {**_GEMMA, "num_hidden_layers": 26, "vocab_size": 262_208, "sliding_window": 4096},
    "gemma4_text": {
        **_GEMMA, "num_hidden_layers": 30, "vocab_size": 262_144, "sliding_window": 512,
        "hidden_size_per_layer_input": 256,
    },
    "qwen2_5_vl_text": {
        "hidden_size": 8192, "intermediate_size": 29_568, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "vocab_size": 152_064,
    },
}  # fmt: skip
_PATTERNS = {"qwen3_5": ("linear_attention", 4), "gemma": ("sliding_attention", 6)}  # each nth layer sees all


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: `weights` of its matrices, `active` ones for one token, `cached` keys and values of a token.

    `width` of its attention (0: none) within `window` tokens (None: all); `state` FLOP of a recurrence per token.
    """

    weights: int
    active: int
    cached: int
    width: int
    window: int | None = None
    state: int = 0

    def attended(self, new: float, cached: float) -> float:
        """Return how many pairs of tokens attend to each other when `new` tokens follow `cached` ones."""
        if self.window is None:
            return new * cached + new * (new + 1) / 2
        growing = min(max(self.window - cached, 0), new)  # tokens whose window still reaches the beginning
        return growing * cached + growing * (growing + 1) / 2 + (new - growing) * self.window


def layers(kind: str, text: Config) -> tuple[Layer, ...]:
    """Return the layers of a language model of this `model_type`; `text` must have its defaults filled in."""
    count = int(text["num_hidden_layers"])
    return tuple(
        _layer(kind, text, at, mixer) for at, mixer in zip(range(count), _mixers(kind, text, count), strict=True)
    )


def _mixers(kind: str, text: Config, count: int) -> list[str]:
    """Return how each layer mixes tokens."""
    if text.get("layer_types"):
        return list(text["layer_types"])
    for prefix, (mixer, interval) in _PATTERNS.items():
        if kind.startswith(prefix):
            interval = int(text.get("sliding_window_pattern") or text.get("full_attention_interval") or interval)
            return [mixer if (at + 1) % interval else "full_attention" for at in range(count)]
    return ["full_attention"] * count


def _layer(kind: str, text: Config, at: int, mixer: str) -> Layer:
    if kind == "gemma4_text":
        return _gemma4(text, at, mixer)
    ffn, active = _feed_forward(text, at)
    if mixer == "linear_attention":
        weights, state = _delta_net(text)
        return Layer(weights + ffn, weights + active, 0, 0, None, state)
    heads, kv_heads, head = _heads(kind, text)
    queries = 2 if kind.startswith("qwen3_5") else 1  # its queries carry a gate of the same size
    attention = int(text["hidden_size"]) * head * ((queries + 1) * heads + 2 * kv_heads)
    window = int(text["sliding_window"]) if mixer == "sliding_attention" else None
    return Layer(attention + ffn, attention + active, 2 * kv_heads * head, heads * head, window)


def _heads(kind: str, text: Config) -> tuple[int, int, int]:
    heads = int(text["num_attention_heads"])
    by_heads = int(text["hidden_size"]) // heads
    own = kind != "qwen2_5_vl_text" and text.get("head_dim")
    return heads, int(text.get("num_key_value_heads", heads)), int(own or by_heads)


def _feed_forward(text: Config, at: int) -> tuple[int, int]:
    """Return all weights of a feed-forward layer, and those that one token goes through."""
    width, experts = int(text["hidden_size"]), int(text.get("num_local_experts") or text.get("num_experts") or 0)
    if not experts or at in (text.get("mlp_only_layers") or ()) or (at + 1) % int(text.get("decoder_sparse_step", 1)):
        dense = 3 * width * int(text["intermediate_size"])
        return dense, dense
    shared = int(text.get("shared_expert_intermediate_size") or 0)
    always = width * experts + 3 * width * shared + width * bool(shared)  # the router, the shared expert and its gate
    one = 3 * width * int(text["moe_intermediate_size"])
    return always + experts * one, always + int(text["num_experts_per_tok"]) * one


def _delta_net(text: Config) -> tuple[int, int]:
    """Return a gated delta net's weights, and the FLOP per token of its recurrence: fade and read, write, answer."""
    heads, value = int(text["linear_num_value_heads"]), int(text["linear_value_head_dim"])
    keys, key = int(text["linear_num_key_heads"]), int(text["linear_key_head_dim"])
    weights = int(text["hidden_size"]) * (2 * keys * key + 3 * heads * value + 2 * heads)
    return weights, 6 * heads * key * value


def _gemma4(text: Config, at: int, mixer: str) -> Layer:
    width, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    whole = mixer == "full_attention" or at + 1 == int(text["num_hidden_layers"])
    own = {int(key): value for key, value in (text.get("per_layer_config") or {}).items()}.get(at, {})
    head, kv_heads = int(text["head_dim"]), int(text["num_key_value_heads"])
    tied = whole and bool(text.get("attention_k_eq_v"))
    if whole:
        head = int(
            own.get("head_dim") or text.get("global_head_dim") or (head if text.get("per_layer_config") else 512)
        )
        more = own.get("num_key_value_heads") or text.get("num_global_key_value_heads")
        kv_heads = int(more) if tied and more else kv_heads
    reuses = at >= int(text["num_hidden_layers"]) - int(text.get("num_kv_shared_layers") or 0)
    attention = width * head * (2 * heads + (0 if reuses else kv_heads * (1 if tied else 2)))
    ffn = 3 * width * int(text["intermediate_size"]) * (2 if reuses and text.get("use_double_wide_mlp") else 1)
    # a projection into the layer's own embedding, a gate and the way back
    dense = attention + ffn + 3 * width * int(text.get("hidden_size_per_layer_input") or 0)
    weights = active = dense
    if text.get("enable_moe_block"):
        one, experts = 3 * width * int(text["moe_intermediate_size"]), int(text["num_experts"])
        weights, active = dense + experts * (width + one), dense + experts * width + int(text["top_k_experts"]) * one
    cached = 0 if reuses else 2 * kv_heads * head
    return Layer(weights, active, cached, heads * head, None if whole else int(text["sliding_window"]))
