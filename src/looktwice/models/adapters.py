"""Merge a LoRA adapter that was trained elsewhere into a model: `NAME+lora:FOLDER`.

peft adds the adapter to the weights when they are read, so a model with an adapter is scored as any other model is.
Name and revision of the checkpoint include the adapter's, and with them every key that scores and tokens are kept by.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.errors import LooktwiceError, Mismatch, MissingDependency, ModelError, UsageError, first_line
from looktwice.models import checkpoints
from looktwice.models.catalog import BY_NAME
from looktwice.models.checkpoints import ADAPTER, Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def resolve(name: str, revision: str | None = None) -> Checkpoint:
    """Return the checkpoint of an MLLM's name, with its adapter if it names one.

    The revision of both is "BASE+ADAPTER"; a `revision` may pin either or both. Raises as `checkpoints.resolve` does,
    UsageError for an adapter of another base model or another kind, ModelError for missing or pickled weights, and
    MissingDependency without peft.
    """
    base, mark, given = name.partition(ADAPTER)
    if not mark:
        return checkpoints.resolve(name, revision, kind="mllm")
    of_base, _, of_adapter = (revision or "").partition("+")
    checkpoint = checkpoints.resolve(base, of_base or None, kind="mllm")
    folder = Path(given).expanduser().resolve()
    _check(folder, checkpoint, base)
    found = checkpoints.fingerprint(folder)
    if not found.startswith(of_adapter):
        raise Mismatch(f"The adapter {str(folder)!r} now holds {found}, not {of_adapter}; put those weights back.")
    both = f"{checkpoint.name}{ADAPTER}{folder}", f"{checkpoint.revision}+{found}"
    return replace(checkpoint, name=both[0], revision=both[1], adapter=folder)


def _check(folder: Path, checkpoint: Checkpoint, base: str) -> None:
    """Raise UsageError or ModelError for an adapter that cannot be merged into this model."""
    if not (folder / CONFIG).is_file():
        raise UsageError(f"The adapter folder {str(folder)!r} holds no {CONFIG}; name a folder that peft saved to.")
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"The adapter {str(folder)!r} holds no {WEIGHTS}; save it as safetensors with peft.")
    if find_spec("peft") is None:
        raise MissingDependency("peft", "lora", f"An adapter ({ADAPTER})")
    config = checkpoints.read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA" or config.get("megatron_config"):
        raise UsageError(f"The adapter {str(folder)!r} is no plain LoRA ({config.get('peft_type')}); name a LoRA.")
    made_for, known = str(config.get("base_model_name_or_path") or ""), _hub_names(checkpoint, base)
    if known and checkpoints.is_hub_name(made_for) and made_for.lower() not in known:
        raise UsageError(
            f"The adapter {str(folder)!r} was trained for {made_for}, not for {base}; name that model before "
            f"{ADAPTER}. If both hold the same weights, write {sorted(known)[0]} into its {CONFIG}."
        )


def _hub_names(checkpoint: Checkpoint, base: str) -> set[str]:
    """Return what the hub calls a checkpoint; nothing for a local folder, which the weights' shapes must fit."""
    plain, _ = checkpoints.split_revision(base)
    entry = BY_NAME.get(plain)
    return set() if checkpoint.local else {n.lower() for n in ([plain] if entry is None else entry.hub.values())}


def merge(model: PreTrainedModel, checkpoint: Checkpoint) -> PreTrainedModel:
    """Return the model with the adapter of its checkpoint added to its weights.

    Raises ModelError for weights that do not fit the model.
    """
    import peft
    from safetensors.torch import load_file

    assert checkpoint.adapter is not None

    folder = checkpoint.adapter
    try:
        with warnings.catch_warnings(action="ignore"):  # what peft says of training, and of transformers to come
            wrapped = peft.PeftModel(model, peft.LoraConfig.from_pretrained(folder))
            _refuse_tied(wrapped, model, folder)
            found = peft.set_peft_model_state_dict(wrapped, load_file(folder / WEIGHTS))
            _refuse_misfit(found, folder)
            merged: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    except LooktwiceError:
        raise
    except Exception as error:  # peft and safetensors raise many kinds
        raise _misfit(folder, first_line(error)) from error
    return merged


def _refuse_misfit(found: Any, folder: Path) -> None:
    """Raise ModelError for weights without a place in the model, and for places without weights."""
    own = [key for key in found.missing_keys if "lora_" in key or "modules_to_save." in key]
    if wrong := [*found.unexpected_keys, *own]:
        raise _misfit(folder, f"{len(wrong)} of its weights have no counterpart, such as {wrong[0]}")


def _refuse_tied(wrapped: Any, model: PreTrainedModel, folder: Path) -> None:
    """Raise ModelError if the adapter changes embeddings that the head shares: merging would change both."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if any(isinstance(end, BaseTunerLayer) for end in ends) and ends[0].weight is ends[1].weight:
        raise _misfit(folder, "it changes embeddings that the model's head shares")


def _misfit(folder: Path, why: str) -> ModelError:
    return ModelError(f"The adapter {str(folder)!r} does not fit the model ({why}); name the model it was trained for.")
