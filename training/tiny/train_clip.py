"""Train tiny-clip, the encoder of the coarse stage. Resumable like train.py.

    python training/tiny/train_clip.py --data DATA --out RUN_CLIP --sight RUN/last.pt --steps 1000

`--sight` starts its image tower from tiny-vl's after its sight-only steps: the same patches, the same 5 layers; the
class
token, the text tower and both projections start from nothing. One vector per picture has to say everything in the
picture.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from architecture import IMAGE, PATCH, SHUFFLE, VISION_LAYERS, WIDTH, corpus, name_words, train_tokenizer
from batches import Batch, make_batch
from contrast import among_all, among_names, both_ways
from objectives import PHRASES
from scenes import Sprites
from teacher import Teacher, Words
from tokenizers import Regex, normalizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from train import optimisers, rate, save
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

WINDOW = 32


def make_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """tiny-vl's vocabulary over lower-case words, with the begin and end marks that CLIP's text tower pools on."""
    inner = tokenizer.backend_tokenizer
    only_words = normalizers.Replace(Regex("[^a-z0-9]+"), " ")
    inner.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), only_words, normalizers.Strip(), normalizers.Prepend(" ")]
    )
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    marks = [(t, tokenizer.convert_tokens_to_ids(t)) for t in (begin, end)]
    inner.post_processor = TemplateProcessing(single=f"{begin} $A {end}", special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=tokenizer.pad_token, bos_token=begin, eos_token=end,
        padding_side="right", model_max_length=WINDOW,
    )  # fmt: skip


def make_processor(tokenizer: PreTrainedTokenizerFast) -> CLIPProcessor:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": IMAGE, "width": IMAGE}
    images = CLIPImageProcessorPil(
        do_center_crop=False, size=square, crop_size=square, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return CLIPProcessor(images, tokenizer)


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> CLIPModel:
    torch.manual_seed(seed)
    common = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4}
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text = {**common, "num_hidden_layers": 3, "vocab_size": len(tokenizer), "max_position_embeddings": WINDOW, **ids}
    vision = {
        **common,
        "num_hidden_layers": VISION_LAYERS,
        "image_size": IMAGE,
        "patch_size": PATCH,
        "hidden_act": "gelu_pytorch_tanh",
    }
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH, logit_scale_init_value=2.6592)
    )


def borrow_sight(model: CLIPModel, checkpoint: Path) -> int:
    """Copy patches, positions and layers from a tiny-vl checkpoint; returns how many tensors were taken."""
    source = torch.load(checkpoint, map_location="cpu", weights_only=True)["net"]
    prefix = "model.model.vision_model."
    given = {k[len(prefix) :]: v for k, v in source.items() if k.startswith(prefix)}
    target, taken = model.vision_model.state_dict(), 0
    for name, value in given.items():
        if name in target and target[name].shape == value.shape:
            target[name] = value
            taken += 1
    target["embeddings.position_embedding.weight"][1:] = given["embeddings.position_embedding.weight"]
    for part in ("weight", "bias"):
        target[f"post_layernorm.{part}"] = given[f"post_layernorm.{part}"]
    model.vision_model.load_state_dict(target)
    return taken


class TinyClip(nn.Module):
    """The shipped model plus one small head that only training uses."""

    def __init__(self, model: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.mean = nn.Linear(WIDTH, WIDTH)

    def pictures(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(unit vectors [n, WIDTH], patches [n, TOKENS, WIDTH], four joined in each)."""
        seen = self.model.vision_model(pixel_values=pixels)
        side = IMAGE // PATCH
        patches = seen.last_hidden_state[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        joined = F.avg_pool2d(patches, SHUFFLE).flatten(2).transpose(1, 2)
        return F.normalize(self.model.visual_projection(seen.pooler_output), dim=-1), joined

    def words(self, texts: list[str]) -> Tensor:
        batch = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        tower = self.model.text_model
        pooled = tower(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=-1)


def losses(net: TinyClip, teacher: Teacher, batch: Batch, rng: Random) -> dict[str, Tensor]:
    """Portraits against scenes that show the same drawing; names against every picture that shows such a thing;
    pictures against all names and drawings of training; texts and regions near what the teacher says of them."""
    device, n, regions = net.model.device, len(batch.scenes), batch.regions
    (seen, patches), scale = net.pictures(batch.pictures.to(device)), net.model.logit_scale.clamp(max=4.6).exp()
    looks, shown, related = scale * seen[:n] @ seen[n:].T, batch.same_drawing.to(device), batch.same_object.to(device)
    phrases = teacher.phrases(PHRASES, rng)
    said = net.words([*regions.labels, *phrases])
    taught = teacher.taught(regions.labels, regions.objects, phrases).to(device)
    voice, all_looks = said[: len(regions.labels)], teacher.looks.to(device)
    thing, picture = teacher.numbers(regions.objects).to(device), regions.picture.to(device)
    reads = scale * voice @ seen.T
    name, inside = regions.name, F.one_hot(regions.picture, 2 * n).float()
    named = (((name[:, None] == name[None]).float() @ inside) > 0).to(device)
    meant = F.normalize(
        net.mean(torch.einsum("rt,rtd->rd", regions.cover.to(device), patches[regions.picture])), dim=-1
    )
    return {
        "look": 2 * both_ways(looks, shown, related),
        "read": both_ways(reads, named, named),
        "taught": 6 - 6 * (meant * teacher.drawings[regions.drawing].to(device)).sum(-1).mean(),
        "said": 4 - 4 * (said * taught).sum(-1).mean(),
        "thing": among_names(meant, all_looks, thing) / 2 + among_names(voice, all_looks, thing) / 2,
        "shown": among_all(seen, all_looks, picture, thing),
        "drawn": among_all(seen, teacher.drawings.to(device), picture, regions.drawing.to(device)) / 2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sight", type=Path)
    parser.add_argument("--teacher", type=Path, help="another teacher than DATA/teacher.pt")
    parser.add_argument("--init", type=Path, help="start from the weights of this checkpoint")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    sprites, teacher = Sprites(args.data, "train"), Teacher(args.data, args.teacher)
    if not (args.out / "processor").exists():
        shared = train_tokenizer(corpus(args.data), Words(args.data).all)
        make_processor(make_tokenizer(shared)).save_pretrained(args.out / "processor")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.out / "processor")
    model = make_model(tokenizer, args.seed)
    name_words(model.text_model.embeddings.token_embedding.weight, tokenizer, teacher, norm=1.0)
    net = TinyClip(model, tokenizer).to(args.device).train()
    made, start, since, window = optimisers(net), 0, time.time(), defaultdict(float)
    if (args.out / "last.pt").exists():
        state = torch.load(args.out / "last.pt", map_location=args.device, weights_only=True)
        net.load_state_dict(state["net"])
        for optimiser, saved in zip(made, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        start = state["step"]
    elif args.init:
        net.load_state_dict(torch.load(args.init, map_location=args.device, weights_only=True)["net"])
    elif args.sight:
        borrow_sight(model, args.sight)
    for step in range(start, args.steps):
        done = step / args.steps
        batch = make_batch(
            sprites, args.cases, IMAGE, min(1.0, 0.2 + 1.5 * done), max(0.1, 0.5 - 2 * done), args.seed, step
        )
        parts = losses(net, teacher, batch, Random(args.seed * 3_000_017 + step))
        net.zero_grad()
        sum(parts.values()).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for optimiser in made:
            for group in optimiser.param_groups:
                group["lr"] = rate(step, args.steps, args.lr)
            optimiser.step()
        for key, value in parts.items():
            window[key] += value.item() / 10
        if (step + 1) % 10 == 0:
            line = {"step": step + 1, "seconds_per_step": round((time.time() - since) / 10, 3)}
            line |= {k: round(v, 4) for k, v in window.items()}
            since, window = time.time(), defaultdict(float)
            with (args.out / "curve.jsonl").open("a") as curve:
                curve.write(json.dumps(line) + "\n")
        if (step + 1) % 60 == 0 or step + 1 == args.steps:
            save(args.out, net, made, step + 1)


if __name__ == "__main__":
    main()
