"""Choose how much goes through a model at once, and halve a batch that was too much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from looktwice.models import device

T = TypeVar("T")
R = TypeVar("R")

TOWER_NUMBERS = (3 << 24, 3 << 20)  # numbers in the pixels of one tower batch: GPU, CPU (about 21 images of 224 px)
BATCH_TOKENS = (1 << 15, 1 << 12)  # new tokens of one decoder batch: GPU, CPU; beyond these nothing gets faster


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes that a decoder batch needs at its peak, from the model's configuration.

    `own_masks`: every row has its own mask, because it depends on where the row's images stand.
    """

    per_token: int
    per_key: int
    per_row: int
    own_masks: bool = False

    @classmethod
    def of(cls, text_config: Any, itemsize: int) -> Cost:
        heads = int(text_config.num_attention_heads)
        kv_heads = int(getattr(text_config, "num_key_value_heads", None) or heads)
        head = _head(text_config, heads)
        token = 3 * _feed_forward(text_config) + 6 * int(text_config.hidden_size) + 3 * heads * head
        # keys and values of one layer: as cached, with the prefix in front, and repeated for grouped heads
        key = 2 * head * (2 * kv_heads + heads)
        net_token, net_row = _delta_net(text_config)
        row = int(text_config.vocab_size) * 4 * 8 + net_row
        own = "sliding_attention" in (getattr(text_config, "layer_types", None) or ())
        return cls(token * itemsize + net_token, key * itemsize, row, own)

    def rows(self, length: int, prefix: int, room: int, tokens: int) -> int:
        """Return how many rows of `length` new tokens after `prefix` shared ones fit, at least 1."""
        row = length * self.per_token + (prefix + length) * self.per_key + self.per_row
        mask = 5 * length * (prefix + length)
        wanted, fit = tokens // length, max(1, room // (row + 2 * mask) if self.own_masks else (room - mask) // row)
        if fit < wanted:  # a power of two, so that small changes of free memory do not change the batches
            wanted = 1 << (fit.bit_length() - 1)
        return max(1, wanted)


def _head(text_config: Any, heads: int) -> int:
    """Return the width of the widest head of any layer."""
    layers = getattr(text_config, "per_layer_config", None) or [text_config]
    return max(int(getattr(layer, "head_dim", None) or text_config.hidden_size // heads) for layer in layers)


def _feed_forward(text_config: Any) -> int:
    """Return the numbers between the two halves of a token's feed-forward layer, over all experts it is sent to."""
    names = ("num_experts_per_tok", "top_k_experts", "moe_intermediate_size", "hidden_size")
    first, second, expert, hidden = (int(getattr(text_config, name, None) or 0) for name in names)
    dense = int(getattr(text_config, "intermediate_size", None) or 0)
    shared = int(getattr(text_config, "shared_expert_intermediate_size", None) or 0)
    return dense + shared + (first + second) * (expert + hidden) * bool(expert)


def _delta_net(text_config: Any) -> tuple[int, int]:
    """Return bytes per token and per row of a gated delta-net layer, which computes in float32, 64 tokens at a time."""
    names = ("num_value_heads", "key_head_dim", "value_head_dim", "num_key_heads")
    heads, key, value, key_heads = (int(getattr(text_config, f"linear_{name}", None) or 0) for name in names)
    inputs = 4 * (2 * key_heads * key + heads * value)
    return 4 * (inputs + heads * (4 * key + 4 * value + 3 * 64)), 4 * 2 * heads * key * value


def plan(lengths: Sequence[int], rows_for: Callable[[int], int], waste: float = 0.15) -> list[list[int]]:
    """Group rows of these lengths into batches: longest first, no more than `rows_for(longest)` rows in a batch.

    A batch ends early if padding would exceed the share `waste` of its tokens. Every index occurs exactly once.
    """
    batches: list[list[int]] = []
    longest = limit = used = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        used += lengths[index]
        rows = len(batches[-1]) + 1 if batches else 0
        if batches and rows <= limit and longest * rows - used <= waste * longest * rows:
            batches[-1].append(index)
        else:
            longest = used = lengths[index]
            limit = rows_for(longest)
            batches.append([index])
    return batches


def room(place: torch.device) -> int:
    """Return the bytes a batch may use: half of a GPU's free memory, else a quarter of free memory, at most 4 GiB."""
    free = device.memory(str(place)).free
    if place.type != "cuda":
        return 4 << 30 if free is None else min(4 << 30, free // 4)
    # torch keeps freed memory for the next batch, so the driver counts it as used
    kept = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    return ((free or 0) + kept) // 2


def rows(cost: Cost, place: torch.device, length: int, prefix: int) -> int:
    """Return how many rows of `length` new tokens after `prefix` shared ones go through the model at once."""
    return cost.rows(length, prefix, room(place), BATCH_TOKENS[place.type == "cpu"])


def halving(run: Callable[[Sequence[T]], R], batch: Sequence[T]) -> Iterator[tuple[Sequence[T], R]]:
    """Run a batch; if memory runs out, run its halves; see `device.halving`."""
    alone = "Memory is too small for a single pair; lower the resolution or choose a smaller model."
    return device.halving(run, batch, alone)
