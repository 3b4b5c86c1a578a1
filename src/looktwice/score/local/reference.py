"""Score pairs on the reference path: the oracle that every faster path is measured against.

It takes one pair at a time through the model's own chat template, processor and forward, as a user of transformers
would. It is slow and obvious, and works for every AutoModelForImageTextToText.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from looktwice.errors import LooktwiceError, ModelError, first_line
from looktwice.models.processors import cleaner
from looktwice.score.base import Scorer
from looktwice.score.local import common
from looktwice.score.local.last_position import hook_lock
from looktwice.score.local.mllm import Mllm
from looktwice.score.prompting import built_in, chat
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.readout import labels, modes, probability, repetition_penalty
from looktwice.types import Item, PairScores


class ReferenceScorer(Scorer):
    """Scores pairs on the reference path. `reason` says why, unless the path was asked for by name.

    With `as_released`, the checkpoint's repetition penalty is applied before the read-out. `mode` is p-label, p-true or
    digit.
    """

    def __init__(
        self,
        mllm: Mllm,
        prompt: Prompt,
        *,
        reason: str | None = None,
        as_released: bool = False,
        mode: str = modes.P_LABEL,
    ) -> None:
        self.mllm = mllm
        self.prompt = prompt
        self.reason = reason
        self.penalty = repetition_penalty.penalty(mllm.model) if as_released else 1.0
        self.mode = mode
        self.labels = labels.resolve(prompt, mllm.processor.tokenizer)
        self.read = modes.reader(mode, prompt, mllm.processor.tokenizer)
        self._clean = cleaner(mllm.processor)
        self._hook_lock = hook_lock(mllm.model)
        self._keep = (
            {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(mllm.model.forward).parameters else {}
        )

    def score(self, query: Item, candidates: Sequence[Item]) -> PairScores:
        """Score every candidate against one query; see Scorer."""
        count = len(self.labels.ids)
        fit = common.showable(self.prompt, query, candidates)
        if fit:
            self._needs_pixels(query)
        parts = [(fit, probability.blank(len(fit), count, "failed"))]
        for index in fit:
            try:
                logits = self.logits(query, candidates[index])
            except LooktwiceError as error:
                common.report(candidates[index], error)
            else:
                parts.append(([index], self.read(logits[None], self.labels)))
        return probability.scatter(len(candidates), count, parts, "missing")

    @torch.no_grad()
    def logits(self, query: Item, candidate: Item) -> Tensor:
        """Return the next token's logits [V] after this pair, in float32."""
        inputs = self.inputs(query, candidate)
        with self._hook_lock:  # a fast scorer may share this model and have its hooks on
            out = self._forward(inputs)
        return repetition_penalty.penalise(out, list(inputs["input_ids"]), self.penalty)[0]

    def _forward(self, inputs: Any) -> Tensor:
        try:
            logits: Tensor = self.mllm.model(**inputs, **self._keep, use_cache=False).logits
        except (AttributeError, TypeError, LookupError, ValueError) as error:  # from a bug in one family's code
            raise ModelError(
                f"{self.mllm.name} cannot read this pair: its code in transformers fails ({first_line(error)}); "
                "try another version of transformers, or another model."
            ) from error
        return logits[:, -1].float()

    def inputs(self, query: Item, candidate: Item) -> Any:
        """Return the inputs that the model's own processor makes of this pair."""
        pieces = self.prompt.lay_out(query, candidate, self._clean)
        items = {"query": query, "candidate": candidate}
        shown = [self._image(items[piece.side]) for piece in pieces if piece.side is not None]
        text = chat.render(self.mllm.processor, pieces)
        try:
            inputs = self.mllm.processor(
                text=[text],
                images=[shown] if shown else None,  # nested: these images belong to one text
                add_special_tokens=chat.adds_special_tokens(self.mllm.processor, text),
                return_tensors="pt",
            )
        except (ValueError, MemoryError) as error:  # how processors refuse an image, such as one far too long
            why = first_line(error) if str(error) else "not enough memory"
            raise ModelError(f"{self.mllm.name} cannot prepare this pair ({why}); leave the item out.") from error
        return inputs.to(self.mllm.model.device, self.mllm.model.dtype)

    def settings(self) -> Mapping[str, Any]:
        """See Scorer."""
        reason = self.reason or "asked for"
        return common.settings(
            self.mllm,
            self.prompt,
            "reference",
            mode=self.mode,
            retrace="off",
            reason=reason,
            repetition_penalty=self.penalty,
        )

    def with_prompt(self, prompt: str | Prompt, mode: str | None = None) -> ReferenceScorer:
        """Return a scorer of the same model with another prompt or mode."""
        return ReferenceScorer(
            self.mllm,
            built_in.get(prompt),
            reason=self.reason,
            as_released=self.penalty != 1.0,
            mode=mode or self.mode,
        )

    def _image(self, item: Item) -> Any:
        self._needs_pixels(item)
        return self.mllm.scale(item.image) if item.image is not None else None

    def _needs_pixels(self, item: Item) -> None:
        if item.image is None and item.tokens is not None:
            raise ModelError(
                f"Item {item.id!r} has stored visual tokens but no image, which the reference path needs; use path "
                "auto, or give the image."
            )
