"""Name sets of models and settings that go together, each with its reason: plain data.

A preset stands for options and nothing else: what is printed and stored are the options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from looktwice.errors import UnknownName


@dataclass(frozen=True, slots=True)
class Preset:
    """An encoder, an MLLM, a codec of its tokens, and the size at which it sees images.

    `resolution` is for families with native resolution, `max_tiles` for those that cut images into tiles; the other one
    is None.
    """

    name: str
    encoder: str
    mllm: str
    codec: str
    resolution: int | None = None
    max_tiles: int | None = None
    reason: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """Return the options that it stands for, without those that it leaves alone."""
        own = {name: getattr(self, name) for name in ("encoder", "mllm", "codec", "resolution", "max_tiles")}
        return {name: value for name, value in own.items() if value is not None}

    def __str__(self) -> str:
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.options.items())


_ALL = (
    Preset(
        "laptop",
        "siglip2-b",
        "smolvlm-256m",
        "opq16",
        max_tiles=1,
        reason="without a GPU a pair may cost about 0.05 TFLOP: the smallest model that knows photographs, one tile",
    ),
    Preset(
        "gpu",
        "siglip2-l",
        "qwen3-vl-4b",
        "opq16",
        resolution=560,
        reason="about 11 GB of weights in 16 bits; a byte for 16 numbers at 560 px: MLLM-ILR's small-memory setting",
    ),
    Preset(
        "best",
        "siglip2-l@512",
        "qwen2.5-vl-7b",
        "opq8",
        resolution=756,
        reason="both papers' model, MLLM-ILR's released 756 px, a byte for 8 numbers; the strongest SigLIP 2 on ILIAS",
    ),
)
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}


def get(name: str) -> Preset:
    """Return a preset by its name. Raises UnknownName.

    >>> str(get("gpu"))
    '--encoder siglip2-l --mllm qwen3-vl-4b --codec opq16 --resolution 560'
    """
    if name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return PRESETS[name]
