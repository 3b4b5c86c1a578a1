"""Store and load codebooks of product quantisers, as safetensors files.

A codebook's name is the SHA-256 of its file, so that two tables can share one and damage is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looktwice.checked import demand, read_json
from looktwice.errors import Damaged, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 1
METADATA = "looktwice.codebook"


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """`centroids` [S, M, 2^bits, width] and, for OPQ, `rotations` [S, d, d], float32; one of S per stream of tokens.

    With `late64` the rotations are [S, 64, d]: they keep 64 dimensions.

    Stream 0 is the features, the others the DeepStack levels, whose values are distributed differently (sharing one
    codebook cost 13 to 25 % more error: docs/reference/tokens.md). `trained` holds the count of tokens and the seed.
    """

    quantiser_spec: str
    centroids: Tensor
    rotations: Tensor | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def dim(self) -> int:
        """Return the width of the tokens."""
        return self._cut if self.rotations is None else int(self.rotations.shape[2])

    @property
    def _cut(self) -> int:
        """Return the width of what is cut into sub-vectors."""
        return int(self.centroids.shape[1] * self.centroids.shape[3])

    @property
    def streams(self) -> int:
        """Return 1 + the number of DeepStack levels."""
        return int(self.centroids.shape[0])

    @property
    def sha256(self) -> str:
        """Return the hash of `to_bytes()`, in hex."""
        if "sha256" not in self._cache:
            self._cache["sha256"] = hashlib.sha256(self.to_bytes()).hexdigest()
        return str(self._cache["sha256"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codebook) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def table(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return the centroids on `device` as `dtype`, cached for the next call."""
        key = ("table", device, dtype)
        if key not in self._cache:
            self._cache[key] = self.centroids.to(device, dtype)
        table: Tensor = self._cache[key]
        return table

    def offsets(self, device: torch.device) -> Tensor:
        """Return int32 [M]: where each sub-vector's centroids start in a flat table."""
        import torch

        key = ("offsets", device)
        if key not in self._cache:
            count, size = self.centroids.shape[1:3]
            self._cache[key] = torch.arange(0, count * size, size, dtype=torch.int32, device=device)
        offsets: Tensor = self._cache[key]
        return offsets

    def quantiser(self, stream: int) -> Any:
        """Return FAISS's ProductQuantizer with the centroids of `stream`, cached for the next call."""
        import faiss

        if ("faiss", stream) not in self._cache:
            _, count, size, _ = self.centroids.shape
            quantiser = faiss.ProductQuantizer(self._cut, count, size.bit_length() - 1)
            faiss.copy_array_to_vector(self.centroids[stream].numpy().ravel(), quantiser.centroids)
            self._cache["faiss", stream] = quantiser
        return self._cache["faiss", stream]

    def rotate(self, rows: Tensor, stream: int) -> Tensor:
        """Rotate float32 rows [N, d] as OPQ does; without a rotation return them unchanged."""
        return rows if self.rotations is None else rows @ self._rotation(rows.device, stream).T

    def rotate_back(self, rows: Tensor, stream: int) -> Tensor:
        """Undo `rotate`."""
        return rows if self.rotations is None else rows @ self._rotation(rows.device, stream)

    def _rotation(self, device: torch.device, stream: int) -> Tensor:
        assert self.rotations is not None
        key = ("rotation", device)
        if key not in self._cache:
            self._cache[key] = self.rotations.to(device)
        rotation: Tensor = self._cache[key][stream]
        return rotation

    def to_bytes(self) -> bytes:
        """Return the codebook as a safetensors file; the same codebook always gives the same bytes."""
        from safetensors.torch import save

        tensors = {"centroids": self.centroids} | ({} if self.rotations is None else {"rotations": self.rotations})
        about = {"format": FORMAT, "quantiser": self.quantiser_spec, "trained": dict(self.trained)}
        # one entry of metadata, because safetensors writes several in any order
        data: bytes = save(tensors, metadata={METADATA: json.dumps(about, sort_keys=True)})
        return data


def load_codebook(path: str | Path) -> Codebook:
    """Read a codebook from a file. Raises UsageError if it cannot be opened, Damaged if it is damaged."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"The codebook {path} cannot be read ({error.strerror}); check the path.") from error
    return codebook_from_bytes(data, str(path))


def codebook_from_bytes(data: bytes, name: str = "This") -> Codebook:
    """Undo `Codebook.to_bytes`. Raises Damaged, naming `name`, for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        about = read_json(read_json(data[8 : 8 + length])["__metadata__"][METADATA])
        demand(about, {"quantiser": str, "trained": dict}, "it")
        return _from_tensors(about, tensors)
    except (SafetensorError, UsageError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{name} is not a valid codebook ({error}); load or train another.") from error


def _from_tensors(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Codebook:
    if about.get("format") != FORMAT:
        raise ValueError(f"format {about.get('format')!r} is not {FORMAT!r}")
    codebook = Codebook(
        str(about["quantiser"]), tensors["centroids"].float(), tensors.get("rotations"), dict(about["trained"])
    )
    rotations = codebook.rotations
    if codebook.centroids.ndim != 4 or 0 in codebook.centroids.shape or not codebook.centroids.isfinite().all():
        raise ValueError("its centroids have the wrong shape or are not finite")
    if rotations is not None and not (rotations.is_floating_point() and rotations.isfinite().all()):
        raise ValueError("its rotations are not finite")
    if rotations is not None and (rotations.ndim != 3 or rotations.shape[:2] != (codebook.streams, codebook._cut)):
        raise ValueError("its rotations have the wrong shape")
    return codebook
