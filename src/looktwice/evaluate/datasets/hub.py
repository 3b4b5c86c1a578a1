"""Read a retrieval data set in the hub's layout: three tables in a local folder, as mteb writes and reads them.

    ROOT/corpus/*.parquet or *.jsonl      id (or _id), text?, title?, image?
    ROOT/queries/…                        id (or _id), text?, image?
    ROOT/qrels/…                          query-id, corpus-id, score

An image is {"bytes", "path"} (parquet) or a path relative to ROOT. Images inside parquet files are written to `work`
once, named by their hash, because an item needs a file. A SPLIT keeps only files whose name begins with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from looktwice.errors import UsageError
from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout
from looktwice.files import write_whole
from looktwice.sources import Source, file_uri

FETCH = "Fetch the dataset's folders corpus, queries and qrels from the hub, for example with `hf download`."


def read(root: Path, work: Path, split: str = "", partial: bool = False) -> Dataset:
    """Read the three tables; images inside them are written below `work`."""
    layout = FileLayout(f"{root.resolve().name} {split}".strip(), root, FETCH, partial)
    files = {part: _files(layout, layout.folder(part), split) for part in ("corpus", "queries", "qrels")}
    layout.check()
    qrels = _qrels(layout, files["qrels"])
    items = [_source(layout, *row, work) for row in _rows(layout, files["corpus"])]
    asked = [_source(layout, *row, work) for row in _rows(layout, files["queries"])]
    queries = [Query(source) for source in asked if source.id in qrels]
    for name in sorted(qrels.keys() - {query.id for query in queries}):
        layout.missing(f"query {name} of qrels")
    layout.count("documents", len(items), None)
    layout.count("queries", len(queries), None)
    measures = ("nDCG@10", "recall@100", "mAP@100", "success@1")
    return layout.finish(Dataset(layout.name, items, queries, qrels, measures, notes=tuple(layout.notes)))


def _files(layout: FileLayout, folder: Path, split: str) -> list[Path]:
    files = sorted(path for kind in ("parquet", "jsonl") for path in folder.glob(f"{split}*.{kind}"))
    if not files:
        layout.missing(f"{folder.name}/{split}*.parquet or *.jsonl")
    return files


def _rows(layout: FileLayout, files: list[Path]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    for path in files:
        if path.suffix == ".jsonl":
            yield from ((path, number, record) for number, record in layout.jsonl(path))
            continue
        yield from ((path, number, record) for number, record in enumerate(_parquet(path)))


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(256):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read ({error}); fetch it again.") from None


def _qrels(layout: FileLayout, files: list[Path]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for path, number, record in _rows(layout, files):
        query, item = (record.get(key) for key in ("query-id", "corpus-id"))
        score = record.get("score")
        if query is None or item is None or not isinstance(score, int | float) or score % 1 != 0:
            layout.broken(path, f"row {number}", "query-id, corpus-id and a whole score", record)
        if qrels.setdefault(str(query), {}).setdefault(str(item), int(score)) != int(score):
            layout.broken(path, f"row {number}", f"one label for {item!r}", record)
    return qrels


def _source(layout: FileLayout, path: Path, number: int, record: dict[str, Any], work: Path) -> Source:
    name = record.get("id", record.get("_id"))
    if name in (None, ""):
        layout.broken(path, f"row {number}", "an id", record)
    text = " ".join(str(record[key]) for key in ("title", "text") if record.get(key))
    image = record.get("image")
    if not image:
        return layout.words(path, number, str(name), text)
    if isinstance(image, str):
        return layout.image(layout.root / image, str(name), text or None)
    file = _written(layout, path, number, image, work)
    return Source(str(name), file_uri(file), file_uri(layout.root, folder=True), text or None)


def _written(layout: FileLayout, path: Path, number: int, image: Any, work: Path) -> Path:
    data = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(data, bytes) or not data:
        layout.broken(path, f"row {number}", "an image with bytes", type(image).__name__)
    file = work / "pictures" / hashlib.sha256(data).hexdigest()
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, data)
    return file
