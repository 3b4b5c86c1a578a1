"""Keys and values of a prompt's shared beginning: computed once, shown to every batch, never grown by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class SharedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """One layer's keys and values [1, kv heads, P, head] in front of whatever batch comes.

    What a batch adds is handed to the attention and forgotten, so that candidates never see each other and memory holds
    one layer's copies at a time instead of all.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        n = key_states.shape[0]
        keys = torch.cat([self.keys.expand(n, -1, -1, -1), key_states], dim=-2)
        values = torch.cat([self.values.expand(n, -1, -1, -1), value_states], dim=-2)
        return keys, values


def share(cache: DynamicCache) -> Cache:
    """A cache for batches after the tokens that `cache` [batch of one] has seen."""
    layers = []
    for filled in cache.layers:
        layer = SharedLayer()
        layer.lazy_initialization(filled.keys, filled.values)
        layer.keys, layer.values = filled.keys, filled.values
        layers.append(layer)
    return Cache(layers=layers)


def mask(prefix: int, length: int, device: torch.device) -> Tensor:
    """[1, 1, C, P + C], true where a new token may look: at the whole prefix and, causally, at its own row.

    Padding on the right needs no mask: nothing real comes after it.
    """
    own = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return torch.cat([own.new_ones(length, prefix), own], dim=1)[None, None]


def grow(shared: Cache | None, n: int, text_config: Any) -> DynamicCache:
    """A cache of its own for n rows that go on for several steps after the tokens in `shared`."""
    cache = DynamicCache(config=text_config)
    for layer, filled in zip(cache.layers, shared.layers if shared is not None else (), strict=False):
        layer.lazy_initialization(filled.keys, filled.values)
        layer.keys, layer.values = filled.keys.expand(n, -1, -1, -1), filled.values.expand(n, -1, -1, -1)
    return cache


def nbytes(cache: Cache) -> int:
    """Return the bytes of all tensors that a cache's layers hold, whatever their kind keeps."""
    held = [value for layer in cache.layers for value in vars(layer).values()]
    tensors = [one for value in held for one in (value.values() if isinstance(value, dict) else [value])]
    return sum(one.nbytes for one in tensors if isinstance(one, Tensor))
