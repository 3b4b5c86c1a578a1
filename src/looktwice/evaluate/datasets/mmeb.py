"""Read MMEB (ICLR 2025): 36 data sets, each query with its own candidates, the first of which is right.

    ROOT/NAME/test-00000-of-00001.parquet     qry_text, qry_img_path, tgt_text: list, tgt_img_path: list
    ROOT/eval_images/PATH                     and qry_inst?, tgt_inst? (a text, or one for each target)

Layout of the hub dataset TIGER-Lab/MMEB-eval with its images.zip unpacked as eval_images, as the VLM2Vec code expects;
also that of ziyjiang/MMEB_Test_Instruct, which its newest evaluation reads: instructions stand in columns of their own.
The image marker in texts is taken out. The released RetLLM code lets exact ties favour the right answer, which stands
first; here ids decide ties, and they are hashes of content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from looktwice.errors import UnknownName, UsageError
from looktwice.evaluate.datasets.base import Dataset, Query
from looktwice.evaluate.datasets.layout import FileLayout, relevant
from looktwice.evaluate.mmeb import NAMES
from looktwice.sources import Source

FETCH = "Fetch the hub dataset TIGER-Lab/MMEB-eval and unpack its images.zip into eval_images."
QUERIES = 1000
COLUMNS = ("qry_text", "qry_img_path", "tgt_text", "tgt_img_path")
INSTRUCTIONS = ("qry_inst", "tgt_inst")
"""Columns of the newer ziyjiang/MMEB_Test_Instruct; each goes before the text of its side."""


def read(root: Path, which: str, partial: bool = False) -> Dataset:
    """Read one of the 36 data sets. Average their P@1 with `evaluate.mmeb.averages`."""
    if which not in NAMES:
        raise UnknownName("MMEB data set", which, NAMES)
    layout = FileLayout(f"MMEB {which}", root, FETCH, partial)
    path = layout.file(which, "test-00000-of-00001.parquet")
    layout.folder("eval_images")
    layout.check()
    items: dict[str, Source] = {}
    queries: list[Query] = []
    options: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(_rows(layout, path)):
        queries.append(Query(_source(layout, path, f"q{number}", row["qry_text"], row["qry_img_path"], number)))
        names = [_name(*pair) for pair in zip(row["tgt_text"], row["tgt_img_path"], strict=True)]
        for name, text, image in zip(names, row["tgt_text"], row["tgt_img_path"], strict=True):
            if name not in items:
                items[name] = _source(layout, path, name, text, image, QUERIES + len(items))
        options[f"q{number}"] = tuple(dict.fromkeys(names))
    layout.count("queries", len(queries), QUERIES)
    qrels = relevant((query, names[0]) for query, names in options.items())
    notes = tuple(layout.notes)
    listed = [*items.values()]
    return layout.finish(
        Dataset(layout.name, listed, queries, qrels, ("P@1",), depth=1000, candidates=options, notes=notes)
    )


def _rows(layout: FileLayout, path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        more = [name for name in INSTRUCTIONS if name in parquet.read_schema(path).names]
        table = parquet.read_table(path, columns=[*COLUMNS, *more])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UsageError(f"{path} cannot be read ({error}); fetch it again.") from None
    for number, row in enumerate(table.to_pylist()):
        texts, images = (row[key] if isinstance(row[key], list) else None for key in COLUMNS[2:])
        if not texts or not images or len(texts) != len(images):
            layout.broken(path, f"row {number}", "tgt_text and tgt_img_path to be lists of one length", row)
        yield {**row, "qry_text": _instructed(row.get("qry_inst"), row["qry_text"]), "tgt_text": _targets(row, texts)}


def _targets(row: dict[str, Any], texts: list[str | None]) -> list[str | None]:
    told = row.get("tgt_inst")
    each = told if isinstance(told, list) and len(told) == len(texts) else [told] * len(texts)
    return [_instructed(one, text) for one, text in zip(each, texts, strict=True)]


def _instructed(instruction: object, text: str | None) -> str | None:
    return f"{instruction} {text or ''}" if isinstance(instruction, str) and instruction else text


def _name(text: str | None, image: str | None) -> str:
    return hashlib.sha256(f"{image or ''}\0{text or ''}".encode()).hexdigest()[:20]


def _source(layout: FileLayout, path: Path, name: str, text: str | None, image: str | None, number: int) -> Source:
    text = " ".join((text or "").replace("<|image_1|>", " ").split())
    if image:
        return layout.image(layout.root / "eval_images" / image, name, text or None)
    return layout.words(path, number, name, text)
