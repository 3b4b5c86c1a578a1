"""Tiny random checkpoints of real architectures, laid out as on the model hub: configuration, weights, tokenizer, image
processor, chat template.

    build("qwen3_vl", tmp_path / "m")      # AutoModelForImageTextToText.from_pretrained(folder) works

Weights are drawn with standard deviation `std` (default 0.2): transformers' own initialisation leaves logits so flat
that wrong positions go unnoticed. Nothing here needs torchvision. Sizes are chosen so that tiles, windows, grids and
DeepStack levels all occur on pictures of about 64 px.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tiny_wording as wording
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerFast

Config = dict[str, Any]
WIDTH = 32
WINDOW = 16  # tokens of text that the tiny CLIP and SigLIP models read


def build(family: str, folder: Path, *, std: float = 0.2, seed: int = 0) -> Path:
    """Write a tiny checkpoint of `family`, a key of FAMILIES (hyphens read as underscores), and return its folder."""
    family = family.replace("-", "_")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    config = FAMILIES[family](folder)
    auto = AutoModelForImageTextToText if family in MLLMS or family == "qwen3_vl_embedding" else AutoModel
    randomise(auto.from_config(AutoConfig.for_model(**config)), std).save_pretrained(folder)
    return folder


def built_in(root: Path) -> Callable[[str], Path]:
    """Return what gives the folder of a family's checkpoint below `root`, built when it is first asked for."""

    def folder(family: str) -> Path:
        place = root / family
        return place if (place / "config.json").exists() else build(family, place)

    return folder


