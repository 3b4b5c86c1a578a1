"""Read vectors and their records from clip-retrieval folders, Parquet files and LanceDB tables, in batches.

OUT/img_emb/img_emb_0.npy, OUT/metadata/metadata_0.parquet     a folder of clip-retrieval (clip-inference)
items.parquet, or a folder of them                             a column of vectors, the others are the record
photos.lance                                                   a table of LanceDB
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from looktwice.errors import UnknownName, UsageError, first_line
from looktwice.store.lance_manifest import check_lance
from looktwice.store.location import locate

if TYPE_CHECKING:
    from looktwice.types import FloatArray

ROWS = 4096
Vectors: TypeAlias = "tuple[FloatArray, list[dict[str, Any]]]"


def batches_of(source: Path, vector: str | None, guesses: Sequence[str]) -> Iterator[Vectors]:
    """Yield vectors [n, d] with their records. Raises UsageError for a source of no known kind."""
    if not source.exists():
        raise UsageError(f"{source} does not exist; check the spelling.")
    if (source / "img_emb").is_dir():
        return _clip_retrieval(source)
    if source.is_dir() and source.suffix == ".lance":
        return _columns(_lance(source), vector, guesses)
    files = [source] if source.suffix == ".parquet" else sorted(source.glob("*.parquet")) if source.is_dir() else []
    if not files:
        raise UsageError(
            f"{source} is not something to import; name a .parquet file, a folder of them, a .lance table, or a "
            "clip-retrieval folder with img_emb/ and metadata/."
        )
    return _columns((batch for file in files for batch in _parquet(file)), vector, guesses)


def _clip_retrieval(folder: Path) -> Iterator[Vectors]:
    files = sorted(folder.glob("img_emb/*.npy"), key=lambda path: (len(path.name), path.name))
    for file in files:
        number = file.stem.rpartition("_")[2]
        about = folder / "metadata" / f"metadata_{number}.parquet"
        if not about.is_file():
            raise UsageError(f"{file} has no {about.relative_to(folder)} beside it; import whole folders.")
        vectors, start = _numpy(file), 0
        for batch in _parquet(about):
            part = as_float32(vectors[start : start + len(batch)])
            if len(part) != len(batch):
                raise UsageError(f"{file} has {len(vectors):,} vectors, {about.name} more rows; write both again.")
            yield part, _records(batch)
            start += len(batch)
        if start < len(vectors):  # a shifted file would give every row a wrong vector
            raise UsageError(
                f"{file} has {len(vectors):,} vectors, {about.name} only {start:,} rows; write both again."
            )


def _numpy(file: Path) -> FloatArray:
    """Map a file of vectors into memory. Raises UsageError if it is not one."""
    try:
        vectors: FloatArray = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the header is parsed as Python, so a damaged one raises anything
        raise UsageError(f"{file} cannot be read ({first_line(error)}); write it again.") from None
    if vectors.dtype.kind != "f" or vectors.ndim != 2:
        raise UsageError(f"{file} holds {vectors.dtype} of {vectors.ndim} dimensions; write vectors, row by row.")
    return vectors


def _parquet(file: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        yield from pq.ParquetFile(file).iter_batches(ROWS)
    except (pa.ArrowInvalid, OSError) as error:
        raise UsageError(f"{file} cannot be read ({error}); write it again.") from None


def _lance(folder: Path) -> Iterator[Any]:
    import lancedb

    check_lance(locate(folder.parent), folder.stem)
    try:
        table = lancedb.connect(folder.parent).open_table(folder.stem)
        yield from table.search().to_batches(ROWS)
    except (ValueError, RuntimeError, OSError) as error:
        raise UsageError(f"{folder} cannot be read as a LanceDB table ({error}); check it.") from None


def _columns(batches: Iterator[Any], vector: str | None, guesses: Sequence[str]) -> Iterator[Vectors]:
    for batch in batches:
        names = batch.schema.names
        if len(set(names)) < len(names):
            raise UsageError("Two columns have the same name; rename one of them.")
        if vector is not None and vector not in names:
            raise UnknownName("column for --vector", vector, names)
        name = vector or next((guess for guess in guesses if guess in names), None)
        if name is None:
            raise UsageError(f"No column is called {', '.join(guesses)}; name one of {', '.join(names)} with --vector.")
        rest = batch.select([column for column in names if column != name])
        yield _vectors(batch.column(name), name), _records(rest)


def _records(batch: Any) -> list[dict[str, Any]]:
    """Return rows as values of Python. Raises UsageError for a value that is none, such as a text that is not UTF-8."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        raise UsageError(f"A value to import cannot be read ({error}); leave its column out.") from None
    return rows


def _vectors(column: Any, name: str) -> FloatArray:
    """Return the vectors [n, d] of a column; a row without one is NaN. Raises UsageError for vectors of two lengths."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        lengths = pc.unique(pc.list_value_length(column).drop_null()).to_pylist()
        flat = as_float32(column.flatten().to_numpy(zero_copy_only=False))
    except (pa.ArrowException, AttributeError, ValueError, TypeError):
        lengths = []
    if len(lengths) != 1 or not lengths[0]:
        raise UsageError(
            f"The column {name!r} does not hold vectors of one length; name another with --vector."
        ) from None
    rows: FloatArray = np.full((len(column), lengths[0]), np.nan, np.float32)
    rows[np.asarray(column.is_valid())] = flat.reshape(-1, lengths[0])
    return rows


def as_float32(numbers: Any) -> FloatArray:
    """Return numbers as float32; one that is too large becomes infinity, and its row is left out."""
    with np.errstate(over="ignore"):
        found: FloatArray = np.asarray(numbers, np.float32)
    return found
