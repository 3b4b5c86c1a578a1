"""Load a scorer by its model's name."""

from __future__ import annotations

import inspect
import logging
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.errors import UsageError
from looktwice.score.base import Scorer
from looktwice.score.config import ScorerConfig
from looktwice.score.local.mllm import Mllm, keep_budget
from looktwice.score.local.retrace import Retrace
from looktwice.score.prompting import built_in, chat
from looktwice.score.prompting.prompt import Prompt
from looktwice.score.readout import modes
from looktwice.score.remote.address import lacks_scheme

if TYPE_CHECKING:
    from looktwice.models.checkpoints import Checkpoint
    from looktwice.models.device import Placement
    from looktwice.score.local.engine import Engine
    from looktwice.score.local.reference import ReferenceScorer

SCHEMES: dict[str, str] = {
    f"{kind}{scheme}": "looktwice.score.remote.connect:load"
    for kind in ("", "decisions+", "systemone+", "rerank+")
    for scheme in ("http://", "https://")
} | {"vllm:": "looktwice.score.remote.in_process:load", "rerank:": "looktwice.score.local.cross_encoder:load"}
"""Loaders by how a scorer's name begins, such as "http://": "module:function", called with (name, prompt, config)."""

log = logging.getLogger(__name__)


def load_scorer(
    mllm: str = "tiny-vl",
    *,
    prompt: str | Path | Prompt = "object",
    config: ScorerConfig | None = None,
    **settings: Any,
) -> Scorer:
    """Load a multimodal LLM and return its scorer.

    `settings` are those of ScorerConfig and take precedence over `config`. Raises UnknownName for unknown names,
    UsageError for refused settings or models, ModelError for weights that cannot be loaded.
    """
    config = ScorerConfig.of(config, **settings)
    asked = built_in.get(prompt)
    for scheme, target in SCHEMES.items():
        if mllm.startswith(scheme):
            module, _, function = target.partition(":")
            return Scorer.of(getattr(import_module(module), function)(mllm, asked, config))
    if "://" in mllm:
        raise UsageError(
            f"{mllm!r} begins with an unknown scheme; an address of a server begins with http:// or https://."
        )
    if lacks_scheme(mllm):
        raise UsageError(f"{mllm!r} looks like the address of a server; write it with http:// or https:// before it.")
    return _local(mllm, asked, config)


def _local(name: str, prompt: Prompt, config: ScorerConfig) -> Scorer:
    from looktwice.models import adapters
    from looktwice.models.device import place

    checkpoint = adapters.resolve(name, config.revision)
    mllm = load_mllm(checkpoint, place(config.device, config.dtype), config.resolution, config.max_tiles)
    return scorer(mllm, prompt, config)


def scorer(mllm: Mllm, prompt: Prompt, config: ScorerConfig | None = None, **settings: Any) -> Scorer:
    """Return the scorer of a loaded model; see `load_scorer`."""
    config = ScorerConfig.of(config, **settings)
    found = _read_at_once(mllm, prompt, config)
    if config.prior != "off":
        from looktwice.score.local.prior import PriorScorer

        return PriorScorer(found, config.prior)
    if config.score_mode in modes.READ_AT_ONCE:
        return found
    return _more_than_read(found, config.score_mode)


def _read_at_once(mllm: Mllm, prompt: Prompt, config: ScorerConfig) -> Engine | ReferenceScorer:
    """Return the scorer of the chosen path that reads one distribution, for others to build on."""
    from looktwice.score.local import families
    from looktwice.score.local.engine import Engine
    from looktwice.score.local.reference import ReferenceScorer

    family, why = families.find(mllm.model.config, mllm.processor)
    if config.path == "fast" and family is None:
        raise UsageError(f"{mllm.name} has no fast path: {why}; set the path to auto.")
    read = config.score_mode if config.score_mode in modes.READ_AT_ONCE else modes.P_LABEL
    again = Retrace.parse(config.retrace)
    if family is not None and config.path != "reference":
        return Engine(
            mllm,
            family(mllm.model, mllm.processor),
            prompt,
            batch_size=config.batch_size,
            as_released=config.as_released,
            cache_bytes=config.cache_bytes,
            mode=read,
            retrace=again,
        )
    if why is not None and config.path == "auto":
        log.warning(
            "%s runs on the slow reference path: %s; choose a model of a known family for speed.", mllm.name, why
        )
    if again is not None or config.score_mode != read:
        raise UsageError(
            f"The reference path, on which {mllm.name} runs, supports neither retrace nor the mode "
            f"{config.score_mode}; leave both out."
        )
    reason = why if config.path == "auto" else None
    return ReferenceScorer(mllm, prompt, reason=reason, as_released=config.as_released, mode=read)


