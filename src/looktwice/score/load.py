"""From a name to a scorer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from looktwice.errors import UsageError
from looktwice.score.local.mllm import Mllm, keep_budget
from looktwice.score.local.retrace import Retrace
from looktwice.score.prompting import built_in, chat
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.readout import modes

if TYPE_CHECKING:
    from looktwice.models.checkpoints import Checkpoint
    from looktwice.models.device import Placement
    from looktwice.score.local.engine import Engine
    from looktwice.score.local.generated import Written
    from looktwice.score.local.listwise import Choice
    from looktwice.score.local.prior import Prior
    from looktwice.score.local.reference import Reference

    Scorer: TypeAlias = Engine | Reference | Written | Choice | Prior

log = logging.getLogger(__name__)


def load_scorer(
    mllm: str = "tiny-vl",
    *,
    prompt: str | Path | Prompt = "object",
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | None = None,
    path: Literal["auto", "fast", "reference"] = "auto",
    resolution: int | None = None,
    max_tiles: int | None = None,
    revision: str | None = None,
    as_released: bool = False,
    cache_bytes: int = 1 << 30,
    score_mode: str = "p-label",
    retrace: str | Retrace | None = None,
    prior: str = "off",
) -> Scorer:
    """Load a multimodal LLM and return its PairScorer.

    `path` "auto" takes the fast path where the model's family has one and says so in the log where it has not; "fast"
    insists. `resolution`: the longer side pictures are scaled to (families with native resolution); `max_tiles` is for
    those that cut pictures into tiles. `as_released` applies the checkpoint's repetition penalty, as the code of
    2604.13268 does. `score_mode`: what is read or written (`score.readout.modes`); `retrace`: show pictures once more
    (`score.local.retrace`); `prior`: candidate or query, whose absence is divided out (`score.local.prior`). Raises
    UnknownName, UsageError for what is refused, ModelError where weights cannot be loaded.
    """
    from looktwice.models import checkpoints
    from looktwice.models.device import place

    if path not in ("auto", "fast", "reference"):
        raise UsageError(f"The path is auto, fast or reference, not {path!r}.")
    if batch_size is not None and batch_size < 1:
        raise UsageError("The batch size must be at least 1.")
    asked = built_in.get(prompt)
    modes.check(score_mode)
    again = Retrace.parse(retrace)
    checkpoint = checkpoints.resolve(mllm, revision)
    loaded = load_mllm(checkpoint, place(device, dtype), resolution, max_tiles)
    return scorer(
        loaded,
        asked,
        path=path,
        batch_size=batch_size,
        as_released=as_released,
        cache_bytes=cache_bytes,
        score_mode=score_mode,
        retrace=again,
        prior=prior,
    )


def scorer(
    mllm: Mllm,
    prompt: Prompt,
    *,
    path: Literal["auto", "fast", "reference"] = "auto",
    batch_size: int | None = None,
    as_released: bool = False,
    cache_bytes: int = 1 << 30,
    score_mode: str = "p-label",
    retrace: str | Retrace | None = None,
    prior: str = "off",
) -> Scorer:
    """The PairScorer of a loaded model."""
    from looktwice.score.local import families
    from looktwice.score.local.engine import Engine
    from looktwice.score.local.generated import Written
    from looktwice.score.local.listwise import Choice
    from looktwice.score.local.prior import EnginePrior, Prior
    from looktwice.score.local.reference import Reference

    modes.check(score_mode)
    again = Retrace.parse(retrace)
    read = score_mode if score_mode in modes.READ_AT_ONCE else modes.P_LABEL

    family, why = families.find(mllm.model.config, mllm.processor)
    if path == "fast" and family is None:
        raise UsageError(f"{mllm.name} has no fast path: {why}; leave the path at auto.")
    if path == "reference" or family is None:
        if why is not None and path == "auto":
            log.warning("%s runs on the slow reference path: %s.", mllm.name, why)
        if again is not None or score_mode != read:
            raise UsageError(
                f"{mllm.name} on the reference path has no retrace and no mode {score_mode}; leave them out."
            )
        reason = why if path == "auto" else None
        slow = Reference(mllm, prompt, reason=reason, as_released=as_released, mode=read)
        return slow if prior == "off" else Prior(slow, prior)
    engine = Engine(
        mllm,
        family(mllm.model, mllm.processor),
        prompt,
        batch_size=batch_size,
        as_released=as_released,
        cache_bytes=cache_bytes,
        mode=read,
        retrace=again,
    )
    if prior != "off":
        if score_mode != modes.P_LABEL:
            raise UsageError(f"A prior can be divided out of label probabilities only, not in the mode {score_mode}.")
        return EnginePrior(engine, prior)
    if score_mode == modes.CHOICE:
        return Choice(engine)
    return Written(engine, score_mode) if score_mode != read else engine


def load_mllm(
    checkpoint: Checkpoint, placement: Placement, resolution: int | None = None, max_tiles: int | None = None
) -> Mllm:
    """Load model and processor and refuse what cannot be asked for a score."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from looktwice.models.processors import load_processor
    from looktwice.models.weights import load_weights, plain_errors

    name, kind = checkpoint.name, checkpoint.model_type
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise UsageError(f"{name} is a {kind} model, not one that reads pictures and writes text; name another.")
    processor = load_processor(checkpoint)
    check_processor(name, processor)
    with plain_errors(checkpoint, "configuration"):
        config = AutoConfig.from_pretrained(checkpoint.source, local_files_only=True, trust_remote_code=False)
    budget(config, processor, resolution, max_tiles)
    model = load_weights(checkpoint, placement, "AutoModelForImageTextToText")
    widen_head(model)
    return Mllm(name, checkpoint.revision, model, processor, resolution)


def check_processor(name: str, processor: Any) -> None:
    """Refuse a model that takes no pictures, has no chat template or thinks before it answers."""
    if getattr(processor, "image_processor", None) is None:
        raise UsageError(
            f"{name} has no image processor, so it cannot be shown a picture; choose a vision-language model."
        )
    chat.check_template(processor)


def budget(config: Any, processor: Any, resolution: int | None, max_tiles: int | None) -> None:
    """Set how much of a picture the model sees, in the terms of its family."""
    from looktwice.score.local import families

    family, _ = families.find(config, processor)
    if resolution is not None:
        if family is not None and not family.native_resolution:
            raise UsageError(
                "This model brings pictures to sizes of its own; leave the resolution out, or set the number of tiles "
                "where it cuts them into tiles."
            )
        if family is not None:
            keep_budget(processor, resolution)
    if max_tiles is not None:
        if family is None or max_tiles < 1:
            raise UsageError("The number of tiles must be at least 1, and the model of a family that has tiles.")
        family.limit_tiles(processor, max_tiles)


def widen_head(model: Any) -> None:
    """Give a half-precision model a head in float32, so that scores near 0 and 1 do not all become the same number."""
    import torch

    head = model.get_output_embeddings()
    if head.weight.dtype == torch.float32:
        return
    wide = torch.nn.Linear(head.in_features, head.out_features, bias=head.bias is not None, device="meta")
    wide.weight = torch.nn.Parameter(head.weight.float(), requires_grad=False)
    if head.bias is not None:
        wide.bias = torch.nn.Parameter(head.bias.float(), requires_grad=False)
    # the model's own forward hands its head half-precision states
    wide.register_forward_pre_hook(lambda module, args: (args[0].to(module.weight.dtype),))
    model.set_output_embeddings(wide)
