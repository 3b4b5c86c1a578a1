"""Load the bundled drawings (CC0); the bundled models were trained on none of them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from looktwice.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Cutout:
    """One drawing, which is an instance.

    `label` is the text that asks for it (None: no text), `group` its kind. `met`: the bundled models were trained on
    another drawing of that name.
    """

    id: str
    group: str
    label: str | None
    met: bool = False


class Cutouts:
    """All drawings of an archive that `training/tiny/cutouts.py` wrote."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "cutouts.npz").is_file():
            raise UsageError("This installation lacks the bundled cut-outs; install looktwice again.")
        lines = (folder / "cutouts.jsonl").read_text("utf-8").splitlines()
        self.all = [Cutout(**json.loads(line)) for line in lines]
        self._rows = {cutout.id: row for row, cutout in enumerate(self.all)}
        archive = np.load(folder / "cutouts.npz")
        self._bytes: Any = archive["bytes"]
        self._offsets: Any = archive["offsets"]

    @classmethod
    def bundled(cls) -> Cutouts:
        """Return the drawings that come with looktwice."""
        return cls(Path(str(resources.files("looktwice"))) / "assets" / "tiny" / "cutouts")

    @lru_cache(maxsize=1024)  # noqa: B019  (one instance per run)
    def image(self, name: str) -> Image:
        """Return the drawing as RGBA."""
        from PIL import Image

        row = self._rows[name]
        data = self._bytes[self._offsets[row] : self._offsets[row + 1]].tobytes()
        return Image.open(io.BytesIO(data)).convert("RGBA")
