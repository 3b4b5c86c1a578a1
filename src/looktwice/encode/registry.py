"""Load an encoder by name: find the checkpoint, read its settings, pick the class. Weights are read later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from looktwice.encode.mixing import PRESETS, Mixing
from looktwice.encode.name import EncoderName, parse
from looktwice.errors import Mismatch, UsageError
from looktwice.models.catalog import BY_NAME, Entry
from looktwice.models.checkpoints import Checkpoint, resolve
from looktwice.models.device import Placement, place
from looktwice.types import Encoder, EncoderInfo

if TYPE_CHECKING:
    from looktwice.encode.base import BaseEncoder
    from looktwice.encode.recipe import Recipe


def load_encoder(
    name: str | EncoderName,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | None = None,
    text_weight: float | None = None,
) -> BaseEncoder:
    """Return the encoder of this name (see `name` for the syntax); weights are read when the first item is encoded.

    `revision` pins the checkpoint as `#REVISION` does. `batch_size` None means 16 on a CPU and 64 on a GPU.
    `text_weight` in [0, 1] is the text's share in items that also have an image, like `+mix:` in the name. The result's
    `for_queries` encodes at the size and with the weights that the name gives queries; by default it is the encoder
    itself. Raises UsageError (and its kinds) for an invalid or missing name, ModelError for an unreadable checkpoint.
    """
    spec = parse(name)
    mixing = _mixing(spec, text_weight)
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"The batch size is {batch_size}; pass batch_size 1 or more.")
    if spec.linear is not None:
        spec = replace(spec, linear=str(Path(spec.linear).expanduser().resolve()))
    placement = place(device, dtype)
    checkpoint = _find(spec, revision)
    batch = batch_size or (16 if placement.device == "cpu" else 64)
    from looktwice.encode.base import QueryEncoder

    encoder = asked = _build(spec, checkpoint, placement, batch, mixing)
    if spec.query_size is not None:
        asked = _build(replace(spec, size=spec.query_size), checkpoint, placement, batch, mixing)
        side = asked.info.side
        # a table is compared by the encoder of its items; `queries` only records the name for queries
        encoder.info = replace(encoder.info, queries=_for_queries(encoder.info.name, spec))
        asked.info = replace(encoder.info, side=side)
    encoder.for_queries = QueryEncoder(asked) if mixing.name in PRESETS or asked.own_queries else asked
    return encoder


def demand_same_model(name: str, stored: EncoderInfo, place: object) -> None:
    """Raise Mismatch if `name` certainly is another model than the one whose vectors are at `place`.

    This reads and downloads nothing, so it comes before loading; the rest is compared after it. A folder may be any
    model.
    """
    try:
        mine, theirs = parse(name), parse(stored.name)
    except UsageError:
        return  # loading says what is wrong with the name
    if (mine.tower, mine.st, mine.model) != (theirs.tower, theirs.st, theirs.model) and not _is_folder(mine.model):
        raise Mismatch(
            f"{place} was made with encoder {stored.name}, not with {name}; leave out --encoder, or index into a new "
            "table."
        )


def _is_folder(model: str) -> bool:
    return model not in BY_NAME and Path(model).expanduser().exists()


def _mixing(spec: EncoderName, text_weight: float | None) -> Mixing:
    if text_weight is None:
        return Mixing.parse(spec.mix)
    if spec.mix is not None:
        raise UsageError(f"The text weight is given twice, as +mix:{spec.mix} and as {text_weight:g}; leave one out.")
    return Mixing.parse(f"{text_weight!r}")


def _find(spec: EncoderName, revision: str | None) -> Checkpoint:
    if spec.revision and revision and spec.revision != revision:
        raise UsageError(f"The revision is given twice, as {spec.revision!r} and as {revision!r}; leave one out.")
    revision = spec.revision or revision
    entry = BY_NAME.get(spec.model)
    if entry is None:
        return resolve(spec.model, revision, nested=spec.st, kind="mllm" if spec.tower else "encoder")
    if entry.kind == "mllm" and not (spec.tower or spec.st):
        raise UsageError(f"{entry.name} is a multimodal LLM; encode with its visual tokens as tower:{entry.name}.")
    if entry.kind == "encoder" and spec.tower:
        raise UsageError(f"{entry.name} is an encoder, not a multimodal LLM; leave out tower:.")
    if entry.bundled:
        return resolve(entry.name, revision, nested=spec.st)
    return replace(resolve(_made_for(entry, spec.size), revision, nested=spec.st), name=entry.name)


def _made_for(entry: Entry, side: int | None) -> str:
    """Return the checkpoint made for this size, else for the next smaller one."""
    if side is None:
        return next(iter(entry.hub.values()))
    smaller = [made for made in entry.hub if made <= side]
    return entry.hub[max(smaller) if smaller else min(entry.hub)]


def _build(
    spec: EncoderName, checkpoint: Checkpoint, placement: Placement, batch_size: int, mixing: Mixing
) -> BaseEncoder:
    from looktwice.encode.linear import load_linear
    from looktwice.encode.recipe import recipe

    made = recipe(checkpoint, spec, placement)
    if mixing.name != "0.5" and not (made.reads_text and made.mixes):
        why = "reads image and text together" if made.reads_text else "reads no text"
        raise UsageError(f"{spec.model} {why}, so it has nothing to mix; leave out +mix:.")
    dim = _kept(spec, made)
    linear = load_linear(spec.linear, dim) if spec.linear else None
    prepared = [made.pixels, made.text]
    prepared += [mixing.description] if made.reads_text and made.mixes else []
    prepared += [f"linear={linear.sha256}"] if linear else []
    encoder = made.make(
        checkpoint,
        placement,
        name=_canonical(spec, checkpoint, made.own_side, mixing),
        preprocessing="; ".join(prepared),
        dim=dim,
        linear=linear,
        batch_size=batch_size,
        mixing=mixing,
    )
    encoder.info = replace(encoder.info, side=made.own_side if spec.size is None else spec.size)
    return encoder


def _kept(spec: EncoderName, made: Recipe) -> int:
    """Return how many numbers of a vector to keep."""
    if spec.dim is None:
        return made.dim
    if not made.matryoshka:
        raise UsageError(f"{spec.model} was not trained for shorter vectors; leave out +dim:{spec.dim}.")
    if spec.dim > made.dim:
        raise UsageError(f"The vectors of {spec.model} have {made.dim} numbers; choose +dim:{made.dim} or less.")
    return spec.dim


def query_encoder(encoder: Encoder) -> Encoder:
    """Return the encoder of queries: `encoder` itself unless its name gives queries a size or weights of their own."""
    own: Encoder = getattr(encoder, "for_queries", encoder)
    return own


def _for_queries(name: str, spec: EncoderName) -> str:
    return str(replace(parse(name), size=spec.size, query_size=spec.query_size))


def _canonical(spec: EncoderName, checkpoint: Checkpoint, own_side: int | None, mixing: Mixing) -> str:
    entry = BY_NAME.get(spec.model)
    default = next(iter(entry.hub)) if entry and entry.hub else own_side
    size = None if spec.size == default else spec.size
    mix = None if mixing.name == "0.5" else mixing.name
    return str(replace(spec, model=checkpoint.name, revision=None, size=size, query_size=None, mix=mix))
