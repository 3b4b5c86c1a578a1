"""Share what both paths need: which candidates can be shown, and the settings for a run's manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from looktwice.errors import LooktwiceError
from looktwice.score.local.mllm import Mllm
from looktwice.score.prompting import built_in
from looktwice.score.prompting.prompt import Prompt
from looktwice.types import Item

log = logging.getLogger(__name__)


def showable(prompt: Prompt, query: Item, candidates: Sequence[Item]) -> list[int]:
    """Return the indices of the candidates that the prompt can show; the others are "missing".

    Raises UsageError if it can show none, because the prompt is then wrong for the query.
    """
    fit = [i for i, candidate in enumerate(candidates) if prompt.misfit(query, candidate) is None]
    if candidates and not fit:
        built_in.check(prompt, query, candidates[0])
    return fit


def report(candidate: Item, error: LooktwiceError) -> None:
    """Log why a candidate has the status "failed"."""
    log.warning("No score for %r: %s", candidate.id, error)


def settings(mllm: Mllm, prompt: Prompt, path: str, **more: Any) -> Mapping[str, Any]:
    """Return the settings that both paths write into a run's manifest."""
    return {
        "mllm": mllm.name,
        "revision": mllm.revision,
        "preprocessing": mllm.preprocessing,
        "prompt": prompt.name,
        "prompt_hash": prompt.hash,
        "dtype": str(mllm.model.dtype).removeprefix("torch."),
        "device": str(mllm.model.device),
        "path": path,
        **more,
    }