def randomise(model: PreTrainedModel, std: float) -> PreTrainedModel:
    """Matrices ~ N(0, std); norm scales near 1; biases and single vectors ~ N(0, std / 2)."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            is_scale = parameter.dim() == 1 and "norm" in name and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_scale else noise * (std if parameter.dim() > 1 else std / 2))
            if name.endswith("A_log"):  # slow enough that a recurrent state remembers hundreds of tokens
                parameter.sub_(5)
    return model.eval()


# --- tokenizers and files ---------------------------------------------------------------------------------------------


def byte_tokenizer(special: list[str], *, split: str | None = None, **options: Any) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which single digits and every label word are one token; `special` come first, in order."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(split), "isolated") if split else pre_tokenizers.Digits(individual_digits=True)
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])
    tokenizer.decoder = decoders.ByteLevel()
    labels = [form for word in wording.LABELS for form in (word, f" {word}") for _ in range(50)]
    tokenizer.train_from_iterator([wording.CORPUS, *labels], trainer(640, special))
    return PreTrainedTokenizerFast(**{"model_max_length": 4096, **options}, tokenizer_object=tokenizer)


def trainer(size: int, special: list[str], **options: Any) -> trainers.BpeTrainer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False, **options
    )


def write(folder: Path, name: str, content: Config | list[Config] | str) -> None:
    text = content if isinstance(content, str) else json.dumps(content, indent=2)
    (folder / name).write_text(text, encoding="utf-8")


def images(folder: Path, kind: str, **settings: Any) -> None:
    defaults = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_convert_rgb": True, "resample": 3}
    write(folder, "preprocessor_config.json", {"image_processor_type": kind, **defaults, **settings})


def chat(folder: Path, tokenizer: PreTrainedTokenizerFast, processor: str, template: str, **settings: Any) -> None:
    tokenizer.save_pretrained(folder)
    write(folder, "processor_config.json", {"processor_class": processor, **settings})
    write(folder, "chat_template.jinja", template)


def layers(**settings: Any) -> Config:
    shape = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**shape, **settings}


def decoder(kind: str, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> Config:
    heads = {"num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": WIDTH // 2, "max_position_embeddings": 4096}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return layers(model_type=kind, vocab_size=len(tokenizer), **heads, **ids, **settings)


# --- multimodal language models ---------------------------------------------------------------------------------------


def idefics3(folder: Path) -> Config:
    """Tiles of 32 px; 4 tokens a tile; a picture is split into up to 2 × 2 tiles and a global view."""
    markers = ["<fake_token_around_image>", "<image>", "<global-img>"]
    markers += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    names = {"bos_token": "<|begin_of_text|>", "pad_token": "<|pad|>", "eos_token": "<end_of_utterance>"}
    tokenizer = byte_tokenizer([*names.values(), *markers], **names, additional_special_tokens=markers)
    chat(folder, tokenizer, "Idefics3Processor", wording.IDEFICS3_TEMPLATE, image_seq_len=4)
    size = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    images(folder, "Idefics3ImageProcessor", **size, do_image_splitting=True, resample=1)
    return {
        "model_type": "idefics3",
        "vision_config": layers(image_size=32, patch_size=8),
        "text_config": decoder("llama", tokenizer),
        "scale_factor": 2,
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": tokenizer.pad_token_id,
    }


TURNS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


def qwen_tokenizer(special: list[str], **options: Any) -> PreTrainedTokenizerFast:
    names = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    return byte_tokenizer([*TURNS, *special], split=wording.QWEN_SPLIT, padding_side="left", **names, **options)


def qwen_config(kind: str, tokenizer: PreTrainedTokenizerFast, vision: Config, rope: Config) -> Config:
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in QWEN_IDS.items()}
    tower = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_heads": 2, "out_hidden_size": WIDTH, **vision}
    text = decoder(f"{kind}_text", tokenizer, rope_parameters={"rope_type": "default", **rope})
    return {"model_type": kind, "vision_config": tower, "text_config": text, **ids}


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


def qwen2_5_vl(folder: Path) -> Config:
    """One token per 28 × 28 px; windows of 2 × 2 tokens; 4 to 64 tokens a picture."""
    tokenizer = qwen_tokenizer([*QWEN_IDS.values()])
    chat(folder, tokenizer, "Qwen2_5_VLProcessor", wording.QWEN2_5_TEMPLATE)
    patches = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    images(folder, "Qwen2VLImageProcessor", **patches, min_pixels=4 * 28**2, max_pixels=64 * 28**2)
    vision = {"depth": 2, "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    return qwen_config("qwen2_5_vl", tokenizer, vision, {"mrope_section": [2, 3, 3], "rope_theta": 1e6})


def qwen3_vl(folder: Path) -> Config:
    """One token per 32 × 32 px; two DeepStack levels; 4 to 64 tokens a picture."""
    tokenizer = qwen_tokenizer([*QWEN_IDS.values()])
    chat(folder, tokenizer, "Qwen3VLProcessor", wording.QWEN3_TEMPLATE)
    patches = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": 4 * 32**2, "longest_edge": 64 * 32**2}
    images(folder, "Qwen2VLImageProcessorFast", **patches, size=size)
    vision = {"depth": 3, "patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    rope = {"mrope_section": [3, 3, 2], "mrope_interleaved": True, "rope_theta": 5e6}
    return qwen_config("qwen3_vl", tokenizer, vision, rope)


def qwen3_vl_moe(folder: Path) -> Config:
    """As qwen3_vl; every layer sends a token to 2 of 4 experts."""
    config = qwen3_vl(folder)
    text = {**config["text_config"], "model_type": "qwen3_vl_moe_text", **EXPERTS}
    return {**config, "model_type": "qwen3_vl_moe", "text_config": text}


def qwen3_5(folder: Path) -> Config:
    """As qwen3_vl without DeepStack; two gated delta-net layers of 2 key and 4 value heads, then attention."""
    config = qwen3_vl(folder)
    vision = {k: v for k, v in config["vision_config"].items() if k != "deepstack_visual_indexes"}
    mixers = ["linear_attention", "linear_attention", "full_attention"]
    net = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    net |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4}
    rope = {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    text = {**config["text_config"], "model_type": "qwen3_5_text", "layer_types": mixers, **net}
    text["rope_parameters"] = {**text["rope_parameters"], **rope}
    return {**config, "model_type": "qwen3_5", "vision_config": vision, "text_config": text}


def qwen3_5_moe(folder: Path) -> Config:
    """As qwen3_5; every layer sends a token to 2 of 4 experts and to one that all tokens share."""
    config = qwen3_5(folder)
    text = {**config["text_config"], "model_type": "qwen3_5_moe_text", **EXPERTS, "shared_expert_intermediate_size": 24}
    return {**config, "model_type": "qwen3_5_moe", "text_config": text}


def internvl(folder: Path) -> Config:
    """Tiles of 32 px; 4 tokens a tile; 1 to 4 tiles, and a thumbnail when there are several."""
    named = {"start_image_token": "<img>", "end_image_token": "</img>"}
    named |= {"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    tokenizer = qwen_tokenizer([*named.values()], extra_special_tokens=named)
    chat(folder, tokenizer, "InternVLProcessor", wording.INTERNVL_TEMPLATE, image_seq_length=4)
    size = {"height": 32, "width": 32}
    images(folder, "GotOcr2ImageProcessorFast", size=size, crop_to_patches=False, min_patches=1, max_patches=4)
    return {
        "model_type": "internvl",
        "vision_config": layers(image_size=[32, 32], patch_size=[8, 8]),
        "text_config": decoder("qwen3", tokenizer),
        "image_seq_length": 4,
        "image_token_id": tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        "tie_word_embeddings": False,
    }


def gemma_tokenizer(named: dict[str, str], turns: list[str]) -> PreTrainedTokenizerFast:
    """Runs of line breaks are tokens of their own, so that those around a picture join those of the text."""
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    special = [*names.values(), *named.values(), *turns]
    tokenizer = byte_tokenizer(special, **names, extra_special_tokens=named, additional_special_tokens=turns)
    tokenizer.add_tokens(["\n\n", "\n\n\n", "\n\n\n\n"])
    return tokenizer


def gemma3(folder: Path) -> Config:
    """One square view of 64 px in 4 x 4 tokens; layers with a window of 14 tokens before and after one without."""
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = gemma_tokenizer(named, ["<start_of_turn>", "<end_of_turn>"])
    chat(folder, tokenizer, "Gemma3Processor", wording.GEMMA3_TEMPLATE, image_seq_length=16)
    images(folder, "Gemma3ImageProcessor", size={"height": 64, "width": 64}, resample=2)
    mixers = ["sliding_attention", "full_attention", "sliding_attention"]
    ids = {
        f"{name.removesuffix('_token')}_token_index": tokenizer.convert_tokens_to_ids(t) for name, t in named.items()
    }
    return {
        "model_type": "gemma3",
        "vision_config": layers(model_type="siglip_vision_model", image_size=64, patch_size=8, vision_use_head=False),
        "text_config": decoder(
            "gemma3_text", tokenizer, sliding_window=14, layer_types=mixers, query_pre_attn_scalar=WIDTH // 2
        ),
        "mm_tokens_per_image": 16,
        **ids,
    }


def gemma4(folder: Path) -> Config:
    """Up to 70 tokens of 8 x 8 px in the picture's own shape; every second layer has a window of 14 tokens.

    The last two reuse keys; embeddings of every layer's own, experts, capped logits. Needs torchvision.
    """
    named = {f"{kind}_token": f"<|{kind}|>" for kind in ("image", "audio", "boi", "eoi", "boa", "eoa")}
    tokenizer = gemma_tokenizer(named, ["<|turn>", "<turn|>", "<|video|>"])
    grid = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    parts = {"feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"}}
    parts |= {"video_processor": {"video_processor_type": "Gemma4VideoProcessor", **grid}}
    chat(folder, tokenizer, "Gemma4Processor", wording.GEMMA4_TEMPLATE, **parts)
    images(folder, "Gemma4ImageProcessor", **grid, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    ids = {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}
    ids["eoa_token_index"] = ids.pop("eoa_token_id")
    text = decoder("gemma4_text", tokenizer, sliding_window=14, use_bidirectional_attention="vision")
    text |= {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
    text |= {"global_head_dim": WIDTH, "num_kv_shared_layers": 2, "final_logit_softcapping": 20.0}
    text |= {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": len(tokenizer)}
    text |= {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 24}
    vision = layers(patch_size=4, pooling_kernel_size=2, head_dim=16, num_key_value_heads=2)
    vision |= {"model_type": "gemma4_vision", "position_embedding_size": 160}
    return {
        "model_type": "gemma4",
        "vision_config": vision,
        "text_config": text,
        "audio_config": None,
        "vision_soft_tokens_per_image": 70,
        **ids,
    }


def llava_onevision(folder: Path) -> Config:
    """Base view of 32 px (16 tokens) and any-resolution views of up to 64 × 64 px, unpadded, with row newlines."""
    tokenizer = qwen_tokenizer(["<image>", "<video>"])
    views: Config = {"image_grid_pinpoints": [[32, 32], [32, 64], [64, 32], [64, 64]]}
    aspect: Config = {"vision_aspect_ratio": "anyres_max_9", "vision_feature_select_strategy": "full"}
    tokens: Config = {"image_token": "<image>", "video_token": "<video>", "num_image_tokens": 16}
    chat(folder, tokenizer, "LlavaOnevisionProcessor", wording.LLAVA_TEMPLATE, **aspect, **tokens)
    images(folder, "LlavaOnevisionImageProcessor", size={"height": 32, "width": 32}, do_pad=True, **views)
    vision = layers(model_type="siglip_vision_model", image_size=32, patch_size=8, vision_use_head=False)
    return {
        "model_type": "llava_onevision",
        "vision_config": vision,
        "text_config": decoder("qwen2", tokenizer),
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "video_token_index": tokenizer.convert_tokens_to_ids("<video>"),
        **views,
        **aspect,
    }


# --- encoders ---------------------------------------------------------------------------------------------------------


def clip(folder: Path) -> Config:
    """28 px pictures cropped from their middle; 16 tokens of text, lower case, words end in `</w>`."""
    start, end, suffix = "<|startoftext|>", "<|endoftext|>", "</w>"
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=suffix, unk_token=end))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pieces])
    letters = [chr(code) for code in range(33, 127)]  # every ASCII character must also exist as the end of a word
    corpus = [wording.CORPUS, *letters * 9]
    tokenizer.train_from_iterator(corpus, trainer(900, [start, end], end_of_word_suffix=suffix))
    tokenizer.post_processor = processors.RobertaProcessing((end, 1), (start, 0), False, False)
    names = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=WINDOW, **names)
    fast.save_pretrained(folder)
    write(folder, "processor_config.json", {"processor_class": "CLIPProcessor"})
    sides = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    images(folder, "CLIPImageProcessor", **sides, do_center_crop=True)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return {
        "model_type": "clip",
        "text_config": layers(vocab_size=len(fast), max_position_embeddings=WINDOW, **ids),
        "vision_config": layers(image_size=28, patch_size=7),
        "projection_dim": 24,
    }


def siglip_text(folder: Path, processor: str) -> Config:
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    tokenizer = byte_tokenizer([*names.values()], **names, model_max_length=WINDOW)
    ending = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.backend_tokenizer.post_processor = ending
    tokenizer.save_pretrained(folder)
    write(folder, "processor_config.json", {"processor_class": processor})
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    return layers(vocab_size=len(tokenizer), max_position_embeddings=WINDOW, projection_size=WIDTH, **ids)


def siglip(folder: Path) -> Config:
    """32 px pictures, squeezed square; 16 tokens of text, always padded."""
    text = siglip_text(folder, "SiglipProcessor")
    images(folder, "SiglipImageProcessor", size={"height": 32, "width": 32})
    return {"model_type": "siglip", "text_config": text, "vision_config": layers(image_size=32, patch_size=8)}


def siglip2(folder: Path) -> Config:
    """NaFlex: up to 16 patches of 8 px in the picture's own aspect ratio; 16 tokens of text, always padded."""
    text = siglip_text(folder, "Siglip2Processor")
    images(folder, "Siglip2ImageProcessor", patch_size=8, max_num_patches=16, resample=2)
    return {"model_type": "siglip2", "text_config": text, "vision_config": layers(num_patches=16, patch_size=8)}


