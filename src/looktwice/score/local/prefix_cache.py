"""Cache what a prompt's shared beginning leaves in a model: computed once, shown to every batch, never extended.

Attention layers leave keys and values, gated delta-net layers a recurrent state and the last inputs of a convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer


class SharedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """One layer's keys and values [1, kv heads, P, head] in front of every batch.

    A batch's own keys and values go to the attention and are dropped. Candidates so never see each other, and memory
    holds the copies of one layer at a time instead of all.
    """

    def __init__(self, filled: DynamicLayer) -> None:
        super().__init__()
        self.lazy_initialization(filled.keys, filled.values)
        self.keys, self.values = filled.keys, filled.values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        n = key_states.shape[0]
        keys = torch.cat([self.keys.expand(n, -1, -1, -1), key_states], dim=-2)
        values = torch.cat([self.values.expand(n, -1, -1, -1), value_states], dim=-2)
        return keys, values


class _Lent(dict[int, Tensor]):
    """States [1, …] lent to n rows. Every read makes a copy, because models write into the states they are given."""

    def __init__(self, states: Mapping[int, Tensor], n: int) -> None:
        super().__init__(states)
        self.n = n

    def __getitem__(self, at: int) -> Tensor:
        state = super().__getitem__(at)
        return state.repeat(self.n, *[1] * (state.dim() - 1))


class SharedStates(LinearAttentionLayer):  # type: ignore[misc]
    """One gated delta-net layer's states after the prefix, in front of n rows; the rows' own states are dropped."""

    def __init__(self, filled: LinearAttentionLayer, n: int) -> None:
        super().__init__(filled.number_of_states)
        self.has_previous_state = filled.has_previous_state
        self.conv_states = _Lent(filled.conv_states, n)
        self.recurrent_states = _Lent(filled.recurrent_states, n)

    def update_conv_state(self, conv_states: Tensor, state_idx: int = 0, **kwargs: Any) -> Tensor:
        return torch.cat([self.conv_states[state_idx], conv_states], dim=-1)

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: Any) -> Tensor:
        return recurrent_states


class GrowingStates(LinearAttentionLayer):  # type: ignore[misc]
    """One gated delta-net layer's states for n rows that grow.

    The first batch is padded on the right and ends at `last` [n]; the convolution continues from there. Its padding
    must leave the recurrent state unchanged (`Family.ignoring_padding`).
    """

    def __init__(self, filled: LinearAttentionLayer | None, n: int, last: Tensor) -> None:
        super().__init__()
        self.last: Tensor | None = last
        if filled is None:
            return
        conv, recurrent = _Lent(filled.conv_states, n)[0], _Lent(filled.recurrent_states, n)[0]
        self.lazy_initialization(conv_states=conv)
        self.lazy_initialization(recurrent_states=recurrent)
        self.conv_states[0], self.recurrent_states[0] = conv, recurrent
        self.has_previous_state[0] = True

    def update_conv_state(self, conv_states: Tensor, state_idx: int = 0, **kwargs: Any) -> Tensor:
        full: Tensor = super().update_conv_state(conv_states, state_idx, **kwargs)
        if self.last is not None:
            kept = self.conv_states[state_idx].shape[-1]
            left = torch.nn.functional.pad(full, (kept, 0))
            ends = left.shape[-1] - conv_states.shape[-1] + self.last
            columns = ends[:, None] + torch.arange(1 - kept, 1, device=ends.device)
            self.conv_states[state_idx] = left.gather(-1, columns[:, None].expand(-1, left.shape[1], -1))
            self.last = None
        return full


def blank(text_config: Any) -> DynamicCache:
    """Return an empty cache. Layers with a sliding window keep all keys too: the mask hides those outside it."""
    cache = DynamicCache(config=text_config)
    cache.layers = [DynamicLayer() if isinstance(layer, DynamicSlidingWindowLayer) else layer for layer in cache.layers]
    return cache


def share(filled: Cache | None, n: int) -> Cache | None:
    """Return a cache for a batch of n rows after the tokens that `filled` [batch of one] has seen."""
    return None if filled is None else Cache(layers=[_shared(layer, n) for layer in filled.layers])


def _shared(layer: Any, n: int) -> Any:
    if isinstance(layer, LinearAttentionLayer):
        return SharedStates(layer, n)
    return SharedLayer(layer) if isinstance(layer, DynamicLayer) else layer


def distances(prefix: int, length: int, device: torch.device) -> Tensor:
    """Return [1, 1, C, P + C]: how many tokens a key lies before a new token; below zero if it comes after.

    Padding on the right comes after everything real.
    """
    new = torch.arange(prefix, prefix + length, device=device)
    return (new[:, None] - torch.arange(prefix + length, device=device))[None, None]


def grow(filled: Cache | None, n: int, text_config: Any, last: Tensor) -> DynamicCache:
    """Return a cache of its own for n rows that grow for several steps after the tokens in `filled`.

    The first step is a batch padded on the right whose rows end at `last` [n].
    """
    cache = blank(text_config)
    for at, layer in enumerate(cache.layers):
        before: Any = filled.layers[at] if filled is not None else None
        if isinstance(layer, LinearAttentionLayer):
            cache.layers[at] = GrowingStates(before, n, last)
        elif before is not None and isinstance(layer, DynamicLayer):
            layer.lazy_initialization(before.keys, before.values)
            layer.keys, layer.values = before.keys.expand(n, -1, -1, -1), before.values.expand(n, -1, -1, -1)
    return cache


def nbytes(cache: Cache) -> int:
    """Return the bytes of all tensors that a cache's layers hold, whatever their kind keeps."""
    held = [value for layer in cache.layers for value in vars(layer).values()]
    tensors = [one for value in held for one in (value.values() if isinstance(value, dict) else [value])]
    return sum(one.nbytes for one in tensors if isinstance(one, Tensor))
