"""Write an Idefics3 checkpoint such as tiny-vl as the two GGUF files that llama.cpp loads: runs where `gguf` is.

llama.cpp shows every image of Idefics3 twice, whole and as a tile. So it is written as LFM2, which has the same vision
tower and the same merging of tokens; its two projections with a GELU between them are made to act as the one.

    python tiny_gguf.py CHECKPOINT FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

TEXT = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
VISION = {
    "layer_norm1": "ln1",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
OTHERS = {
    "text_model.embed_tokens": "token_embd",
    "text_model.norm": "output_norm",
    "vision_model.embeddings.patch_embedding": "v.patch_embd",
    "vision_model.embeddings.position_embedding": "v.position_embd",
    "vision_model.post_layernorm": "v.post_ln",
    "connector.modality_projection.proj": "mm.2",
}
NAMES = {
    "<fake_token_around_image>": "<|image_end|>",
    "<global-img>": "<|image_start|>",
    "<image>": "<|img_thumbnail|>",
}
"""What llama.cpp writes around an image of LFM2."""

MARKED = "{{ part['text'] | replace('<__media', '<|image_end|><__media') }}"
"""A template sees an image as a marker in a text."""

SHIFT = 32.0  # above 10, its GELU changes nothing


def gguf_name(name: str) -> str:
    """The name of a tensor in GGUF."""
    *path, kind = name.removeprefix("model.").split(".")
    if "layers" not in path:
        return f"{OTHERS['.'.join(path)]}.{kind}"
    at = path.index("layers")
    part, number = ".".join(path[at + 2 :]), path[at + 1]
    return f"blk.{number}.{TEXT[part]}.{kind}" if path[0] == "text_model" else f"v.blk.{number}.{VISION[part]}.{kind}"


def interleaved(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """The rows of a query or key projection, for rotations of neighbours in place of halves."""
    return weight.reshape(heads, 2, -1, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape)


def write_tensors(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    for name, value in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(value, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_text(folder: Path, out: Path, config: dict[str, Any], tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    text = config["text_config"]
    heads = text["num_attention_heads"]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(folder.name)
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_rope_dimension_count(text["head_dim"])
    writer.add_rope_freq_base(text["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    write_vocabulary(writer, folder)
    for name in tensors:
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            tensors[name] = interleaved(tensors[name], heads)
    write_tensors(writer, tensors)


def write_vocabulary(writer: gguf.GGUFWriter, folder: Path) -> None:
    """A Unigram tokenizer over GPT-2's bytes; llama.cpp has its own sign for a space."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {token["id"] for token in tokenizer["added_tokens"]}
    rows = tokenizer["model"]["vocab"]
    signs = str.maketrans({"Ġ": "▁", "Ċ": "\n"})
    names = [NAMES.get(text, text) if i in special else text.translate(signs) for i, (text, _) in enumerate(rows)]
    writer.add_tokenizer_model("t5")
    writer.add_token_list(names)
    writer.add_token_scores([score for _, score in rows])
    writer.add_token_types([3 if i in special else 1 for i in range(len(rows))])  # control, normal
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    template = (folder / "chat_template.jinja").read_text()
    writer.add_chat_template(template.replace("{{ part['text'] }}", MARKED))


def write_vision(out: Path, config: dict[str, Any], tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    vision = config["vision_config"]
    writer = gguf.GGUFWriter(out, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "lfm2")
    writer.add_bool("clip.use_gelu", True)
    writer.add_vision_image_size(vision["image_size"])
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["num_hidden_layers"])
    writer.add_vision_head_count(vision["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(vision["layer_norm_eps"])
    writer.add_vision_projection_dim(config["text_config"]["hidden_size"])
    writer.add_vision_projector_scale_factor(config["scale_factor"])
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    proj = tensors["mm.2.weight"].astype(np.float32)
    wide = proj.shape[1]
    linear = {"mm.1.weight": np.eye(wide), "mm.1.bias": np.full(wide, SHIFT), "mm.2.bias": -SHIFT * proj.sum(1)}
    write_tensors(writer, {**tensors, **linear})


def main(checkpoint: Path, folder: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    named = {gguf_name(name): value for name, value in load_file(checkpoint / "model.safetensors").items()}
    eyes = {name: value for name, value in named.items() if name.startswith(("v.", "mm."))}
    write_text(checkpoint, folder / "text.gguf", config, {name: named[name] for name in named.keys() - eyes.keys()})
    write_vision(folder / "vision.gguf", config, eyes)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
