"""Turn training checkpoints into what ships: fp16 safetensors, tokenizer, processor, chat template, licence.

python training/tiny/export.py --vl RUN --clip RUN_CLIP --out src/looktwice/assets/tiny
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import architecture
import torch
import train_clip
from transformers import AutoProcessor, PreTrainedTokenizerFast
from transformers.utils import logging


def ship(model: Any, processor: Any, folder: Path) -> None:
    """Weights are stored in half precision and say float32, so that they compute in float32 wherever they are
    loaded."""
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        if "dtype" in part:
            part["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def weights(run: Path) -> dict[str, Any]:
    """The shipped model's own weights, without the heads that only training uses."""
    state = torch.load(run / "last.pt", map_location="cpu", weights_only=True)["net"]
    return {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}


def tiny_vl(run: Path) -> tuple[Any, Any]:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run / "tokenizer")
    model = architecture.make_model(tokenizer, 0)
    model.load_state_dict(weights(run))
    return model, AutoProcessor.from_pretrained(run / "processor")


def tiny_clip(run: Path) -> tuple[Any, Any]:
    processor = AutoProcessor.from_pretrained(run / "processor")
    model = train_clip.make_model(processor.tokenizer, 0)
    model.load_state_dict(weights(run))
    return model, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vl", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    logging.disable_progress_bar()
    ship(*tiny_vl(args.vl), args.out / "tiny-vl")
    ship(*tiny_clip(args.clip), args.out / "tiny-clip")


if __name__ == "__main__":
    main()
