"""Tiny random checkpoints of every image-text family in transformers: one row a family.

    build(BY_NAME["gemma3"], folder)       # the family's default configuration, made small, with the row's changes
    measure(BY_NAME["gemma3"], folder)     # how far looktwice's reference path is from stock processor and forward

A row says what differs: the control tokens, the settings of the processor's parts, values of the configuration. A new
family is a new row; start with `Row("its model_type")` and read what fails.
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

from looktwice import checkpoints
from looktwice.device import place
from looktwice.errors import LooktwiceError
from looktwice.score import families, prompts
from looktwice.score.load import load_mllm
from looktwice.score.mllm import Mllm
from looktwice.score.reference import Reference
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
    `processor`: settings of the image processor and of the processor; `refused`: what the refusal says.
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
    torchvision: bool = False
    refused: str = ""
    slow: bool = False


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
    model = AutoModelForImageTextToText.from_config(config)
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
        return Outcome(row.name or row.kind, "refused", reason=str(error).replace(str(folder), row.kind))
    try:
        delta = largest_delta(mllm, folder)
    except LooktwiceError as error:
        return Outcome(row.name or row.kind, "refused", reason=str(error).replace(str(folder), row.kind))
    family, _ = families.find(mllm.model.config)
    return Outcome(row.name or row.kind, "reference" if family is None else "fast", delta)


def largest_delta(mllm: Mllm, folder: Path) -> float:
    """Return the largest difference of any logit of either pair from what stock code gives."""
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = stock_processor(mllm, folder)
    reference = Reference(mllm, prompts.get("object"))
    deltas = []
    for candidate in CANDIDATES:
        stock = stock_logits(model, processor, QUERY, candidate)
        assert stock.std() > 0.05, "logits so flat show no difference"
        deltas.append(float((reference.logits(QUERY, candidate) - stock).abs().max()))
    return max(deltas)


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
    question = {"type": "text", "text": prompts.get("object").segments[-1].text}
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [*shown, question]}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    logits: torch.Tensor = model(**inputs).logits[0, -1].float()
    return logits


VIT = {"vision_config.image_size": 32, "vision_config.patch_size": 8}
SQUARE = {"size": {"height": 32, "width": 32}}
CLIP = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
GEMMA = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
AUDIO = {"audio_token": "<audio_soft_token>", "boa_token": "<start_of_audio>", "eoa_token": "<end_of_audio>"}
SIDES = {"image_start_token": "<im_start>", "image_end_token": "<im_end>"}
VIDEO = {"video_token": "<video>"}
COHERE = {
    "image_token": "<|IMG_PATCH|>",
    "boi_token": "<|START_OF_IMG|>",
    "eoi_token": "<|END_OF_IMG|>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
}
SLICES = {
    **SIDES,
    **VIDEO,
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
PIXTRAL = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
LLAVA = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    **VIDEO,
}
QWEN_IDS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "video_token_id": "<video>",
}
GLM_IMAGE, GLM_SIDES = "<|begin_of_image|><|image|><|end_of_image|>", "<|begin_of_image|> <|end_of_image|>"
GLM_ROPE = {"text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
MOLMO = "<im_patch> <im_col> <im_start> <low_res_im_start> <frame_start> <im_end> <frame_end> <im_low>"
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
FEW_PIXELS = {"size": {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}}

ROWS: tuple[Row, ...] = (
    Row(
        "aria",
        "<|img|>",
        images={"max_image_size": 490, "min_image_size": 336, "split_image": False},
        processor={"size_conversion": {"490": 8, "980": 16}},
        config={
            "vision_config.image_size": 980,
            "vision_config.patch_size": 14,
            "projector_patch_to_query_dict": {1225: 8, 4900: 16},
        },
    ),
    Row(
        "aya_vision",
        tokens={"image_token": "<image>"},
        special="<|IMG_PATCH|> <|START_OF_IMG|> <|END_OF_IMG|> <|IMG_LINE_BREAK|> TILE TILE_GLOBAL",
        ids={"image_token_index": "<|IMG_PATCH|>"},
        images=SQUARE,
        processor={"patch_size": 8, "img_size": 32, "downsample_factor": 2},
        config={**VIT, "downsample_factor": 2},
    ),
    Row(
        "cohere2_vision",
        COHERE["image_token"],
        tokens=COHERE,
        images={**SQUARE, "patch_size": 2},
        config={**VIT, "downsample_factor": 2, "alignment_intermediate_size": 64},
    ),
    Row("deepseek_vl", images=SQUARE, processor={"num_image_tokens": 16}, config=VIT),
    Row(
        "gemma3",
        "<start_of_image>",
        tokens=GEMMA,
        images=SQUARE,
        processor={"image_seq_length": 4},
        config={**VIT, "mm_tokens_per_image": 4},
    ),
    Row(
        "gemma4",
        "<image_soft_token>",
        tokens={**GEMMA, **AUDIO, **VIDEO},
        config={
            "text_config.vocab_size_per_layer_input": 1024,
            "text_config.hidden_size_per_layer_input": 16,
            "text_config.num_hidden_layers": 6,
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 16,
            },
        },
    ),
    Row(
        "glm4v",
        GLM_IMAGE,
        tokens={"image_token": "<|image|>", **VIDEO},
        special=GLM_SIDES,
        images=FEW_PIXELS,
        config=GLM_ROPE,
    ),
    Row(
        "glm46v",
        GLM_IMAGE,
        tokens={"image_token": "<|image|>", **VIDEO},
        special=GLM_SIDES,
        images=FEW_PIXELS,
        config=GLM_ROPE,
    ),
    Row(
        "glm_ocr",
        GLM_IMAGE,
        tokens={"image_token": "<|image|>", **VIDEO},
        special=GLM_SIDES,
        images=FEW_PIXELS,
        config=GLM_ROPE,
        processor_class="Glm46VProcessor",
        image_processor="Glm46VImageProcessor",
    ),
    Row(
        "kimi_k25",
        "<|media_pad|>",
        tokens=VIDEO,
        config={
            "projection_hidden_size": 32,
            "text_config.head_dim": 64,
            "text_config.num_key_value_heads": 2,
            "vision_config.pos_emb_height": 8,
            "vision_config.pos_emb_width": 8,
        },
    ),
    Row("lfm2_vl", special="<|image_start|> <|image_end|> <|img_thumbnail|>"),
    Row(
        "llama4",
        "<|image|>",
        special="<|patch|> <|image_start|> <|image_end|> <|tile_x_separator|> <|tile_y_separator|>",
        ids={"image_token_index": "<|patch|>"},
        images=SQUARE,
        processor={"patch_size": 8, "pixel_shuffle_ratio": 0.5},
        config={
            **VIT,
            "vision_config.projector_input_dim": 32,
            "vision_config.projector_output_dim": 32,
            "vision_config.intermediate_size": 128,
        },
    ),
    Row("llava", images=CLIP, processor=LLAVA, config=VIT),
    Row(
        "llava",
        "[IMG]",
        name="llava (Pixtral)",
        tokens=PIXTRAL,
        processor_class="PixtralProcessor",
        image_processor="PixtralImageProcessor",
        images={"size": {"longest_edge": 64}, "patch_size": 8},
        processor={"patch_size": 8},
        config={
            "vision_config": {
                "model_type": "pixtral",
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 64,
                "patch_size": 8,
            },
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
        torchvision=True,
    ),
    Row(
        "mistral3",
        "[IMG]",
        tokens=PIXTRAL,
        images={"size": {"longest_edge": 64}, "patch_size": 8},
        processor={"patch_size": 8, "spatial_merge_size": 2},
        config={"vision_config.image_size": 64, "vision_config.patch_size": 8},
        torchvision=True,
    ),
    Row(
        "mllama",
        "<|image|>",
        images={"size": {"height": 32, "width": 32}, "max_image_tiles": 4},
        config={
            **VIT,
            "text_config.cross_attention_layers": [1],
            "vision_config.intermediate_layers_indices": [0],
            "vision_config.vision_output_dim": 64,
        },
    ),
    Row(
        "molmo2",
        "<|image|>",
        tokens=VIDEO,
        special=MOLMO,
        ids={"image_patch_id": "<im_patch>"},
        config={"adapter_config.vision_feature_layer": [0, 1], "adapter_config.text_hidden_size": 32},
    ),
    Row(
        "ovis2",
        images=SQUARE,
        config=VIT,
        special="<IMG_START> <IMG_ATOM> <IMG_GRID> <IMG_COL> <IMG_ROW> <IMG_END>",
        ids={"image_token_id": "<IMG_ATOM>"},
        processor={"image_seq_length": 16},
    ),
    Row("step3p7", "<im_patch>", config={"text_config.sliding_window": 64}),
    Row("minicpmv4_6", tokens=SLICES, config={"text_config.num_hidden_layers": 4}),
    Row(
        "ernie4_5_vl_moe",
        "<im_start><image><im_end>",
        tokens={"image_token": "<image>", **SIDES, **VIDEO, "video_start_token": "<vs>", "video_end_token": "<ve>"},
        images=FEW_PIXELS,
        processor={
            "video_processor": {"video_processor_type": "Ernie4_5_VLMoeVideoProcessor", "draw_on_frames": False}
        },
        config={"text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]}},
    ),
    Row("paligemma", images=SQUARE, processor={"image_seq_length": 16}, config=VIT, template=False),
    Row("florence2", template=False),
    Row(
        "qwen3_5",
        QWEN_IMAGE,
        tokens=QWEN_TOKENS,
        ids=QWEN_IDS,
        images={**FEW_PIXELS, "patch_size": 16},
        config={"text_config.num_hidden_layers": 4},
    ),
    Row(
        "qwen3_5_moe",
        QWEN_IMAGE,
        tokens=QWEN_TOKENS,
        ids=QWEN_IDS,
        images={**FEW_PIXELS, "patch_size": 16},
        config={"text_config.num_hidden_layers": 4},
    ),
    Row(
        "qwen3_vl_moe",
        QWEN_IMAGE,
        tokens=QWEN_TOKENS,
        ids=QWEN_IDS,
        images={**FEW_PIXELS, "patch_size": 16},
        image_processor="Qwen2VLImageProcessor",
        config={"vision_config.deepstack_visual_indexes": [0, 1]},
    ),
)
BY_NAME = {row.name or row.kind: row for row in ROWS}
