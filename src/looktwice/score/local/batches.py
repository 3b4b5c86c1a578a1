"""Make batches of rows, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from looktwice.errors import ModelError
from looktwice.score.local.families.base import Family
from looktwice.score.local.rows import Batch, Pair, PromptRow


def collate(model: Any, family: Family, part: Sequence[Pair], start: int, stop: int | None = None) -> Batch:
    """Return the tokens [start, stop) of every pair, padded on the right."""
    device = model.device
    rows = [pair.row for pair in part]
    cut = slice(start, stop)
    ids = _pad([row.ids[cut] for row in rows]).to(device)
    visual = _pad([row.visual[cut] for row in rows]).to(device)
    newline = _pad([row.newline[cut] for row in rows]).to(device)
    positions = torch.stack(
        [_pad([row.positions[axis, cut] for row in rows]) for axis in range(len(rows[0].positions))]
    )
    shown = [
        tokens
        for pair in part
        for at, tokens in zip(pair.row.starts, pair.images, strict=True)
        if start <= at and (stop is None or at < stop)
    ]
    embeds = model.get_input_embeddings()(ids)
    if shown:
        embeds[visual] = torch.cat([tokens.features for tokens in shown])
    vector = family.newline()
    if vector is not None:
        embeds[newline] = vector.to(embeds)
    extras = family.extras(ids, visual, [t.levels for t in shown if t.levels is not None])
    last = torch.tensor([len(row.ids[cut]) - 1 for row in rows], device=device)
    positions = positions.to(device)
    return Batch(embeds, visual, positions if len(positions) > 1 else positions[0], last, extras, start)


def in_common(rows: Sequence[PromptRow], limit: int) -> int:
    """Return how many first ids all rows have in common, at most `limit` and the shortest row's length."""
    first = rows[0].ids
    for row in {id(row): row for row in rows}.values():
        limit = min(limit, len(row.ids))
        differs = (row.ids[:limit] != first[:limit]).nonzero()
        limit = int(differs[0]) if len(differs) else limit
    return limit


def shared_length(ready: Sequence[Pair]) -> int:
    """Return how many first tokens all rows have in common, before the first token of a candidate."""
    limit = min(min(pair.begins, len(pair.row.ids) - 1) for pair in ready)
    return in_common([pair.row for pair in ready], limit)


def too_long(length: int, most: int) -> ModelError:
    """Return the error for a row that is longer than the model's positions."""
    return ModelError(
        f"This prompt takes {length} positions and the model has {most}; lower the resolution, shorten the text or, in "
        "the mode choice, the shortlist."
    )


def _pad(rows: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
