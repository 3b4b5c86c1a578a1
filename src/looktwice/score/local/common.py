"""What both scorers have in common: which candidates can be shown at all, and what a run's manifest says."""

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
    """Indices of the candidates that have what the prompt shows; the others are "missing".

    Raises UsageError where that is none of them: then it is the prompt that does not fit.
    """
    fit = [i for i, candidate in enumerate(candidates) if prompt.misfit(query, candidate) is None]
    if candidates and not fit:
        built_in.check(prompt, query, candidates[0])
    return fit


def report(candidate: Item, error: LooktwiceError) -> None:
    """Say in the log why a candidate has the status "failed"."""
    log.warning("No score for %r: %s", candidate.id, error)


def settings(mllm: Mllm, prompt: Prompt, path: str, **more: Any) -> Mapping[str, Any]:
    """Return what both paths say of themselves in a run's manifest."""
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