def siglip2_vision(folder: Path) -> Config:
    """The NaFlex tower alone: up to 16 patches of 8 px, pooled by its attention head; no text."""
    images(folder, "Siglip2ImageProcessor", patch_size=8, max_num_patches=16, resample=2)
    return {"model_type": "siglip2_vision_model", **layers(num_patches=16, patch_size=8)}


def siglip_vision(folder: Path) -> Config:
    """The fixed-size tower alone, as fixed-size SigLIP 2 checkpoints have it too: 32 px, squeezed square; no text."""
    images(folder, "SiglipImageProcessor", size={"height": 32, "width": 32})
    return {"model_type": "siglip_vision_model", **layers(image_size=32, patch_size=8)}


def qwen3_vl_embedding(folder: Path) -> Config:
    """Qwen3-VL as its embedding checkpoints are: the same files and weights, and what sentence-transformers reads."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    listed = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in modules]
    write(folder, "modules.json", [{"idx": n, "name": str(n), **module} for n, module in enumerate(listed)])
    write(folder, "sentence_bert_config.json", wording.SENTENCE_SETTINGS)
    (folder / "1_Pooling").mkdir()
    write(folder / "1_Pooling", "config.json", {"word_embedding_dimension": WIDTH, "pooling_mode_lasttoken": True})
    return qwen3_vl(folder)


def dinov2(folder: Path) -> Config:
    """28 px cropped from 32 px; class token first."""
    sides = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}
    images(folder, "BitImageProcessor", **sides, do_center_crop=True)
    return {"model_type": "dinov2", **layers(image_size=28, patch_size=7, mlp_ratio=2)}


def dinov3(folder: Path) -> Config:
    """32 px, class token and two registers, rotary positions."""
    images(folder, "DINOv3ViTImageProcessorFast", size={"height": 32, "width": 32}, resample=2)
    return {"model_type": "dinov3_vit", **layers(image_size=32, patch_size=8, num_register_tokens=2)}


Builder = Callable[[Path], Config]
MLLMS: dict[str, Builder] = {
    builder.__name__: builder
    for builder in (
        idefics3,
        qwen2_5_vl,
        qwen3_vl,
        qwen3_vl_moe,
        qwen3_5,
        qwen3_5_moe,
        gemma3,
        internvl,
        llava_onevision,
    )
}
if find_spec("torchvision"):
    MLLMS["gemma4"] = gemma4
ENCODERS: dict[str, Builder] = {
    builder.__name__: builder
    for builder in (clip, siglip, siglip2, dinov2, dinov3, siglip_vision, siglip2_vision, qwen3_vl_embedding)
}
FAMILIES = {**MLLMS, **ENCODERS}
