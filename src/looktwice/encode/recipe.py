"""Choose the kind of encoder from a checkpoint's configuration; one small function per kind."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from looktwice.encode import clip, qwen_embedding, vision
from looktwice.encode.name import EncoderName
from looktwice.encode.pixels import LargerSide, OwnPixels, Pixels
from looktwice.errors import ModelError, UsageError
from looktwice.models.checkpoints import Checkpoint
from looktwice.models.device import Placement
from looktwice.models.processors import load_image_processor
from looktwice.models.weights import plain_errors, quiet

if TYPE_CHECKING:
    from looktwice.encode.base import BaseEncoder


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe for an encoder, which `make(checkpoint, placement, **settings)` builds.

    `dim` is the length of vectors before adaptation. `own_side` is the checkpoint's own image size in pixels (None: not
    fixed). `pixels` and `text` name the preparation of images and text. `mixes` means that image and text are encoded
    apart and mixed. `matryoshka` means that the first numbers of a vector are a vector too.
    """

    make: Callable[..., BaseEncoder]
    dim: int
    own_side: int | None
    pixels: str
    text: str = "text=none"
    mixes: bool = True
    matryoshka: bool = False

    @property
    def reads_text(self) -> bool:
        """Return whether the encoder reads text."""
        return self.text != "text=none"


def recipe(checkpoint: Checkpoint, spec: EncoderName, placement: Placement) -> Recipe:
    """Return the recipe for this checkpoint as `spec` names it.

    Raises UsageError for a model that is not an encoder, ModelError for unreadable settings.
    """
    _refuse_own_code(checkpoint)
    if spec.st:
        return _sentence(checkpoint, spec.size, placement)
    kind, side = checkpoint.model_type, spec.size
    if kind == "timm" and not spec.tower:
        return _timm(checkpoint, side)
    config = _config(checkpoint)
    if spec.tower:
        return _tower(checkpoint, config, side)
    for kinds, make in _KINDS:
        if kind in kinds:
            return make(checkpoint, config, side)
    if hasattr(config, "vision_config") and hasattr(config, "text_config"):
        raise UsageError(f"{checkpoint.name} is a multimodal LLM; encode with it as tower:{checkpoint.name}.")
    known = ", ".join(sorted([*(kind for kinds, _ in _KINDS for kind in kinds), "timm"]))
    raise UsageError(f"{checkpoint.name} has the unknown encoder type {kind!r}; use a checkpoint of one of: {known}.")


def _refuse_own_code(checkpoint: Checkpoint) -> None:
    from transformers import CONFIG_MAPPING

    config = checkpoint.config if (checkpoint.source / "config.json").is_file() else {}
    if "auto_map" in config and checkpoint.model_type not in CONFIG_MAPPING:
        raise UsageError(
            f"{checkpoint.name} ({checkpoint.model_type}) needs code from its repository, which looktwice never runs; "
            "choose an encoder that transformers supports (list: looktwice models encoder)."
        )


def _config(checkpoint: Checkpoint) -> Any:
    from transformers import AutoConfig

    with plain_errors(checkpoint, "configuration"), quiet():
        return AutoConfig.from_pretrained(checkpoint.source, local_files_only=True, trust_remote_code=False)


def _sentence(checkpoint: Checkpoint, side: int | None, placement: Placement) -> Recipe:
    from looktwice.encode import sentence

    if side is not None:
        raise UsageError(f"st:{checkpoint.name} has a fixed image size; leave out @{side}.")
    model = sentence.load(checkpoint, placement)
    joint = bool(model.supports(("image", "text")))
    make = partial(sentence.JointSentenceEncoder if joint else sentence.SentenceEncoder, loaded=model)
    text = "text=st" if model.supports("text") else "text=none"
    return Recipe(make, sentence.dim_of(model), None, "images=st", text, mixes=not joint, matryoshka=True)


