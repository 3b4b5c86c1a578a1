"""Ways to encode a folder that people write themselves, for comparison with `looktwice index`.

plain        one process: open with Pillow, the checkpoint's own image processor on the whole photo, the model
dataloader   the same with a torch DataLoader, whose two workers decode and prepare
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

BATCH = 16


def plain(encoder: Any, paths: Sequence[Path]) -> np.ndarray:
    rows = []
    for start in range(0, len(paths), BATCH):
        prepared = [prepare(encoder, path) for path in paths[start : start + BATCH]]
        rows.append(forward(encoder, stacked(prepared)))
    return np.concatenate(rows)


def dataloader(encoder: Any, paths: Sequence[Path]) -> np.ndarray:
    from torch.utils.data import DataLoader

    photos: Any = Photos(encoder, paths)
    batches = DataLoader(photos, batch_size=BATCH, num_workers=2, collate_fn=stacked)
    return np.concatenate([forward(encoder, batch) for batch in batches])


class Photos:
    """A torch data set of prepared photos."""

    def __init__(self, encoder: Any, paths: Sequence[Path]) -> None:
        self.encoder, self.paths = encoder, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Any:
        return prepare(self.encoder, self.paths[number])


def prepare(encoder: Any, path: Path) -> Any:
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    return encoder.pixels.inputs([image])["pixel_values"]


def stacked(prepared: Sequence[Any]) -> Any:
    import torch

    return torch.cat(list(prepared))


def forward(encoder: Any, pixels: Any) -> np.ndarray:
    import torch

    with torch.inference_mode():
        vectors = encoder.model.get_image_features(pixel_values=pixels.to(encoder.placement.torch_dtype)).pooler_output
    rows: np.ndarray = vectors.float().numpy()
    return rows


WAYS: dict[str, Callable[[Any, Sequence[Path]], np.ndarray]] = {"plain": plain, "dataloader": dataloader}
