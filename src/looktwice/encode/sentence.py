"""Run multimodal checkpoints of sentence-transformers by name: `st:NAME`. Needs the extra `st`.

sentence-transformers reads the checkpoint and its prompts for queries and documents. Items are passed with their type,
so that no text is ever taken for the address of an image. Code that comes with a checkpoint is not run.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

from looktwice.encode.base import BaseEncoder
from looktwice.encode.joint import JointEncoder, Shown
from looktwice.encode.pixels import presentable
from looktwice.errors import UsageError
from looktwice.models.checkpoints import Checkpoint
from looktwice.models.device import Placement
from looktwice.models.sentence import read

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from looktwice.types import FloatArray, Item


def load(checkpoint: Checkpoint, placement: Placement) -> Any:
    """Read a SentenceTransformer with its weights, frozen and in inference mode.

    Raises UsageError for a checkpoint that reads no images, and the errors of `models.sentence.read`.
    """
    model = read(checkpoint, placement, "SentenceTransformer", f"st:{checkpoint.name}")
    if not model.supports("image"):
        raise UsageError(f"st:{checkpoint.name} reads no images ({model.modalities}); choose a multimodal checkpoint.")
    return model


def dim_of(model: Any) -> int:
    """Return the length of a SentenceTransformer's vectors; encode one image if the model does not state it."""
    known = model.get_embedding_dimension()
    return int(known if known is not None else encoded(model, [(_blank(), None)], asked=False).shape[-1])


def _blank() -> Image:
    from PIL import Image

    return Image.new("RGB", (64, 64))


def encoded(model: Any, shown: list[Shown], asked: bool) -> Tensor:
    """Encode items, or queries, that show the same parts, as one batch."""
    inputs = [{name: part for name, part in zip(("image", "text"), one, strict=True) if part} for one in shown]
    encode = model.encode_query if asked else model.encode_document
    vectors: Tensor = encode(inputs, batch_size=len(inputs), convert_to_tensor=True, show_progress_bar=False)
    return vectors


class _Sentence(BaseEncoder):
    """The base of both kinds: it holds the model, which was read to describe the encoder."""

    own_queries = True

    def __init__(self, *args: Any, loaded: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.model = loaded
        self.reads_text = bool(loaded.supports("text"))

    def _key(self, image: Image) -> Hashable:
        return None


class SentenceEncoder(_Sentence):
    """A model whose images and texts meet in one space; an item with both is their mixture."""

    asked = False

    @cached_property
    def _twin(self) -> SentenceEncoder:
        """Return the same encoder with the same weights and the prompt of queries."""
        twin = copy(self)
        twin.asked = True
        return twin

    def encode_queries(self, items: Sequence[Item]) -> FloatArray:
        """Encode with the prompt and the weights of queries."""
        return self._twin._mixed(items, self.mixing.queries, asked=True)

    def _images(self, images: list[Image]) -> Tensor:
        return encoded(self.model, [(presentable(image), None) for image in images], self.asked)[:, : self._width]

    def _texts(self, texts: list[str]) -> Tensor:
        return encoded(self.model, [(None, text) for text in texts], self.asked)[:, : self._width]


class JointSentenceEncoder(_Sentence, JointEncoder):
    """A model that reads image and text as one input."""

    def _together(self, shown: list[Shown], asked: bool) -> Tensor:
        return encoded(self.model, shown, asked)[:, : self._width]
