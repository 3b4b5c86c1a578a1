"""Run the last layer at the one position that is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

_locks: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_making = threading.Lock()


def hook_lock(model: Any) -> threading.RLock:
    """Return the lock of a loaded model: held while it carries the hooks of a batch, and during every other run of it.

    Scorers and threads may share a model; two models never wait for each other.
    """
    with _making:
        return _locks.setdefault(model, threading.RLock())


@contextmanager
def only_last(decoder: Any, last: Tensor) -> Iterator[None]:
    """Restrict the last layer's attention projection and feed-forward part to position `last` [n] of each row.

    Broadcasting then spreads the result over the whole row: right at that position, meaningless at all others. It saves
    about three quarters of a layer, because nothing after the last layer reads other positions.
    """
    rows = torch.arange(len(last), device=last.device)

    def pick(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args[0][rows, last][:, None], *args[1:]

    layer = decoder.layers[-1]
    attention = getattr(layer, "self_attn", None)  # a recurrent layer's projection cannot be cut to one position
    modules = [layer.mlp] if attention is None else [attention.o_proj, layer.mlp]
    hooks = [module.register_forward_pre_hook(pick) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
