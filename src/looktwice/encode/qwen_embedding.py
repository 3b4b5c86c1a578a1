"""Encode with Qwen3-VL-Embedding (arXiv 2601.04720): one chat turn in, the last state is the vector.

The steps are those of QwenLM/Qwen3-VL-Embedding: the instruction is the system turn, the image precedes the text, the
assistant's turn is opened, padding is on the right. Vectors are Matryoshka: `+dim:256` keeps the first 256 numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from looktwice.encode.base import log
from looktwice.encode.joint import JointEncoder, Shown
from looktwice.encode.pixels import resize_larger_side
from looktwice.models.checkpoints import Checkpoint
from looktwice.models.processors import cleaner, load_processor
from looktwice.models.weights import quiet

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import ProcessorMixin

FAMILIES = ("qwen3_vl",)
ITEM = "Represent the user's input."
QUERY = "Retrieve images or text relevant to the user's query."
TEXT = f"text=together, items {ITEM!r}, queries {QUERY!r}"
LEAST, MOST = 4, 1800  # visual tokens of one image
_PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")


def is_embedding(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint of these families was trained to embed; its architecture is that of the MLLM.

    It has a pooling module in its files for sentence-transformers, or "embedding" in its own name.
    """
    named = checkpoint.name.replace("\\", "/").rsplit("/", 1)[-1]
    modules = checkpoint.source / "modules.json"
    pooled = modules.is_file() and "Pooling" in modules.read_text(encoding="utf-8", errors="replace")
    return pooled or "embedding" in named.lower()


class QwenEmbedding(JointEncoder):
    """An encoder with one vector per item; with `side`, the larger side is first resized to that many pixels."""

    own_queries = True

    def __init__(self, *args: Any, side: int | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.side = side
        self.window = 8192

    @cached_property
    def processor(self) -> ProcessorMixin:
        """Return the model's processor, read at first use."""
        return load_processor(self.checkpoint)

    @cached_property
    def _clean(self) -> Callable[[str], str]:
        return cleaner(self.processor)

    def _together(self, shown: list[Shown], asked: bool) -> Tensor:
        import torch

        inputs = self._cut(self._prepared(shown, QUERY if asked else ITEM))
        states = self.model(**self.to_device(inputs)).last_hidden_state
        last = inputs["attention_mask"].sum(1).to(states.device) - 1
        vectors: Tensor = states[torch.arange(len(shown), device=states.device), last, : self._width]
        return vectors

    def _prepared(self, shown: list[Shown], instruction: str) -> dict[str, Tensor]:
        images = [self._resized(image) for image, _ in shown if image is not None]
        turns = [_conversation(instruction, image is not None, text and self._clean(text)) for image, text in shown]
        with quiet():
            prompts = self.processor.apply_chat_template(turns, add_generation_prompt=True)
            sizes = {"images": images, "do_resize": False} if images else {}
            inputs = self.processor(text=prompts, padding=True, padding_side="right", return_tensors="pt", **sizes)
        return dict(inputs)

    def _resized(self, image: Image) -> Image:
        """Resize with Pillow instead of the processor, so that an index is the same on every machine."""
        from PIL.Image import Resampling
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        if self.side is not None:
            image = resize_larger_side(image, self.side)
        settings = self.processor.image_processor
        unit = settings.patch_size * settings.merge_size
        height, width = smart_resize(image.height, image.width, unit, LEAST * unit**2, MOST * unit**2)
        return image.resize((width, height), Resampling.BICUBIC)

    def _cut(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        longer = int((inputs["attention_mask"].sum(1) > self.window).sum())
        if longer and not self.truncated:
            log.warning(
                "%s reads %d tokens of image and text and cuts longer items; shorten their texts.",
                self.info.name,
                self.window,
            )
        self.truncated += longer
        return {name: value[:, : self.window] if name in _PER_TOKEN else value for name, value in inputs.items()}


def _conversation(instruction: str, image: bool, text: str | None) -> list[dict[str, Any]]:
    content: list[dict[str, str]] = [{"type": "image"}] if image else []
    if text is not None:
        content.append({"type": "text", "text": text})
    system = {"role": "system", "content": [{"type": "text", "text": instruction}]}
    return [system, {"role": "user", "content": content}]
