"""Run multimodal checkpoints of sentence-transformers by name: `st:NAME`. Needs the extra `st`.

sentence-transformers reads the checkpoint and its prompts for queries and documents. Items are passed with their type,
so that no text is ever taken for the address of an image. Code that comes with a checkpoint is not run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.encode.base import BaseEncoder
from looktwice.encode.joint import JointEncoder, Shown
from looktwice.encode.pixels import presentable
from looktwice.errors import MissingDependency, ModelError, UsageError, first_line
from looktwice.models.checkpoints import Checkpoint
from looktwice.models.device import Placement
from looktwice.models.weights import plain_errors, quiet

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from looktwice.types import FloatArray, Item

_OURS = "sentence_transformers."


def load(checkpoint: Checkpoint, placement: Placement) -> Any:
    """Read a SentenceTransformer with its weights, frozen and in inference mode.

    Raises MissingDependency without the package, UsageError for a checkpoint that has its own code or reads no images,
    ModelError for an unreadable one.
    """
    if find_spec("sentence_transformers") is None:
        raise MissingDependency("sentence-transformers", "st", f"The encoder st:{checkpoint.name}")
    _check_files(checkpoint)
    from sentence_transformers import SentenceTransformer

    with plain_errors(checkpoint, "sentence-transformers layout"), quiet(), _complete(checkpoint):
        model = SentenceTransformer(
            str(checkpoint.source),
            device=placement.device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": placement.torch_dtype, "use_safetensors": True},
        )
    if not model.supports("image"):
        raise UsageError(f"st:{checkpoint.name} reads no images ({model.modalities}); choose a multimodal checkpoint.")
    return model.requires_grad_(False).eval()


@contextmanager
def _complete(checkpoint: Checkpoint) -> Iterator[None]:
    """Raise ModelError if transformers reports missing weights, which it fills with random numbers.

    sentence-transformers returns no list of them, so this catches the report on its way into the log.
    """
    logger = logging.getLogger("transformers.modeling_utils")
    caught = _Caught(logging.WARNING)
    level, logger.propagate = logger.level, False
    logger.addHandler(caught)
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(caught)
        logger.setLevel(level)
        logger.propagate = True
    if any("MISSING" in report for report in caught.reports):
        raise ModelError(f"The model {checkpoint.name!r} lacks some of its weights; download it again.")


class _Caught(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.reports: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.reports.append(record.getMessage())


def _check_files(checkpoint: Checkpoint) -> None:
    for module in _modules(checkpoint.source / "modules.json"):
        kind = str(module["type"])
        if not kind.startswith(_OURS):
            raise UsageError(
                f"st:{checkpoint.name} needs code of its own ({kind}), which looktwice does not run; choose one "
                "whose modules all belong to sentence-transformers."
            )
    for pickled in checkpoint.source.rglob("pytorch_model.bin"):
        if not any(pickled.parent.glob("*.safetensors")):
            inside = pickled.relative_to(checkpoint.source)
            raise ModelError(f"st:{checkpoint.name} has pickled weights ({inside}); convert them to safetensors.")


def _modules(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return [{"type": module["type"]} for module in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"The model file {str(path)!r} cannot be read ({first_line(error)}); download it again."
        ) from error


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
