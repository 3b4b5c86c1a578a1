"""A stand-in for Apple's device: tensors that know no float64 and must come to the CPU before NumPy sees them."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

MPS = torch.device("mps")


class OnApple(torch.Tensor):
    """What lies there; operations on the device stay on it."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == torch.Tensor.device.__get__:
            return MPS
        if func is torch.Tensor.numpy:
            raise TypeError("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu() first.")
        out = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.cpu:
            return out.as_subclass(torch.Tensor)
        tree_map(_no_float64, out)
        return out


class Apple(TorchFunctionMode):
    """Inside it, what is made on or sent to the device is an OnApple."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not any(map(_is_apples, (*args, *kwargs.values()))):
            return func(*args, **kwargs)
        args, kwargs = tree_map(lambda x: torch.device("cpu") if _is_apples(x) else x, (args, kwargs))
        return send(func(*args, **kwargs))


def send(x: torch.Tensor) -> torch.Tensor:
    """`x` on the device."""
    _no_float64(x)
    return x.as_subclass(OnApple)


def _is_apples(x: Any) -> bool:
    return isinstance(x, torch.device) and x == MPS


def _no_float64(x: Any) -> None:
    if isinstance(x, OnApple) and x.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
