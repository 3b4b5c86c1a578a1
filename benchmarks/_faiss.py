"""FAISS on the vectors of a large table: an inverted file of RaBitQ codes, refined from a mapped float16 file."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

faiss: Any = import_module("faiss")
faiss.omp_set_num_threads(1)

_SAVED = 2**19  # rows between two checkpoints
_ROWS_AT, _SIZE_AT = 8, -8  # of a file of codes: number of rows, and bytes of all codes, which follow


def stored(path: Path, blocks: Iterable[np.ndarray], dim: int) -> Path:
    """Write float16 vectors as a FAISS index that needs no memory: its header, and then the vectors as they are."""
    if path.exists():
        return path
    empty = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    header, draft, rows = bytearray(faiss.serialize_index(empty).tobytes()), path.with_suffix(".draft"), 0
    with draft.open("wb") as file:
        file.write(header)
        for vectors in blocks:
            file.write(vectors.tobytes())
            rows += len(vectors)
        struct.pack_into("<q", header, _ROWS_AT, rows)
        struct.pack_into("<q", header, len(header) + _SIZE_AT, rows * dim * 2)
        file.seek(0)
        file.write(header)
    return draft.rename(path)


def vectors_in(path: Path, dim: int) -> np.ndarray:
    """Return the vectors of such a file, mapped."""
    flat = np.memmap(path, np.float16, "r", offset=path.stat().st_size % (2 * dim))
    return flat.reshape(-1, dim)


def built(path: Path, kind: str, vectors: np.ndarray) -> dict[str, float]:
    """Build an index, or go on from its last checkpoint. Return seconds, of the clock and of the CPU."""
    begun, cpu = time.perf_counter(), time.process_time()
    if path.exists():
        index = faiss.read_index(str(path))
    else:
        index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        lists = faiss.extract_index_ivf(index).nlist
        picked = np.sort(np.random.default_rng(0).choice(len(vectors), min(len(vectors), 64 * lists), replace=False))
        index.train(vectors[picked].astype(np.float32))
    for start in range(index.ntotal, len(vectors), 2**16):
        index.add(vectors[start : start + 2**16].astype(np.float32))
        if index.ntotal % _SAVED == 0 or index.ntotal == len(vectors):
            faiss.write_index(index, str(path.with_suffix(".draft")))
            path.with_suffix(".draft").rename(path)
            print(f"{kind}: {index.ntotal} rows, {time.process_time() - cpu:.0f} s of processor time", flush=True)
    return {"seconds": round(time.perf_counter() - begun, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}


def refined(codes: Path, vectors: Path) -> Any:
    """Return an index that proposes rows by codes in memory and scores them by the mapped vectors."""
    base = faiss.read_index(str(codes))
    store = faiss.read_index(str(vectors), faiss.IO_FLAG_MMAP_IFC)
    return faiss.IndexRefine(base, store)


def search(index: Any, query: np.ndarray, k: int, nprobe: int, refine: int) -> list[int]:
    """Return the numbers of the k nearest rows."""
    probes = faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=nprobe))
    how = faiss.IndexRefineSearchParameters(k_factor=refine, base_index_params=probes)
    return index.search(query[None], k, params=how)[1][0].tolist()


def exact(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    """Return the numbers [q, k] of the nearest rows, by one pass over all vectors."""
    heap = faiss.ResultHeap(len(queries), k, keep_max=True)
    for start in range(0, len(vectors), 2**16):
        found = faiss.knn(queries, vectors[start : start + 2**16].astype(np.float32), k, faiss.METRIC_INNER_PRODUCT)
        heap.add_result(found[0], found[1] + start)
    heap.finalize()
    return heap.I
