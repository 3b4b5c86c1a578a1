"""Adapt an encoder's vectors linearly: Linear(d → d') followed by L2, on rows of unit length.

ILIAS trains it so (arXiv 2502.11748, ilias-vrg/ilias `LinearAdapter`), and MLLM-ILR uses it (arXiv 2604.13268).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.errors import Mismatch, UsageError, first_line

if TYPE_CHECKING:
    import numpy as np

    from looktwice.types import FloatArray

_PREFIXES = ("", "layer.")  # ours, and the one in ILIAS's files


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear map: `weight` [d', d] and `bias` [d'] float32, and `sha256` of their file (its first 12 hex digits)."""

    weight: FloatArray
    bias: FloatArray
    sha256: str

    @property
    def dim(self) -> int:
        """Return the length of the adapted vectors."""
        return int(self.weight.shape[0])

    def apply(self, rows: FloatArray) -> FloatArray:
        """Map rows [n, d] of unit length to rows [n, d'], not yet of unit length."""
        adapted: FloatArray = rows @ self.weight.T + self.bias
        return adapted


def load_linear(path: str | Path, dim: int) -> Linear:
    """Read `weight` [d', d] and the optional `bias` [d'] from a .npz, .safetensors or .pt file.

    Pickled objects are not read. Raises UsageError for a file that is missing or of another form, Mismatch if d differs
    from the encoder's `dim`.
    """
    path = Path(path).expanduser()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        arrays = _read(path)
    except UsageError:
        raise
    except Exception as error:  # three libraries' own classes for a missing, damaged or hostile file
        raise UsageError(
            f"The linear adaptation {str(path)!r} cannot be read ({first_line(error)}); check the file."
        ) from error
    weight, bias = _weight_and_bias(path, arrays)
    if weight.shape[1] != dim:
        raise Mismatch(
            f"The linear adaptation {str(path)!r} takes vectors of {weight.shape[1]} numbers, but this encoder gives "
            f"{dim}; use the adaptation that was trained for this encoder."
        )
    return Linear(weight, bias, digest)


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}
    if path.suffix in (".pt", ".pth"):
        import torch

        stored = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.detach().float().numpy() for name, tensor in stored.items()}
    raise UsageError(f"The linear adaptation {str(path)!r} has another suffix; pass a .npz, .safetensors or .pt file.")


def _weight_and_bias(path: Path, arrays: Mapping[str, Any]) -> tuple[FloatArray, FloatArray]:
    import numpy as np

    prefix = next((prefix for prefix in _PREFIXES if f"{prefix}weight" in arrays), None)
    if prefix is None:
        raise UsageError(
            f"The linear adaptation {str(path)!r} has no array `weight`, only {sorted(arrays)}; save it as `weight`."
        )
    weight: np.ndarray[Any, Any] = np.asarray(arrays[f"{prefix}weight"])
    if weight.ndim != 2 or 0 in weight.shape:
        raise UsageError(f"The weight of {str(path)!r} has shape {weight.shape}; save it as a matrix [out, in].")
    bias = np.asarray(arrays.get(f"{prefix}bias", np.zeros(len(weight))))
    if bias.shape != (len(weight),):
        raise UsageError(f"The bias of {str(path)!r} has shape {bias.shape}; save {len(weight)} numbers.")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise UsageError(f"The linear adaptation {str(path)!r} has numbers that are not finite; train it again.")
    return weight.astype(np.float32), bias.astype(np.float32)
