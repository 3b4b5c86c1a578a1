"""The jobs that `--ray` gives to workers, over the same 48-pixel images: encode, visual tokens, second look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from looktwice.encode import load_encoder
from looktwice.indexing import index
from looktwice.indexing.distributed import EncodingJob
from looktwice.indexing.planning import Planner
from looktwice.score import load_scorer
from looktwice.search.distributed import SearchJob
from looktwice.search.mllm_reranker import MllmReranker
from looktwice.search.retriever import Retriever
from looktwice.sources import scan
from looktwice.store import Table, batched
from looktwice.token_index import add_tokens
from looktwice.token_index.distributed import TokenJob
from looktwice.types import Item

Job: TypeAlias = tuple[Callable[[], Any], list[Sequence[Any]]]
"""Work of a worker, and its shards."""

SHARD, DEPTH = 16, 50
PLACE: dict[str, Any] = {"device": "cpu", "dtype": "float32"}


def real_jobs(folder: Path, images: int) -> dict[str, Job]:
    """Make images and a table with int8 tokens; return the jobs that would make them again, and search them."""
    (folder / "images").mkdir()
    for number, colours in enumerate(np.random.default_rng(0).integers(0, 255, (images, 4, 4, 3), np.uint8)):
        path = folder / "images" / f"{number:05}.png"
        Image.fromarray(colours).resize((48, 48), Image.Resampling.NEAREST).save(path)
    encoder = load_encoder("tiny-clip", **PLACE)
    full, empty = (Table.create(folder / name, encoder.info) for name in ("full.lt", "empty.lt"))
    index(full, scan([folder / "images"]), encoder)
    add_tokens(full, load_scorer("tiny-vl", **PLACE), "int8")
    return {"encode": _encoding(folder, empty), "visual tokens": _tokens(full), "second look": _second_look(full)}


def _encoding(folder: Path, empty: Table) -> Job:
    planner = Planner(empty, empty.manifest.previews, restore=False)
    shards: list[Sequence[Any]] = list(batched(planner.plan(scan([folder / "images"])), SHARD))
    planner.close()
    return EncodingJob.of(empty, empty.manifest.encoder, threads=1, **PLACE), shards


def _tokens(full: Table) -> Job:
    job = TokenJob.of(full, "tiny-vl", loading=PLACE)
    return replace(job, key=full.manifest.tokens[0]["tokens_key"]), list(batched(sorted(full.hashes()), SHARD))


def _second_look(full: Table) -> Job:
    look = MllmReranker("tiny-vl", **PLACE)
    make = partial(Retriever, [str(full.path)], None, scorer=look, shortlist=DEPTH, device="cpu")
    how = {"k": 10, "where": None, "rerank": True, "distinct": False}
    names = sorted(full.hashes())[:: max(1, len(full) // 50)]
    rows = full.get(names)
    return SearchJob(make, how), [[Item(row.id, image=Image.open(_path(row.uri)).convert("RGB"))] for row in rows]


def _path(uri: str) -> str:
    return uri.removeprefix("file://")