def _more_than_read(engine: Engine | ReferenceScorer, mode: str) -> Scorer:
    from looktwice.score.local.engine import Engine
    from looktwice.score.local.generated import GeneratedScorer
    from looktwice.score.local.listwise import ListwiseScorer

    assert isinstance(engine, Engine)  # the reference path has refused the mode
    return ListwiseScorer(engine) if mode == modes.CHOICE else GeneratedScorer(engine, mode)


def load_mllm(
    checkpoint: Checkpoint, placement: Placement, resolution: int | None = None, max_tiles: int | None = None
) -> Mllm:
    """Load model and processor; refuse models that cannot be scored."""
    from transformers import AutoConfig

    from looktwice.models.processors import load_processor
    from looktwice.models.weights import load_weights, plain_errors
    from looktwice.score.local.last_position import hook_lock

    check_kind(checkpoint)
    processor = load_processor(checkpoint)
    check_processor(checkpoint.name, processor)
    with plain_errors(checkpoint, "configuration"):
        config = AutoConfig.from_pretrained(checkpoint.source, local_files_only=True, trust_remote_code=False)
    budget(config, processor, resolution, max_tiles)
    model = load_weights(checkpoint, placement, "AutoModelForImageTextToText")
    check_model(checkpoint.name, model)
    with hook_lock(model):  # weights are shared: another thread may hold the same model
        widen_head(model)
    return Mllm(checkpoint.name, checkpoint.revision, model, processor, resolution)


def check_kind(checkpoint: Checkpoint) -> None:
    """Raise UsageError, with the reason, if transformers cannot read a checkpoint as a model of images and text."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    name, kind = checkpoint.name, checkpoint.model_type
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return
    if kind == "internvl_chat":
        raise UsageError(
            f"{name} is InternVL with its own code, which looktwice never runs; name the -HF form of the same "
            "model (such as OpenGVLab/InternVL3_5-1B-HF)."
        )
    if checkpoint.config.get("auto_map"):
        raise UsageError(
            f"{name} ({kind}) needs its own code, which looktwice never runs; name a model whose code is in "
            "transformers."
        )
    if kind in transformers.CONFIG_MAPPING:
        raise UsageError(f"{name} is a {kind} model, which does not read images and write text; name another model.")
    raise UsageError(
        f"{name} is a {kind} model, which transformers {transformers.__version__} does not know; install a newer "
        "transformers, or name another model."
    )


def check_processor(name: str, processor: Any) -> None:
    """Raise UsageError if a model takes no images, has no chat template or thinks before it answers."""
    if getattr(processor, "image_processor", None) is None:
        raise UsageError(f"{name} has no image processor, so it cannot read images; choose a vision-language model.")
    chat.check_template(processor)


def check_model(name: str, model: Any) -> None:
    """Refuse a model in which no next token follows the prompt, or whose head cannot be found."""
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        raise UsageError(
            f"{name} is an encoder-decoder model, in which no next token follows the prompt; choose a decoder-only "
            "model."
        )
    if model.get_output_embeddings() is None:
        raise UsageError(
            f"{name} has no language-model head (get_output_embeddings() returns None), so no next token can be read; "
            "choose another model."
        )


def budget(config: Any, processor: Any, resolution: int | None, max_tiles: int | None) -> None:
    """Limit how many pixels or tiles of an image the model sees, in the terms of its family."""
    from looktwice.score.local import families

    family, _ = families.find(config, processor)
    if resolution is not None:
        if family is not None and not family.native_resolution:
            raise UsageError(
                "This model scales images to its own sizes; leave --resolution out, or use --max-tiles if it cuts "
                "images into tiles."
            )
        if family is not None:
            keep_budget(processor, resolution)
    if max_tiles is not None:
        if family is None or max_tiles < 1:
            raise UsageError("--max-tiles needs a number of at least 1 and a model that cuts images into tiles.")
        family.limit_tiles(processor, max_tiles)


def widen_head(model: Any) -> None:
    """Give a half-precision model a head in float32, so that scores near 0 and 1 stay apart."""
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
