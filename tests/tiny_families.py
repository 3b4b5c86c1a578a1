"""Tiny random checkpoints of every image-text family in transformers: one row a family.

    build(row, folder)       # the family's default configuration, made small, with the row's changes
    measure(row, folder)     # how far looktwice's reference path is from stock processor and forward

A row (in family_rows.py) says what differs: control tokens, settings of the processor's parts, values of the
configuration. A new family is a new row; start with `Row("its model_type")` and read what fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
import torch
from PIL import Image
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, AutoProcessor, PretrainedConfig
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from looktwice.errors import LooktwiceError
from looktwice.models import checkpoints
from looktwice.models.device import place
from looktwice.score.load import load_mllm
from looktwice.score.local import families
from looktwice.score.local.mllm import Mllm
from looktwice.score.local.reference import ReferenceScorer
from looktwice.score.prompting import built_in
from looktwice.types import Item

Settings = Mapping[str, Any]
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
VOCABULARY = 1024
SMALL = {  # by the name of a configuration's value, wherever it occurs
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "vocab_size": VOCABULARY, "depth": 2, "num_heads": 2, "embed_dim": 32,
    "out_hidden_size": 32, "moe_intermediate_size": 16, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "max_position_embeddings": 4096, "vision_output_dim": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One family. `image` is what its chat template writes for an image.

    `tokens`: further control tokens, by the attribute the tokenizer has for them ("" for none) or listed as "a b c";
    `ids`: values of the configuration that are ids of tokens; `config`: other values, by dotted path; `images` and
    `processor`: settings of the image processor and of the processor; `needs`: the package that its processor asks for;
    `refused`: what the refusal says.
    """

    kind: str
    image: str = "<image>"
    name: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict)
    special: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)
    config: Settings = field(default_factory=dict)
    images: Settings = field(default_factory=dict)
    processor: Settings = field(default_factory=dict)
    processor_class: str = ""
    image_processor: str = ""
    template: bool = True
    needs: str = ""
    refused: str = ""
    slow: bool = False

    @property
    def key(self) -> str:
        """What the row goes by."""
        return self.name or self.kind


def build(row: Row, folder: Path) -> Path:
    """Write a tiny checkpoint of this family and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    tokenizer = _tokenizer(row)
    tokenizer.save_pretrained(folder)
    name = row.processor_class or PROCESSOR_MAPPING_NAMES.get(row.kind)
    tiny_models.write(folder, "processor_config.json", {"processor_class": name, **row.processor})
    kind = row.image_processor or IMAGE_PROCESSOR_MAPPING_NAMES.get(row.kind, {}).get("torchvision")
    tiny_models.write(folder, "preprocessor_config.json", {"image_processor_type": kind, **row.images})
    if row.template:
        tiny_models.write(folder, "chat_template.jinja", _template(row))
    config = _config(row, tokenizer)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    tiny_models.randomise(model, 0.2).save_pretrained(folder)
    return folder


def _tokenizer(row: Row) -> Any:
    named = {"image_token": row.image, **row.tokens}
    special = dict.fromkeys([*NAMES.values(), *named.values(), *row.special.split()])
    return tiny_models.byte_tokenizer(list(special), **NAMES, extra_special_tokens=named)


def _template(row: Row) -> str:
    return (
        "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + row.image + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )


def _config(row: Row, tokenizer: Any) -> PretrainedConfig:
    values = _small(CONFIG_MAPPING[row.kind](), tokenizer, row.tokens.get("image_token", row.image))
    for path, token in row.ids.items():
        _put(values, path, tokenizer.convert_tokens_to_ids(token))
    for path, value in row.config.items():
        _put(values, path, value)
    del values["model_type"]
    return CONFIG_MAPPING[row.kind](**values)


def _small(config: PretrainedConfig, tokenizer: Any, image: str) -> dict[str, Any]:
    """Return what makes this configuration small, and the ids of its tokens."""
    values: dict[str, Any] = {"model_type": config.model_type}
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            values[name] = _small(value, tokenizer, image)
        elif name in SMALL and isinstance(value, int):
            values[name] = SMALL[name]
        elif name in ("bos_token_id", "eos_token_id", "pad_token_id") and value is not None:
            values[name] = getattr(tokenizer, name)
        elif name in ("image_token_id", "image_token_index") and value is not None:
            values[name] = tokenizer.convert_tokens_to_ids(image)
    return values


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value


# --- looktwice against stock ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of one family: its path, the largest difference of a logit, or why it is refused."""

    kind: str
    path: str
    delta: float = float("nan")
    reason: str = ""


def picture(width: int, height: int) -> Image.Image:
    """Smooth noise: every patch differs."""
    rng = np.random.default_rng([width, height])
    coarse = Image.fromarray(rng.integers(0, 255, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


QUERY = Item("query", image=picture(77, 123))
CANDIDATES = [Item("wide", image=picture(90, 40)), Item("square", image=picture(64, 64))]


def measure(row: Row, folder: Path) -> Outcome:
    """Compare the reference path with stock processor and forward, or tell why looktwice refuses the checkpoint."""
    try:
        mllm = load_mllm(checkpoints.resolve(str(build(row, folder))), place("cpu", "float32"))
    except LooktwiceError as error:
        return Outcome(row.key, "refused", reason=str(error).replace(str(folder), row.kind))
    try:
        delta = largest_delta(mllm, folder)
    except LooktwiceError as error:
        return Outcome(row.key, "refused", reason=str(error).replace(str(folder), row.kind))
    family, _ = families.find(mllm.model.config, mllm.processor)
    return Outcome(row.key, "reference" if family is None else "fast", delta)


def largest_delta(mllm: Mllm, folder: Path) -> float:
    """Return the largest difference of any logit of either pair from what stock code gives."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = stock_processor(mllm, folder)
    reference = ReferenceScorer(mllm, built_in.get("object"))
    ours = torch.stack([reference.logits(QUERY, candidate) for candidate in CANDIDATES])
    stock = torch.stack([stock_logits(model, processor, QUERY, candidate) for candidate in CANDIDATES])
    assert stock.std(dim=1).min() > 0.05, "logits so flat show no difference"
    assert (stock[0] - stock[1]).abs().max() > 2e-3, "another image must give other logits"
    return float((ours - stock).abs().max())


def stock_processor(mllm: Mllm, folder: Path) -> Any:
    """Return what AutoProcessor gives; where it needs torchvision and that is missing, its class without video."""
    wants_video = "video_processor" in type(mllm.processor).get_attributes()
    if wants_video and find_spec("torchvision") is None:
        return mllm.processor
    return AutoProcessor.from_pretrained(folder)


@torch.no_grad()
def stock_logits(model: Any, processor: Any, query: Item, candidate: Item) -> torch.Tensor:
    """Return the next token's logits as the documentation of transformers gets them."""
    shown = [{"type": "image", "image": item.image} for item in (query, candidate)]
    question = {"type": "text", "text": built_in.get("object").segments[-1].text}
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [*shown, question]}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    inputs = inputs.to(model.dtype)  # one processor (Llama 4's) gives bfloat16
    logits: torch.Tensor = model(**inputs).logits[0, -1].float()
    return logits
