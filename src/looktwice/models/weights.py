"""Read weights into a model: from safetensors only, complete, on its device, and only once per model.

This module knows torch and transformers, not what the model is used for.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from looktwice.errors import LooktwiceError, ModelError, first_line
from looktwice.models import adapters
from looktwice.models.checkpoints import Checkpoint
from looktwice.models.device import Placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_loaded: weakref.WeakValueDictionary[tuple[str, ...], Any] = weakref.WeakValueDictionary()
_reading = threading.Lock()  # one read at a time, because transformers sets torch's default dtype for the whole process


def load_weights(checkpoint: Checkpoint, placement: Placement, auto: str = "AutoModel") -> PreTrainedModel:
    """Return the checkpoint's model, frozen and in inference mode, made by one of transformers' `Auto…` classes.

    An encoder and a scorer that name the same MLLM share one copy while either lives. Raises ModelError for damaged or
    incomplete weights, because transformers would fill what is missing with random numbers.
    """
    key = (auto, str(checkpoint.source), checkpoint.revision, placement.device, placement.dtype)
    model = _loaded.get(key)  # a loaded model never waits for the reading of another
    if model is None:
        with _reading:
            model = _loaded.get(key)  # another thread may have read it meanwhile
            if model is None:
                model = _loaded[key] = _read(checkpoint, placement, auto)
    return model


def _read(checkpoint: Checkpoint, placement: Placement, auto: str) -> PreTrainedModel:
    import transformers

    with plain_errors(checkpoint, "weights"), quiet():
        model, info = getattr(transformers, auto).from_pretrained(
            checkpoint.source,
            dtype=placement.torch_dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"The model {checkpoint.name!r} lacks {len(missing)} of its weights ({missing[0]}, …); download the "
            "complete model again."
        )
    if checkpoint.adapter is not None:
        model = adapters.merge(model, checkpoint)
    return model.requires_grad_(False).eval().to(placement.device)


@contextmanager
def plain_errors(checkpoint: Checkpoint, what: str) -> Iterator[None]:
    """Turn any error that transformers raises on a bad checkpoint into one sentence (ModelError)."""
    try:
        yield
    except LooktwiceError:
        raise
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError, Rust panics of tokenizers: any of them
        raise ModelError(
            f"The {what} of the model {checkpoint.name!r} cannot be read ({first_line(error)}); "
            "name a complete checkpoint that transformers knows."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and warnings off the terminal while something loads."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
