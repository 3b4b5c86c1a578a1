"""Encode an image's visual tokens for the table, and decode them for the scorer.

    cells (pool, sample)  →  groups (group, cluster)  →  quantiser (none, int8, pq, opq)  →  bytes

Each step may be absent. The first two put fewer vectors in place of many; the last writes each with fewer bytes.
Decoding goes the other way and ends in tokens that replace the vision tower's own. Knows no model or table.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from looktwice.codecs import record_format
from looktwice.codecs.clustering import Clustering
from looktwice.codecs.grouping import Grouping
from looktwice.codecs.int8 import Int8
from looktwice.codecs.layout import to_json, token_count
from looktwice.codecs.members import reduce_members, stack_streams
from looktwice.codecs.plain import Plain
from looktwice.codecs.pooling import Pooling
from looktwice.codecs.pq import PQ
from looktwice.codecs.sampling import Sampling
from looktwice.codecs.scalar import RotatedScalar
from looktwice.errors import Damaged, Mismatch, UsageError
from looktwice.types import Layout, VisualTokens

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from looktwice.codecs.codebook import Codebook


PORTION = 1 << 22
"""Numbers decoded together on a CPU. The system gives tensors of more than 32 MiB fresh pages every time, and touching
those takes several times longer than decoding. Smaller tensors reuse the last query's memory."""


class ReducedTokens(NamedTuple):
    """Vectors left of an image: `values` [S, N, d], features first; `label` maps each cell to one, if not its own."""

    values: Tensor
    label: NDArray[np.int64] | None


