"""Make patch tokens: what an encoder's tower says of each part of an image, for a middle look without an MLLM.

Class tokens and registers have no place in the image, so they are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from looktwice.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


PATCHES = "patches:"
"""Prefix that a table gives the encoder's name, so that these tokens are never taken for an MLLM's."""

CLASS_TOKEN = ("clip", "metaclip_2", "clip_vision_model")
"""Families trained through their class token alone: nothing taught the last layer's patches, so those before it count.
With tiny-clip they match better: mAP@50 0.232 instead of 0.212 (docs/lab/maxsim.md)."""


class Patches(NamedTuple):
    """The tokens [h · w, d] of one image, row by row, and their grid (h, w)."""

    rows: Tensor
    grid: tuple[int, int]


def states_of(family: str, run: Callable[..., Any]) -> Tensor:
    """Return the states of a tower's patches; `run(**options)` gives the outputs of its model in transformers."""
    if family in CLASS_TOKEN:
        before: Tensor = run(output_hidden_states=True).hidden_states[-2]
        return before
    last: Tensor = run().last_hidden_state
    return last


def patches_of(states: Tensor, inputs: Mapping[str, Tensor], stride: int) -> list[Patches]:
    """Cut a tower's last states, [n, T, d] or a map [n, d, h, w], into the patches of each image.

    `stride` is the side of a patch in pixels. What stands before the patches is dropped.
    """
    if "spatial_shapes" in inputs:  # NaFlex: each image has a grid of its own, padded behind
        shapes = [(int(h), int(w)) for h, w in inputs["spatial_shapes"].tolist()]
        return [Patches(rows[: h * w], (h, w)) for rows, (h, w) in zip(states, shapes, strict=True)]
    if states.ndim == 4:
        return [Patches(rows.flatten(1).T, (rows.shape[1], rows.shape[2])) for rows in states]
    h, w = (side // stride for side in inputs["pixel_values"].shape[-2:])
    if states.shape[1] < h * w:
        raise UsageError(f"This tower's {states.shape[1]} tokens are no grid of {h} × {w}; choose another size.")
    return [Patches(rows[len(rows) - h * w :], (h, w)) for rows in states]


def no_patches(name: str) -> UsageError:
    """Return the error for an encoder without patch tokens."""
    return UsageError(
        f"{name} gives no patch tokens; choose an encoder with an image tower of its own, such as dinov3-l or "
        "siglip2-so400m, or store an MLLM's tokens with --mllm."
    )
