"""Read checkpoints of sentence-transformers: complete, from safetensors, without their own code. Needs extra `st`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from looktwice.errors import MissingDependency, ModelError, UsageError, first_line
from looktwice.models.checkpoints import Checkpoint
from looktwice.models.device import Placement
from looktwice.models.weights import plain_errors, quiet

_OURS = "sentence_transformers."


def read(
    checkpoint: Checkpoint, placement: Placement, kind: Literal["SentenceTransformer", "CrossEncoder"], name: str
) -> Any:
    """Return a model of this class with its weights, frozen and in inference mode; messages call it `name`.

    Raises MissingDependency without the package, UsageError for a checkpoint that has its own code, ModelError for an
    unreadable one.
    """
    if find_spec("sentence_transformers") is None:
        raise MissingDependency("sentence-transformers", "st", name)
    _check_files(checkpoint, name)
    import sentence_transformers

    with plain_errors(checkpoint, "sentence-transformers layout"), quiet(), _complete(checkpoint):
        model = getattr(sentence_transformers, kind)(
            str(checkpoint.source),
            device=placement.device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": placement.torch_dtype, "use_safetensors": True},
        )
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


def _check_files(checkpoint: Checkpoint, name: str) -> None:
    for module in _modules(checkpoint.source / "modules.json"):
        kind = str(module["type"])
        if not kind.startswith(_OURS):
            raise UsageError(
                f"{name} needs code of its own ({kind}), which looktwice does not run; choose one "
                "whose modules all belong to sentence-transformers."
            )
    for pickled in checkpoint.source.rglob("pytorch_model.bin"):
        if not any(pickled.parent.glob("*.safetensors")):
            inside = pickled.relative_to(checkpoint.source)
            raise ModelError(f"{name} has pickled weights ({inside}); convert them to safetensors.")


def _modules(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return [{"type": module["type"]} for module in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"The model file {str(path)!r} cannot be read ({first_line(error)}); download it again."
        ) from error
