"""Compute scores from logits: pure maths on numbers and token ids, without images, prompts or models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from looktwice.errors import ModelError, UsageError
from looktwice.types import SCORED, PairScores, Status

if TYPE_CHECKING:
    from torch import Tensor

    Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class LabelIds:
    """The token ids that spell each label, and each label's value in [0, 1]. Two labels never share an id."""

    ids: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        flat = [i for variants in self.ids for i in variants]
        if len(self.ids) != len(self.values) or not all(self.ids) or len(set(flat)) != len(flat):
            raise UsageError("Every label needs one value and token ids of its own; give no id to two labels.")


def read(logits: Tensor, labels: LabelIds) -> PairScores:
    """Read `logits` [n, V], one row per pair, of the next token.

    p = Σ value · p(label) / Σ p(label), where p(label) sums the probabilities of the label's variants (log-sum-exp).
    Entropy (nats) and off-mass (1 − Σ p(label)) are over the full vocabulary. Rows with a NaN, with +inf or without any
    finite label logit have the status "failed" and no numbers.
    """
    import torch

    if logits.ndim != 2 or logits.shape[1] <= max(i for variants in labels.ids for i in variants):
        raise ModelError(
            f"Logits of shape {tuple(logits.shape)} do not cover the label tokens {labels.ids}; use the model's "
            "own tokenizer."
        )
    with torch.no_grad():
        z = logits.detach().to(torch.float64 if logits.device.type == "cpu" else torch.float32)
        per_label = torch.stack([z[:, list(variants)].logsumexp(-1) for variants in labels.ids], dim=-1)
        total = z.logsumexp(-1)
        logp = z - total[:, None]
        # 0 · −inf is 0 here: a token that is impossible adds nothing
        entropy = -torch.where(logp.isneginf(), 0.0, logp.exp() * logp).sum(-1)
        on = per_label.logsumexp(-1)
        off = torch.where(total.isfinite(), -torch.expm1(on - total), torch.nan)
        argmax = z.argmax(-1)
        # a row with a NaN or +inf anywhere holds no score, though its label logits may be finite
        per_label = torch.where(total.isfinite()[:, None], per_label, torch.nan)
    rows, spread, away = (wide(x).cpu().numpy() for x in (per_label, entropy, off))
    return assemble(rows, spread, away, argmax.cpu().numpy(), labels.values)


def wide(x: Tensor) -> Tensor:
    """Return `x` in float64, on its own device; on the CPU if the device (Apple's) has no float64."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def assemble(
    label_logits: Array, entropy: Array, off_mass: Array, argmax_id: Any, values: Sequence[float]
) -> PairScores:
    """Return records of n pairs from label logits [n, l] (any common offset) and what else is known (NaN: unknown).

    Rows with a NaN, with +inf or without any finite label logit are "failed".
    """
    none, wrong = ~np.isfinite(label_logits).any(-1), np.isnan(label_logits) | np.isposinf(label_logits)
    bad = np.asarray(none | wrong.any(-1))
    p = expected_value(np.where(bad[:, None], 0.0, label_logits), values)
    void = np.where(bad, np.nan, 0.0)
    return PairScores(
        p=(p + void).astype(np.float32),
        label_logits=(label_logits + void[:, None]).astype(np.float32),
        entropy=(np.maximum(entropy, 0.0) + void).astype(np.float32),
        off_mass=(np.clip(off_mass, 0.0, 1.0) + void).astype(np.float32),
        argmax_id=np.where(bad, -1, argmax_id).astype(np.int64),
        status=tuple("failed" if b else "ok" for b in bad),
    )


def expected_value(label_logits: Array, values: Sequence[float]) -> Array:
    """Return Σ value · softmax(label_logits) along the last axis; [n, l] to [n], in [0, 1] for values in [0, 1]."""
    z = label_logits - label_logits.max(-1, keepdims=True)
    weights = np.exp(z)
    value: Array = (weights @ np.asarray(values, dtype=np.float64)) / weights.sum(-1)
    return np.clip(value, min(values), max(values))


def checked(scores: PairScores, n: int, name: str) -> PairScores:
    """Check the scores that a scorer called `name` gave for n pairs; an "ok" row without a number becomes "failed".

    Raises ModelError for another number of rows, and for a p outside [0, 1].
    """
    if len(scores.p) != n or len(scores.status) != n:
        raise ModelError(f"The scorer {name} gave {len(scores.p)} scores for {n} pairs; it must give one for each.")
    known = np.isfinite(scores.p)
    if np.any((scores.p[known] < 0) | (scores.p[known] > 1 + 1e-6)):
        raise ModelError(f"The scorer {name} gave a p outside 0 and 1; scale its scores to probabilities.")
    if all(known[i] or one not in SCORED for i, one in enumerate(scores.status)):
        return scores
    status: tuple[Status, ...] = tuple(
        "failed" if one in SCORED and not known[i] else one for i, one in enumerate(scores.status)
    )
    return replace(scores, status=status)


def blank(n: int, labels: int, status: Status) -> PairScores:
    """Return n rows without a score, all of one status."""
    nan = np.full(n, np.nan, dtype=np.float32)
    rows = np.full((n, labels), np.nan, dtype=np.float32)
    return PairScores(nan, rows, nan.copy(), nan.copy(), np.full(n, -1, dtype=np.int64), (status,) * n)


def scatter(n: int, labels: int, parts: Sequence[tuple[Sequence[int], PairScores]], rest: Status) -> PairScores:
    """Put rows scored in any order back in their places; rows that no part covers get the status `rest`."""
    out = blank(n, labels, rest)
    status = list(out.status)
    bounds = np.full((n, 2), np.nan, dtype=np.float32) if any(part.bounds is not None for _, part in parts) else None
    for rows, part in parts:
        index = list(rows)
        if not index:
            continue
        for name in ("p", "label_logits", "entropy", "off_mass", "argmax_id"):
            getattr(out, name)[index] = getattr(part, name)
        if bounds is not None and part.bounds is not None:
            bounds[index] = part.bounds
        for row, value in zip(index, part.status, strict=True):
            status[row] = value
    return PairScores(out.p, out.label_logits, out.entropy, out.off_mass, out.argmax_id, tuple(status), bounds)


def select(scores: PairScores, rows: Sequence[int]) -> PairScores:
    """Return these rows of `scores`, in this order."""
    at = list(rows)
    return PairScores(
        p=scores.p[at],
        label_logits=scores.label_logits[at],
        entropy=scores.entropy[at],
        off_mass=scores.off_mass[at],
        argmax_id=scores.argmax_id[at],
        status=tuple(scores.status[i] for i in at),
        bounds=None if scores.bounds is None else scores.bounds[at],
    )


def concatenate(first: PairScores, second: PairScores) -> PairScores:
    """Join the scores of two blocks of candidates.

    A block in which nothing was scored has no labels; its rows are "missing".
    """
    n, m = len(first.p), len(second.p)
    labels = max(first.label_logits.shape[1], second.label_logits.shape[1])
    blocks = ((range(n), first), (range(n, n + m), second))
    return scatter(n + m, labels, [(rows, b) for rows, b in blocks if b.label_logits.shape[1] == labels], "missing")