def _qwen(checkpoint: Checkpoint, config: Any, side: int | None) -> Recipe:
    if not qwen_embedding.is_embedding(checkpoint):
        raise UsageError(
            f"{checkpoint.name} is a multimodal LLM; encode with it as tower:{checkpoint.name} (an embedding model has "
            "a pooling in its modules.json, or 'embedding' in its name)."
        )
    prepared = "own" if side is None else f"larger-side={side}"
    make = partial(qwen_embedding.QwenEmbedding, side=side)
    dim = int(config.text_config.hidden_size)
    images = f"images={prepared},{qwen_embedding.LEAST}-{qwen_embedding.MOST}-tokens,last-token"
    return Recipe(make, dim, None, images, qwen_embedding.TEXT, mixes=False, matryoshka=True)


def _clip(checkpoint: Checkpoint, config: Any, side: int | None) -> Recipe:
    own, pixels = _pixels(checkpoint, getattr(config.vision_config, "patch_size", None), side)
    make = partial(clip.ClipEncoder, pixels=pixels, config=config)
    return Recipe(make, clip.dim_of(config), own, pixels.description, clip.STYLES[config.model_type].description)


def _vision(checkpoint: Checkpoint, config: Any, side: int | None) -> Recipe:
    own, pixels = _pixels(checkpoint, getattr(config, "patch_size", None), side)
    make = partial(vision.VisionEncoder, pixels=pixels, config=config)
    return Recipe(make, vision.dim_of(config), own, f"{pixels.description},{vision.POOLING[config.model_type]}")


def _tower(checkpoint: Checkpoint, config: Any, side: int | None) -> Recipe:
    from looktwice.encode.tower import TowerEncoder

    if not (hasattr(config, "vision_config") and hasattr(config, "text_config")) or config.model_type in clip.STYLES:
        raise UsageError(f"{checkpoint.name} is not a multimodal LLM ({checkpoint.model_type}); leave out tower:.")
    prepared = "own" if side is None else f"larger-side={side}"
    make = partial(TowerEncoder, side=side)
    return Recipe(make, int(config.text_config.hidden_size), None, f"pictures={prepared},mean-of-visual-tokens")


def _timm(checkpoint: Checkpoint, side: int | None) -> Recipe:
    from looktwice.encode import timm_tower

    timm_tower.require_timm(checkpoint.name)
    own, dim, pixels = timm_tower.describe(checkpoint, side)
    return Recipe(partial(timm_tower.TimmEncoder, pixels=pixels), dim, own, pixels.description)


def _pixels(checkpoint: Checkpoint, patch: Any, side: int | None) -> tuple[int | None, Pixels]:
    processor = load_image_processor(checkpoint)
    own = _own_side(processor)
    if hasattr(processor, "max_num_patches"):  # NaFlex keeps the aspect by itself
        return None, _naflex(processor, side)
    if side is None or side == own:
        return own, OwnPixels(processor, f"pictures=own@{own}", {})
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    if len(mean) != 3 or len(std) != 3:
        raise ModelError(f"The image processor of {checkpoint.name!r} does not take RGB images; choose another model.")
    return own, LargerSide(side, int(patch or 1), mean, std)


def _naflex(processor: Any, side: int | None) -> OwnPixels:
    patches = processor.max_num_patches if side is None else (side // processor.patch_size) ** 2
    if patches < 1:
        raise UsageError(f"{side} px is less than one patch of this model; choose @{processor.patch_size} or more.")
    return OwnPixels(processor, f"pictures=naflex,{patches}", {"max_num_patches": patches})


def _own_side(processor: Any) -> int | None:
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else getattr(processor, "size", None)
    return getattr(size, "height", None)


_KINDS: tuple[tuple[Collection[str], Callable[[Checkpoint, Any, int | None], Recipe]], ...] = (
    (clip.STYLES, _clip),
    (vision.POOLING, _vision),
    (qwen_embedding.FAMILIES, _qwen),
)
