"""Bind retrace to a model: hooks on its own layers, put on for one forward pass and taken off after it.

Outside that pass the model is unchanged. See `score.local.retrace` for the equations and the settings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from looktwice.errors import UsageError
from looktwice.score.local.families.base import Family
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.retrace import TINY, Retrace, delta, early_entropy, mean_size, sizes
from looktwice.score.local.rows import Batch, Pair


@dataclass(slots=True)
class Evidence:
    """The tokens shown once more to one batch, `z` [n, T, d] and `there` [n, T], and where: `at` [n, C], `last` [n].

    `fires` maps a layer to the rows (bool [n]) where Δ is added.
    """

    z: Tensor
    there: Tensor
    at: Tensor
    last: Tensor
    fires: dict[int, Tensor]


class Retracer:
    """Retrace bound to a model. Raises UsageError if the model has no layer that it could act on.

    Counts its own actions; `report` returns the counts.
    """

    def __init__(self, spec: Retrace, mllm: Mllm, family: Family) -> None:
        self.spec = spec
        self.model = mllm.model
        self.family = family
        self.decoder = family.decoder
        layers = list(getattr(self.decoder, "layers", ()))
        self.static, self.probes = _places(spec, len(layers))
        self.mlps = {at: getattr(layers[at], "mlp", None) for at in self._acting}
        needed = (f"{spec.keys}_proj", "down_proj")
        wrong = [at for at, mlp in self.mlps.items() if not all(hasattr(mlp, name) for name in needed)]
        if any(hasattr(part, "experts") for at, mlp in self.mlps.items() for part in (mlp, layers[at])):
            raise UsageError(
                f"Retrace {spec} needs one feed-forward layer per place, but layers of {mllm.name} send each token to "
                "experts of its own; choose a model without experts, or leave retrace off."
            )
        if not self.mlps or wrong:
            raise UsageError(
                f"Retrace {spec} finds no feed-forward layer of {mllm.name} to act on (depth {len(layers)}, places "
                f"{wrong or 'none'}); widen its window, choose layers, or leave it off."
            )
        self.needs_last = len(layers) - 1 in self._acting
        self._layers = {at: layers[at] for at in self.probes}
        self._sizes: dict[int, tuple[float, float]] = {}
        self.pairs = 0
        self._fired: Counter[int] = Counter()
        # sum and count stay on the device: reading them would wait for every batch
        self._ratios = torch.zeros(2)

    @property
    def _acting(self) -> list[int]:
        return [*self.static, *(at + 1 for at in self.probes)]

    @contextmanager
    def watching(self, batch: Batch, part: Sequence[Pair]) -> Iterator[Evidence]:
        """Show the images of the pairs in `part` once more during one forward pass over their tokens."""
        evidence = self.gather(batch, part)
        self.pairs += len(part)
        with self.acting(evidence):
            yield evidence
        for at, rows in evidence.fires.items():
            self._fired[at] += int(rows.sum())

    @contextmanager
    def acting(self, evidence: Evidence) -> Iterator[None]:
        """Put the hooks on, and take them off even after an error."""
        everywhere = torch.ones_like(evidence.last, dtype=torch.bool)
        evidence.fires = {at: everywhere for at in self.static}  # fresh for every pass: the trigger decides anew
        hooks = [
            layer.register_forward_hook(lambda module, args, out, at=at: self._probe(at, out, evidence))
            for at, layer in self._layers.items()
        ]
        hooks += [
            mlp.register_forward_hook(lambda module, args, out, at=at: self._inject(at, module, args[0], out, evidence))
            for at, mlp in self.mlps.items()
            if mlp is not None
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def gather(self, batch: Batch, part: Sequence[Pair]) -> Evidence:
        """Return Z of each pair and the positions where it acts. Raises UsageError if a pair shows no such image."""
        length = batch.embeds.shape[1]
        column = torch.arange(length, device=batch.embeds.device)
        real = at = column <= batch.last[:, None]
        if self.spec.positions == "candidate":
            begins = torch.tensor([pair.begins - batch.start for pair in part], device=column.device)
            at = real & (column >= begins[:, None])
        if self.spec.tokens == "all":
            return Evidence(batch.embeds, real, at, batch.last, {})
        own = [self._own(pair) for pair in part]
        z = torch.nn.utils.rnn.pad_sequence(own, batch_first=True)
        counts = torch.tensor([len(tokens) for tokens in own], device=column.device)
        return Evidence(z, torch.arange(z.shape[1], device=column.device) < counts[:, None], at, batch.last, {})

    def later(self, evidence: Evidence, embeds: Tensor) -> Evidence:
        """Return the evidence of a decoding step over the new tokens `embeds` [n, t, d]."""
        n, t = embeds.shape[:2]
        at = torch.ones(n, t, dtype=torch.bool, device=embeds.device)
        last = torch.full((n,), t - 1, device=embeds.device)
        if self.spec.remember:
            return Evidence(evidence.z, evidence.there, at, last, {})
        return Evidence(embeds, at, at, last, {})

    def report(self) -> dict[str, Any]:
        """Return the pairs seen, the share in which it fired, its counts per layer, and the mean of |Δ| / |FFN|.

        The mean is taken before Δ is rescaled; it includes decoding steps and leaves out non-finite ratios.
        """
        fired = sum(self._fired.values())
        total, count = self._ratios.tolist()
        return {
            "pairs": self.pairs,
            "trigger_rate": fired / (self.pairs * max(1, len(self.static))) if self.pairs else None,
            "layers": dict(sorted(self._fired.items())),
            "delta_to_ffn": total / count if count else None,
        }

    def _own(self, pair: Pair) -> Tensor:
        wanted = {"candidate": ("candidate",), "query": ("query",)}.get(self.spec.tokens, ("query", "candidate"))
        shown = [t.features for t, side in zip(pair.images, pair.sides, strict=True) if side in wanted]
        if not shown:
            raise UsageError(
                f"Retrace {self.spec} finds no such image in this pair; set tokens=both, or leave retrace off for "
                "pairs of texts."
            )
        return torch.cat(shown[-1:] if self.spec.tokens == "last" else shown)

    def _probe(self, at: int, out: Any, evidence: Evidence) -> None:
        hidden = out[0] if isinstance(out, tuple) else out
        state = hidden[torch.arange(len(hidden), device=hidden.device), evidence.last]
        if self.spec.normed:
            state = self.decoder.norm(state)
        head = self.model.get_output_embeddings()
        unsure = early_entropy(self.family.finish(head(state.to(head.weight.dtype)))) > self.spec.gamma
        for earlier in evidence.fires.values():  # the trigger fires once per pair
            unsure = unsure & ~earlier
        evidence.fires[at + 1] = unsure

    def _inject(self, at: int, mlp: Any, x: Tensor, ffn: Tensor, evidence: Evidence) -> Tensor:
        fires = evidence.fires[at]
        if self.static:
            return self._fused(at, mlp, x, ffn, evidence.z, evidence.there, evidence.at)
        rows = fires.nonzero()[:, 0]
        if not len(rows):
            return ffn
        out = ffn.clone()  # a hook's output may be in use elsewhere, so it is never written into
        parts = (part[rows] for part in (x, ffn, evidence.z, evidence.there, evidence.at))
        out[rows] = self._fused(at, mlp, *parts)
        return out

    def _fused(self, at: int, mlp: Any, x: Tensor, ffn: Tensor, z: Tensor, there: Tensor, where: Tensor) -> Tensor:
        """Return (1 − α) · FFN(x) + α · Δ at the positions in `where` [n, C], FFN(x) elsewhere."""
        keys, values = self._entries(at, mlp, z.to(x.dtype), there)
        added = delta(x, keys, values, there, self.spec.phi)
        own, new = (sizes(part, where, self.spec.match) for part in (ffn, added))
        ratios = _mean_over(new / own.clamp_min(TINY), where)
        fine = ratios.isfinite()  # one failed pair must not make the whole mean NaN
        self._ratios = self._ratios.to(ratios) + torch.stack([torch.where(fine, ratios, 0).sum(), fine.sum()])
        share = self.spec.alpha * where[..., None]
        # Δ takes FFN's size, so that α alone sets its weight
        scale = share if self.spec.match == "none" else share * (own / new.clamp_min(TINY))
        return torch.addcmul(ffn * (1 - share).to(ffn.dtype), added, scale.to(ffn.dtype))

    def _entries(self, at: int, mlp: Any, z: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values: Z, scaled to the mean magnitude of the layer's own if `scaled`."""
        if not self.spec.scaled:
            return z, z
        if at not in self._sizes:  # weights never change, so their sizes are measured once
            parts = getattr(mlp, f"{self.spec.keys}_proj"), mlp.down_proj
            sizes = [float(part.weight.abs().float().mean()) for part in parts]
            self._sizes[at] = (sizes[0], sizes[1])
        size = mean_size(z, there).clamp_min(TINY)
        key, value = self._sizes[at]
        return (z * (key / size)).to(z.dtype), (z * (value / size)).to(z.dtype)


def _mean_over(ratio: Tensor, where: Tensor) -> Tensor:
    """Return the mean [n] of `ratio`, per token [n, C, 1] or per pair [n, 1, 1], over positions in `where` [n, C]."""
    if ratio.shape[1] == 1:
        return ratio.flatten()
    return (ratio[..., 0] * where).sum(-1) / where.sum(-1).clamp_min(1)


def _places(spec: Retrace, depth: int) -> tuple[list[int], list[int]]:
    """Return the layers where Δ always acts, and those after which the trigger reads, to act at the next."""
    if spec.layers:
        return sorted({min(depth - 1, math.floor(round(share * depth, 9))) for share in spec.layers if depth}), []
    low, high = (round(share * depth, 9) for share in spec.window)
    return [], [at for at in range(depth - 1) if low < at < high]
