"""Name the score modes: each turns the model's next-token distribution into p in its own way.

`p-label` reads the prompt's labels with their values over their variants (2604.13268). `p-true` is the probability of
the one token "True" over the whole vocabulary, as the released code of 2602.22278 reads it: "False" and every other
token count against it alike. `digit` is the answer itself, 0 or 1, as if it had been written and parsed (2604.13268,
ablation). The other modes need more than one distribution: `written` and `written-expected` are in
`score.local.generated`, `choice` in `score.local.listwise`. This module knows logits and token ids, no images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from looktwice.errors import UnknownName, UsageError
from looktwice.score.prompting.prompt import Prompt
from looktwice.types import Choice

if TYPE_CHECKING:  # naming a mode must not load NumPy and torch
    from torch import Tensor

    from looktwice.score.readout.probability import LabelIds
    from looktwice.types import PairScores

P_LABEL, P_TRUE, DIGIT = "p-label", "p-true", "digit"
WRITTEN, WRITTEN_EXPECTED, CHOICE = "written", "written-expected", "choice"
CHOICES = (
    Choice(P_LABEL, "probability of the labels, over all their spellings"),
    Choice(P_TRUE, "probability of the one token True over the whole vocabulary", "a prompt with True and False"),
    Choice(DIGIT, "the answer itself, 0 or 1, as if it had been written", "a prompt with 0 and 1"),
    Choice(WRITTEN, "the number that the model writes", "the prompts score, score-mixed"),
    Choice(WRITTEN_EXPECTED, "its expected value over the digits", "the prompts score, score-mixed"),
    Choice(CHOICE, "probability of each candidate's letter in one list of all"),
)
READ_AT_ONCE = (P_LABEL, P_TRUE, DIGIT)  # from one distribution
MODES = tuple(choice.name for choice in CHOICES)
Reader: TypeAlias = "Callable[[Tensor, LabelIds], PairScores]"


def check(mode: str) -> str:
    """Return `mode`; raise UnknownName if no mode has this name."""
    if mode not in MODES:
        raise UnknownName("score mode", mode, MODES)
    return mode


def reader(mode: str, prompt: Prompt, tokenizer: Any) -> Reader:
    """Return the function that turns logits [n, V] into scores.

    Raises UsageError if the mode needs more than one distribution, or reads answers that the prompt's labels are not.
    """
    from looktwice.score.readout import probability

    if mode not in READ_AT_ONCE:
        raise UsageError(
            f"The mode {check(mode)} needs more than one distribution; load the scorer with score_mode={mode!r}."
        )
    if mode == P_TRUE:
        return _p_true(prompt, tokenizer)
    if mode == DIGIT:
        return _digit(prompt)
    return probability.read


def suits(mode: str, prompt: Prompt) -> bool:
    """Return whether the prompt asks the question that the mode reads."""
    if mode == P_TRUE:
        return any(label.name == "True" for label in prompt.labels)
    if mode == DIGIT:
        return {label.name for label in prompt.labels} == {"0", "1"}
    if mode in (WRITTEN, WRITTEN_EXPECTED):
        return prompt.name.startswith("score")
    return not prompt.name.startswith("score")


def _p_true(prompt: Prompt, tokenizer: Any) -> Reader:
    from looktwice.score.readout import labels, probability

    token = labels.single_token("True", tokenizer)
    if not suits(P_TRUE, prompt) or token is None:
        raise UsageError(
            f'The mode p-true needs a prompt with the label "True" and a single token for it in this model, which '
            f"{prompt.name!r} lacks; choose the prompt match or mixed, or the mode p-label."
        )

    def read(logits: Tensor, ids: LabelIds) -> PairScores:
        scores = probability.read(logits, ids)
        share = probability.wide(logits).log_softmax(-1)[:, token].exp().cpu().numpy()
        return replace(scores, p=_where_ok(scores, share))

    return read


def _digit(prompt: Prompt) -> Reader:
    import numpy as np

    from looktwice.score.readout import probability

    if not suits(DIGIT, prompt):
        raise UsageError(
            f"The mode digit needs a prompt with the labels 0 and 1, not {prompt.name!r}; choose the prompt object."
        )
    names = [label.name for label in prompt.labels]

    def read(logits: Tensor, ids: LabelIds) -> PairScores:
        scores = probability.read(logits, ids)
        value = {token: float(name) for name, tokens in zip(names, ids.ids, strict=True) for token in tokens}
        said = np.array([value.get(int(token), np.nan) for token in scores.argmax_id])
        return unparsed(replace(scores, p=_where_ok(scores, said)))

    return read


def unparsed(scores: PairScores) -> PairScores:
    """Return the scores with status "parse_error" in every row that is "ok" but has no number."""
    import numpy as np

    pairs = zip(scores.status, np.isfinite(scores.p), strict=True)
    return replace(scores, status=tuple("parse_error" if s == "ok" and not number else s for s, number in pairs))


def _where_ok(scores: PairScores, p: Any) -> Any:
    import numpy as np

    return np.where([status == "ok" for status in scores.status], p, np.nan).astype(np.float32)
