"""Read from a model's `config.json` what cost follows from: weights, FLOP and visual tokens per image.

What differs by family stands beside the families, in `score.local.families.costs`. The symbols are those of
docs/explanation/performance.md. Reads JSON only: no torch, no transformers, no network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from looktwice.errors import UnknownName, UsageError
from looktwice.models.decoders import TEXT_DEFAULTS, Config, Layer, layers
from looktwice.score.local.families.costs import COSTS
from looktwice.types import Block, Layout, TextIds


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that cost follows from. `tile` is None if images keep their own shape (native resolution).

    `budget`: tokens that every image is scaled to, in its own shape (None: as many as its size gives). All but
    `full_layers` of the tower's layers attend within windows of `window` patches, if it has windows. `whole`: the
    checkpoint's processor shows images whole, though its family could cut them into tiles.
    """

    family: str
    decoder: tuple[Layer, ...]
    width: int
    vocab: int
    vision_layers: int
    vision_width: int
    vision_ffn: int
    vision_gated: bool
    patch: int
    merge: int
    tile: int | None
    levels: int
    full_layers: int
    window: int
    budget: int | None = None
    whole: bool = False

    @property
    def weights(self) -> int:
        """Return W: weights of the language model's matrices, without embeddings and head."""
        return sum(layer.weights for layer in self.decoder)

    @property
    def active_weights(self) -> int:
        """Return Wa: the weights that one token goes through, with only the experts it is sent to."""
        return sum(layer.active for layer in self.decoder)

    @property
    def vision_weights(self) -> int:
        """Return Wv: weights of the vision tower's matrices, without patch embedding and merger."""
        ffn = (3 if self.vision_gated else 2) * self.vision_width * self.vision_ffn
        return self.vision_layers * (4 * self.vision_width**2 + ffn)

    @property
    def kv_bytes_per_token(self) -> int:
        """Return the bytes of keys and values per token, at 16 bits."""
        return 2 * sum(layer.cached for layer in self.decoder)

    def forward(self, new: float, cached: float = 0) -> float:
        """Return F(T|S): FLOP of `new` tokens after `cached` ones through the language model, without its head."""
        mixing = sum(4 * layer.width * layer.attended(new, cached) + layer.state * new for layer in self.decoder)
        return 2 * self.active_weights * new + mixing

    def head(self, positions: float = 1) -> float:
        """Return H: FLOP of projecting `positions` positions to the vocabulary."""
        return 2 * self.width * self.vocab * positions

    def tower(self, patches: int) -> float:
        """Return Fv: FLOP of the vision tower for one view of `patches` patches."""
        seen = self.full_layers * patches + (self.vision_layers - self.full_layers) * min(patches, self.window)
        return 2 * self.vision_weights * patches + 4 * self.vision_width * patches * seen


def load_config(model: str | Path | Config) -> Config:
    """Return a config.json as a mapping: `model` itself, from a folder or file, or the bundled shape of its name.

    Raises UnknownName for a name that is none of these, UsageError for an unreadable file.
    """
    if isinstance(model, Mapping):
        return model
    path = Path(model)
    path = path / "config.json" if path.is_dir() else path
    return {**_read(path), **_splitting(path.parent)} if path.is_file() else _public(str(model))


def _read(path: Path) -> Config:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be read as JSON ({error}); mend it, or name another model's config.json."
        ) from error
    if not isinstance(config, dict):
        raise UsageError(f"{path} is not a model's configuration; name a model's config.json.")
    return config


def _splitting(folder: Path) -> Config:
    """Return what the processor beside a configuration says of cutting images into tiles; config.json says nothing."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            own = _read(folder / name)
            images = own.get("image_processor", own)
            if isinstance(images, Mapping) and "do_image_splitting" in images:
                return {"do_image_splitting": images["do_image_splitting"]}
    return {}


@cache
def public_shapes() -> Mapping[str, Config]:
    """Return the bundled shapes by model name: the parts of public config.json files that cost depends on."""
    table: dict[str, Config] = json.loads((resources.files("looktwice") / "assets/mllm_shapes.json").read_text("utf-8"))
    return table


def _public(name: str) -> Config:
    table = public_shapes()
    short = {full.rsplit("/", 1)[-1].lower(): full for full in table} | {full.lower(): full for full in table}
    if name.lower() not in short:
        raise UnknownName("model (a folder with a config.json will do)", name, table)
    return table[short[name.lower()]]


def shape(config: Config) -> Shape:
    """Read the symbols from a configuration. Raises UsageError for an unknown family."""
    family = str(config.get("model_type"))
    if family not in COSTS:
        raise UsageError(f"The costs of the family {family!r} are unknown; use a model of {', '.join(COSTS)}.")
    own = COSTS[family]
    text: Config = config.get("text_config") or config  # older Qwen2.5-VL files are flat
    kind = text.get("model_type", own.text_type)
    kind = kind if kind in TEXT_DEFAULTS else own.text_type
    text = {**TEXT_DEFAULTS[kind], **_stated(text)}
    vision = {**own.vision, **_stated(config.get("vision_config") or {})}
    patch, depth = _side(vision["patch_size"]), vision[own.depth]
    return Shape(
        family=family,
        decoder=layers(kind, text),
        width=text["hidden_size"],
        vocab=text["vocab_size"],
        vision_layers=depth,
        vision_width=vision["hidden_size"],
        vision_ffn=vision["intermediate_size"],
        vision_gated=own.gated_tower,
        patch=patch,
        merge=own.merge(config, vision),
        tile=None if own.tiled is None else _side(vision["image_size"]),
        levels=len(vision["deepstack_visual_indexes"]) if "deepstack_visual_indexes" in own.vision else 0,
        full_layers=len(vision.get("fullatt_block_indexes", range(depth))),
        window=(vision.get("window_size", 0) // patch) ** 2,
        budget=own.budget(config),
        whole=config.get("do_image_splitting") is False,
    )


def _stated(part: Config) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value is not None}


def _side(value: Any) -> int:
    return int(value if isinstance(value, int) else value[0])


def image_layout(
    model: Shape, size: tuple[int, int] = (1024, 768), *, resolution: int | None = None, max_tiles: int | None = None
) -> Layout:
    """Return the layout of an image of `size` (width, height) in a prompt that shows two.

    `resolution` is the longer side for families with native resolution, `max_tiles` the budget of tiled ones (default:
    the model's own). Ids of text markers are zeros: only their number matters here.
    """
    tiled = COSTS[model.family].tiled
    if tiled is not None and model.tile is not None:
        most = max_tiles or (1 if model.whole else None)
        return tiled(size, model.tile // model.patch // model.merge, model.tile, most)
    width, height = size
    if resolution is not None:
        width, height = (max(1, side * resolution // max(size)) for side in size)
    if model.budget is not None:
        return (TextIds((0,)), Block("global", *_within(model.budget, height, width)), TextIds((0,)))
    step = model.patch * model.merge
    return (Block("global", max(1, round(height / step)), max(1, round(width / step))),)


def _within(budget: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of an image scaled to at most `budget` tokens, keeping the ratio of its sides."""
    scale = math.sqrt(budget / (height * width))
    rows, columns = math.floor(scale * height), math.floor(scale * width)
    if not rows:
        return 1, min(width // height, budget)
    return (rows, columns) if columns else (min(height // width, budget), 1)


def patches(model: Shape, layout: Layout) -> list[int]:
    """Return the patches of each view that the tower runs on."""
    return [part.h * part.w * model.merge**2 for part in layout if isinstance(part, Block)]
