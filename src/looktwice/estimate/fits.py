"""Tell which presets fit a machine's memory and what they cost on it.

Memory counts weights only, and a share of it is left to activations, caches and other programs. Cost is computed from
model shapes at `mfu` of the matmul rate that this machine reaches in a short trial; nothing else is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from looktwice.encode.name import parse
from looktwice.estimate.cost import estimate
from looktwice.models.catalog import BY_NAME, Entry
from looktwice.models.device import Placement, memory
from looktwice.models.presets import PRESETS, Preset

USABLE = 0.7
"""Share of a device's memory that weights may fill."""

_TOWERS: Mapping[str, tuple[int, int, int, int]] = {
    "siglip2-b": (12, 768, 3072, 16),
    "siglip2-l": (24, 1024, 4096, 16),
}
"""Layers, width, FFN width and patch size of the image towers of the presets' encoders."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Fit:
    """What one preset needs and costs on one machine.

    `weights` are bytes in memory, `download` bytes of a first download. `index_hours` encodes every image and stores
    its tokens; `query_seconds` scores a shortlist of `k` from stored tokens; `bytes_total` is vectors and tokens.
    """

    preset: str
    options: str
    reason: str
    weights: int
    download: int
    fits: bool
    items: int
    bytes_total: int
    index_hours: float
    k: int
    query_seconds: float

    def record(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def fits(place: Placement, flops: float, *, items: int, k: int = 100, mfu: float = 0.4) -> Iterator[Fit]:
    """Yield every preset's needs and costs on a device that multiplies matrices at `flops` FLOP/s."""
    room = USABLE * memory(place.device).total
    for preset in PRESETS.values():
        encoder, mllm = BY_NAME[parse(preset.encoder).model], BY_NAME[preset.mllm]
        weights = (encoder.parameters + mllm.parameters) * 10**6 * _BYTES[place.dtype]
        cost = estimate(
            _hub(mllm),
            items=items,
            codec=preset.codec,
            resolution=preset.resolution,
            max_tiles=preset.max_tiles,
            k=k,
            flops=flops,
            mfu=mfu,
        )
        yield Fit(
            preset=preset.name,
            options=str(preset),
            reason=preset.reason,
            weights=weights,
            download=round((encoder.gigabytes + mllm.gigabytes) * 1e9),
            fits=weights <= room,
            items=items,
            bytes_total=cost.bytes_total + items * 2 * encoder.dim,
            index_hours=cost.index_hours + items * encoder_flop(preset) / (mfu * flops) / 3600,
            k=k,
            query_seconds=cost.query_seconds,
        )


def encoder_flop(preset: Preset) -> float:
    """Return the FLOP of encoding one image: those of the layers' matrices and of attention."""
    name = parse(preset.encoder)
    layers, width, ffn, patch = _TOWERS[name.model]
    patches = ((name.size or next(iter(BY_NAME[name.model].hub))) // patch) ** 2
    return layers * (2 * (4 * width**2 + 2 * width * ffn) * patches + 4 * width * patches**2)


def matmul_rate(place: Placement, seconds: float = 0.3, side: int | None = None) -> float:
    """Measure the FLOP/s of a device's matrix product in its own dtype, for about `seconds`."""
    import torch

    side = side or (4096 if place.device.startswith("cuda") else 1024)
    left = torch.rand(side, side, device=place.device, dtype=place.torch_dtype)
    done, begin = -1, 0.0
    while done < 0 or time.perf_counter() - begin < seconds:
        product = left @ left
        float(product[0, 0])  # waits for the device
        done += 1
        if done == 0:  # the first product only warms up
            begin = time.perf_counter()
    return max(1, done) * 2 * side**3 / (time.perf_counter() - begin)


def _hub(entry: Entry) -> str:
    return next(iter(entry.hub.values()))
