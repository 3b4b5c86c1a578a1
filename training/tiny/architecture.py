"""Build the untrained tiny-vl: tokenizer, processor, Idefics3 configuration, initial weights.

IMAGE 120 px, patch 12 -> 10 x 10 patches -> pixel shuffle 2 -> 25 visual tokens per picture
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from teacher import Teacher
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, PreTrainedTokenizerFast

IMAGE, PATCH, SHUFFLE = 120, 12, 2
TOKENS = (IMAGE // PATCH // SHUFFLE) ** 2
WIDTH, VISION_LAYERS, TEXT_LAYERS = 192, 5, 4
PIECES = 4096
SPECIAL = ["<|pad|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"]
SPACE = "\u0120"  # how byte-level tokens spell a space
WHOLE = ["0", "1", "Yes", "No", "True", "False", " Yes", " No", " True", " False", "yes", "no", "true", "false"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] | capitalize + ':' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
ONE_IMAGE = "<fake_token_around_image><global-img>" + "<image>" * TOKENS + "<fake_token_around_image>"


def train_tokenizer(texts: list[str], words: list[str]) -> PreTrainedTokenizerFast:
    """Every known word is one token, whatever else is spelled in pieces; digits and label spellings stay whole.

    Pieces come from byte-level BPE over `texts`; pieces and words together are read by a unigram model, which takes
    the fewest tokens.
    """
    splits = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    pieces, alphabet = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
    pieces.pre_tokenizer = splits
    pieces.train_from_iterator(
        texts + [w for w in WHOLE for _ in range(500)],
        trainers.BpeTrainer(vocab_size=PIECES, initial_alphabet=alphabet, min_frequency=2, show_progress=False),
    )
    whole = dict.fromkeys([*sorted(pieces.get_vocab(), key=pieces.get_vocab().get), *(SPACE + word for word in words)])
    scored = [(token, 0.0) for token in SPECIAL] + [(t, -16.0 if len(t) == 1 else -8.0) for t in whole]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0))
    tokenizer.normalizer = normalizers.Replace("<", "< ")  # captions stand in <>: their first word is a word, too
    tokenizer.pre_tokenizer, tokenizer.decoder = splits, decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<end_of_utterance>", bos_token="<|im_start|>",
        additional_special_tokens=SPECIAL[3:], padding_side="right", model_max_length=1024,
    )  # fmt: skip


def name_words(embedding: torch.Tensor, tokenizer: PreTrainedTokenizerFast, teacher: Teacher, norm: float) -> None:
    """Start every known word from what the teacher says of it, at this norm."""
    known = tokenizer.get_vocab()
    rows = torch.tensor([known[SPACE + word] for word in teacher.words.all])
    with torch.no_grad():
        embedding[rows] = norm * teacher.texts(teacher.words.all).to(embedding.device)


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Idefics3Processor:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    images = Idefics3ImageProcessorPil(
        do_image_splitting=False, size={"longest_edge": IMAGE}, max_image_size={"longest_edge": IMAGE},
        image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True,
    )  # fmt: skip
    return Idefics3Processor(images, tokenizer, image_seq_len=TOKENS, chat_template=TEMPLATE)


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Idefics3ForConditionalGeneration:
    """Random weights; keys start equal to queries, so that attention begins as a measure of likeness."""
    torch.manual_seed(seed)
    size = len(tokenizer)
    config = Idefics3Config(
        vision_config={
            "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": VISION_LAYERS,
            "num_attention_heads": 4, "image_size": IMAGE, "patch_size": PATCH, "hidden_act": "gelu_pytorch_tanh",
        },
        text_config={
            "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": 512, "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": WIDTH // 4, "vocab_size": size,
            "max_position_embeddings": 1024, "rope_theta": 100000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
            "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        scale_factor=SHUFFLE, image_token_id=tokenizer.convert_tokens_to_ids("<image>"), tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Idefics3ForConditionalGeneration(config)
    with torch.no_grad():
        for layer in model.model.text_model.layers:
            layer.self_attn.q_proj.weight.normal_(0, 0.06)
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model


def whiten_patches(model: Idefics3ForConditionalGeneration, pictures: torch.Tensor) -> None:
    """Start the patch embedding from the whitened principal components of real patches instead of noise."""
    patches = (
        pictures.unfold(2, PATCH, PATCH)
        .unfold(3, PATCH, PATCH)
        .permute(0, 2, 3, 1, 4, 5)
        .reshape(-1, 3 * PATCH * PATCH)
    )
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    keep = slice(-WIDTH, None)
    weight = 0.5 * (vectors[:, keep] / (values[keep].clamp(min=0) + 1e-2 * values[-1] / WIDTH).sqrt()).T
    mix = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)))[0]
    weight = mix @ weight
    embedding = model.model.vision_model.embeddings.patch_embedding
    with torch.no_grad():
        embedding.weight.copy_(weight.view_as(embedding.weight))
        embedding.bias.copy_(-weight @ mean)


def corpus(data: Path) -> list[str]:
    """Every label and keyword of the training split, and every wording, often enough that its words become tokens."""
    from wordings import FAMILIES

    texts = []
    for line in (data / "sprites.jsonl").read_text().splitlines():
        r = json.loads(line)
        if r["split"] == "train":
            texts += [" " + r["label"], r["label"], *(" " + w for w in r["words"])]
    prompts = [s.text + s.before + s.after for two in FAMILIES.values() for ps in two for p in ps for s in p.segments]
    return texts + [p for p in prompts for _ in range(200)]