class CodecRecord(NamedTuple):
    """One image's bytes, opened and checked: `label` as in Reduced, `codes` uint8 [S, N, row bytes]."""

    header: record_format.Header
    label: NDArray[np.int64] | None
    codes: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Codec:
    """A chain of steps. `str(codec)` is its name; `parse_codec` of that gives an equal codec (without codebook)."""

    cells: Pooling | Sampling | None = None
    groups: Grouping | Clustering | None = None
    quantiser: Plain | Int8 | RotatedScalar | PQ = field(default_factory=Plain)
    codebook: Codebook | None = None

    def __str__(self) -> str:
        steps = [str(step) for step in (self.cells, self.groups) if step is not None]
        return "+".join(steps + ([] if steps and self.quantiser == Plain() else [str(self.quantiser)]))

    @property
    def needs_codebook(self) -> bool:
        """Return whether encoding needs a codebook that is not here yet."""
        return isinstance(self.quantiser, PQ)

    def with_codebook(self, codebook: Codebook) -> Codec:
        """Return this codec with a codebook. Raises Mismatch if it is for another quantiser."""
        if not isinstance(self.quantiser, PQ):
            raise UsageError(f"{self} uses no codebook; leave it out.")
        self.quantiser.check(codebook, codebook.dim, codebook.streams)
        return replace(self, codebook=codebook)

    def shown(self, layout: Layout) -> Layout:
        """Return the layout of decoded tokens: coarser grids if tokens are skipped, else the same."""
        return self.cells.shown(layout) if self.cells else layout

    def kept(self, layout: Layout) -> int:
        """Return how many vectors are stored for an image of this layout (the most, if clusters may coincide)."""
        cells = self._cell_count(layout)
        return self.groups.most(cells) if self.groups else cells

    def image_bytes(self, layout: Layout, dim: int, levels: int = 0, itemsize: int = 2) -> int:
        """Return the length of `encode`'s result for tokens `dim` wide, `itemsize` bytes a number, in 1 + `levels`."""
        return self._length(self._cell_count(layout), self.kept(layout), dim, levels, itemsize)

    def reduce(self, tokens: VisualTokens) -> ReducedTokens:
        """Apply the first two steps only, as the training of a codebook needs."""
        values = stack_streams(tokens)
        if self.cells is not None:
            cell, first = self.cells.divide(tokens.layout)
            if self.cells.representative == "mean":
                values = reduce_members(values, cell, len(first), "mean")
            else:
                values = values[:, first]
        if self.groups is None:
            return ReducedTokens(values, None)
        label = self.groups.assign(values[0])
        kept = int(label.max()) + 1
        if kept == len(label):
            return ReducedTokens(values, None)
        return ReducedTokens(reduce_members(values, label, kept, self.groups.reduction), label)

    def encode(self, tokens: VisualTokens) -> bytes:
        """Return the bytes of one image's tokens (the format of `codecs.record_format`).

        Raises MediaError for tokens that are not finite and for a grid that the codec cannot take, UsageError if the
        codec needs a codebook and has none, Mismatch if the codebook does not fit the tokens.
        """
        values, label = self.reduce(tokens)
        self._check_codebook(values.shape[2], len(values))
        dtype = tokens.features.dtype
        if isinstance(self.quantiser, Plain):
            values = values.to(dtype)
        header = record_format.Header(
            dtype=str(dtype).removeprefix("torch."),
            levels=len(values) - 1,
            dim=values.shape[2],
            kept=values.shape[1],
            layout_crc=_layout_crc(tokens.layout),
            codec_crc=self._crc(),
        )
        parts = [header.pack(), b"" if label is None else record_format.pack_labels(label, header.kept)]
        rows = (self.quantiser.encode(stream, self.codebook, number) for number, stream in enumerate(values))
        return b"".join(parts + [codes.cpu().numpy().tobytes() for codes in rows])

    def decode(
        self, data: bytes, layout: Layout, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> VisualTokens:
        """Turn one image's bytes back into tokens; see `decode_batch`."""
        return self.decode_batch([data], [layout], device=device, dtype=dtype)[0]

    def decode_batch(
        self,
        data: Sequence[bytes],
        layouts: Sequence[Layout],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> list[VisualTokens]:
        """Turn many images' bytes into tokens; on an accelerator with one copy of the codes, one transfer, one gather.

        `layouts` are the ones encoded. The tokens come back with `shown(layout)`, in `dtype` or else in the dtype of
        the model that made them, and may be views of one tensor. Raises Damaged for damaged bytes and for a layout
        that does not match the codes, Mismatch for codes of another codec or codebook.
        """
        crc = self._crc()
        pairs = [(self._open(one, layout, crc), layout) for one, layout in zip(data, layouts, strict=True)]
        decoded: list[VisualTokens] = []
        for _, alike in groupby(
            pairs, key=lambda pair: (pair[0].header.dtype, pair[0].header.dim, pair[0].header.levels)
        ):
            for part in _portions([*alike], whole=str(device) != "cpu"):
                records, shapes = [record for record, _ in part], [layout for _, layout in part]
                decoded += self._decode_alike(records, shapes, device, dtype)
        return decoded

    def open(self, data: bytes, layout: Layout) -> CodecRecord:
        """Return one image's codes without decoding them; raises as `decode_batch` does."""
        return self._open(data, layout, self._crc())

    def rows(self, record: CodecRecord, layout: Layout) -> NDArray[np.int64]:
        """Return the stored vector that stands for each token of `shown(layout)`."""
        return self._rows(record, layout)

    def round_trip(self, tokens: VisualTokens) -> VisualTokens:
        """Return encoded and decoded `tokens`, as the symmetric setting treats the query."""
        return self.decode(self.encode(tokens), tokens.layout, device=tokens.features.device)

    def _decode_alike(
        self,
        records: Sequence[CodecRecord],
        layouts: Sequence[Layout],
        device: torch.device | str,
        dtype: torch.dtype | None,
    ) -> list[VisualTokens]:
        import numpy as np
        import torch

        header = records[0].header
        self._check_codebook(header.dim, header.levels + 1)
        codes = torch.from_numpy(np.concatenate([record.codes for record in records], axis=1)).to(device)
        stored = header.torch_dtype
        streams = [
            self.quantiser.decode(rows, stored, dtype or stored, self.codebook, number)
            for number, rows in enumerate(codes)
        ]
        streams = self._spread(streams, records, layouts)
        shown = [self.shown(layout) for layout in layouts]
        sizes = [token_count(layout) for layout in shown]
        features = torch.split(streams[0], sizes)
        levels = torch.split(torch.stack(streams[1:]), sizes, dim=1) if header.levels else [None] * len(sizes)
        return [VisualTokens(*parts) for parts in zip(features, levels, shown, strict=True)]

    def _spread(self, streams: list[Tensor], records: Sequence[CodecRecord], layouts: Sequence[Layout]) -> list[Tensor]:
        """Give every token the stored vector that stands for it, and zeros under the rule `zero`."""
        import numpy as np
        import torch

        dense = self.cells is not None and self.cells.replacement != "skip"
        if not dense and all(record.label is None for record in records):
            return streams
        starts = np.cumsum([0, *(record.header.kept for record in records[:-1])])
        rows = [self._rows(record, layout) for record, layout in zip(records, layouts, strict=True)]
        shifted = np.concatenate([start + row for start, row in zip(starts, rows, strict=True)])
        index = torch.from_numpy(shifted).to(streams[0].device)
        streams = [stream[index] for stream in streams]
        if self.cells is not None and self.cells.replacement == "zero":
            blank = torch.from_numpy(np.concatenate([self._blank(layout) for layout in layouts])).to(index.device)
            streams = [stream.masked_fill(blank[:, None], 0) for stream in streams]
        return streams

    def _rows(self, record: CodecRecord, layout: Layout) -> NDArray[np.int64]:
        import numpy as np

        rows: NDArray[np.int64] = np.arange(self._cell_count(layout)) if record.label is None else record.label
        if self.cells is None or self.cells.replacement == "skip":
            return rows
        return rows[self.cells.divide(layout).cell]

    def _blank(self, layout: Layout) -> NDArray[np.bool_]:
        import numpy as np

        assert self.cells is not None
        blank = np.ones(token_count(layout), dtype=np.bool_)
        blank[self.cells.divide(layout).first] = False
        return blank

    def _open(self, data: bytes, layout: Layout, crc: int) -> CodecRecord:
        import numpy as np

        header = record_format.read_header(data)
        if header.codec_crc != crc:
            raise Mismatch(f"Another codec or codebook than {self} made these token codes; use the table's own codec.")
        disagree = Damaged("Token codes do not match their layout; index that item again.")
        if header.layout_crc != _layout_crc(layout):
            raise disagree
        cells = self._cell_count(layout)
        expected = self._length(cells, header.kept, header.dim, header.levels, header.torch_dtype.itemsize)
        if not self._may_keep(header.kept, cells) or len(data) != expected:
            raise disagree
        start = record_format.HEADER.size
        codes_at = start + (record_format.label_bytes(cells, header.kept) if header.kept < cells else 0)
        label = record_format.unpack_labels(data[start:codes_at], cells, header.kept) if header.kept < cells else None
        codes = np.frombuffer(data, np.uint8, offset=codes_at).reshape(header.levels + 1, header.kept, -1)
        return CodecRecord(header, label, codes)

    def _may_keep(self, kept: int, cells: int) -> bool:
        if self.groups is None:
            return kept == cells
        most = self.groups.most(cells)
        return kept == most if isinstance(self.groups, Grouping) else 1 <= kept <= most

    def _cell_count(self, layout: Layout) -> int:
        return len(self.cells.divide(layout).first) if self.cells else token_count(layout)

    def _length(self, cells: int, kept: int, dim: int, levels: int, itemsize: int) -> int:
        labels = record_format.label_bytes(cells, kept) if kept < cells else 0
        return record_format.HEADER.size + labels + (1 + levels) * kept * self.quantiser.row_bytes(dim, itemsize)

    def _check_codebook(self, dim: int, streams: int) -> None:
        if isinstance(self.quantiser, PQ) and self.codebook is not None:
            self.quantiser.check(self.codebook, dim, streams)

    def _crc(self) -> int:
        return zlib.crc32(f"{self}@{self.codebook.sha256 if self.codebook else ''}".encode())


def _portions(pairs: list[tuple[CodecRecord, Layout]], whole: bool) -> Iterator[list[tuple[CodecRecord, Layout]]]:
    """Cut a batch into portions of at most PORTION numbers, unless it must stay whole; one image is never cut."""
    part: list[tuple[CodecRecord, Layout]] = []
    numbers = 0
    for record, layout in pairs:
        more = (record.header.levels + 1) * token_count(layout) * record.header.dim
        if part and not whole and numbers + more > PORTION:
            yield part
            part, numbers = [], 0
        part.append((record, layout))
        numbers += more
    if part:
        yield part


@lru_cache(maxsize=4096)
def _layout_crc(layout: Layout) -> int:
    return zlib.crc32(to_json(layout).encode())
