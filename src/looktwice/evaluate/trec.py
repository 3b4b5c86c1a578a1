"""Read and write runs and relevance labels in the file formats of other tools.

A run in memory is `{query: [(document, score), …]}`, best first. Its file form is TREC's six columns
`query Q0 document rank score tag`, or JSON `{query: {document: score}}` (ILIAS). Labels are TREC's four columns
`query 0 document relevance`, or BEIR's three tab-separated ones under a header.

TREC columns end at white space, which file names may contain. White space, control characters and undecodable bytes in
an id are therefore written as `\\uXXXX` and read back; every other id is written unchanged.
"""

from __future__ import annotations

import gzip
import json
import logging
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from looktwice.errors import UsageError
from looktwice.files import write_whole

Run: TypeAlias = dict[str, list[tuple[str, float]]]
Qrels: TypeAlias = dict[str, dict[str, int]]

_Rows: TypeAlias = dict[str, list[tuple[str, float, float]]]  # query: (document, rank in the file, score)

_log = logging.getLogger(__name__)
MOST_BYTES = 2**32
"""Largest unpacked run or label file; a thousand candidates for each of a hundred thousand queries take less."""

_UNSAFE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]|\\(?=u[0-9a-f]{4})")
_LARGEST = 3e38  # a little below the largest 32-bit float, which leaves room for smaller neighbours
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")


def escape(name: str) -> str:
    r"""Return an id as one TREC column. Raises UsageError for an empty id, which a column cannot hold.

    >>> print(escape("my photo.jpg"), escape("C:\\u.jpg"))
    my\u0020photo.jpg C:\u.jpg
    """
    if not name:
        raise UsageError("An empty id cannot be written to a TREC file; give every query and item an id.")
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", name)


def unescape(column: str) -> str:
    """Undo `escape`; any other text comes back unchanged."""
    if "\\u" not in column:
        return column
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), column)


def read_run(path: str | Path) -> Run:
    """Read a TREC run or a JSON shortlist (also `.gz`) and return each query's documents best first.

    Scores decide the order, as in trec_eval; equal scores keep the file's rank (JSON: the file's order). A warning
    counts the queries whose ranks and scores disagree. Raises UsageError, with the line, for a file of neither format,
    a score that is not finite, and a document listed twice for one query.
    """
    data = _read(path)
    is_json = _looks_like_json(data)
    found = _json_rows(path, data) if is_json else _trec_rows(path, data)
    _refuse_repeats(path, {query: [row[0] for row in rows] for query, rows in found.items()})
    for rows in found.values():
        rows.sort(key=lambda row: (-row[2], row[1]))
    odd = sum(any(below[1] < above[1] for above, below in pairwise(rows)) for rows in found.values())
    if odd and not is_json:
        _log.warning(
            "%s has ranks that disagree with the scores for %d of %d queries; the scores are used.",
            path,
            odd,
            len(found),
        )
    return {query: [(document, score) for document, _, score in rows] for query, rows in found.items()}


def write_run(path: str | Path, run: Mapping[str, Sequence[tuple[str, float]]], tag: str = "looktwice") -> None:
    """Write a TREC run with ranks 1…n and strictly falling scores, so that every reader finds the same order.

    trec_eval holds scores as 32-bit floats and breaks ties by document id. A score that would tie with the one above is
    therefore written as the next smaller 32-bit number; the others are only rounded to 32 bits. The file is written
    atomically. Raises UsageError for a document listed twice, a score that is not finite or above its predecessor.
    """
    label = escape(tag)
    _refuse_repeats(path, {query: [document for document, _ in documents] for query, documents in run.items()})
    lines = (
        f"{escape(query)} Q0 {escape(document)} {rank} {score} {label}\n"
        for query, documents in run.items()
        for rank, ((document, _), score) in enumerate(zip(documents, _falling(query, documents), strict=True), start=1)
    )
    write_whole(Path(path), "".join(lines).encode())


def read_qrels(path: str | Path) -> Qrels:
    """Read relevance labels: TREC's `query 0 document relevance`, or BEIR's tab-separated `query document relevance`.

    Relevance is a whole number; above 0 is relevant. BEIR ids are used unchanged. Raises UsageError, with the line, for
    other contents and for two different labels of one pair.
    """
    data = _read(path)
    qrels: Qrels = {}
    tabs = _first_line(data).count(b"\t") == 2
    for number, line in _lines(data):
        columns = [_text(column) for column in (line.rstrip(b"\r").split(b"\t") if tabs else line.split())]
        if tabs and number == 1 and _whole(columns[-1]) is None:
            continue  # BEIR's header: query-id, corpus-id, score
        relevance = _whole(columns[-1])
        if len(columns) != (3 if tabs else 4) or relevance is None:
            raise UsageError(f"{path}, line {number}: found {_text(line[:80])!r}; write `query 0 document relevance`.")
        query, document = (columns[0], columns[1]) if tabs else (unescape(columns[0]), unescape(columns[2]))
        if qrels.setdefault(query, {}).setdefault(document, relevance) != relevance:
            raise UsageError(
                f"{path}, line {number}: {document!r} has two different labels for query {query!r}; keep one."
            )
    return qrels


def _read(path: str | Path) -> bytes:
    reader: Callable[..., Any] = gzip.open if str(path).endswith(".gz") else open
    try:
        with reader(path, "rb") as file:
            data = b"".join(_parts(file, path))
    except (OSError, EOFError, zlib.error) as error:  # gzip reports a cut-off file as EOFError, a damaged one as zlib's
        raise UsageError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); check the path and the file."
        ) from None
    return data.removeprefix(b"\xef\xbb\xbf")


def _parts(file: Any, path: str | Path) -> Iterator[bytes]:
    """Yield a file in pieces. Raises UsageError above MOST_BYTES: a small .gz may unpack to any size."""
    size = 0
    while part := file.read(2**24):
        size += len(part)
        if size > MOST_BYTES:
            raise UsageError(f"{path} has more than {MOST_BYTES:,} bytes; split it by queries.")
        yield part


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered lines that are not blank. In bytes, only ASCII white space ends lines and columns, as in C."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield number, line


def _first_line(data: bytes) -> bytes:
    return next((line for _, line in _lines(data)), b"")


def _looks_like_json(data: bytes) -> bool:
    columns = _first_line(data).split()  # a query's own name may begin with a brace
    return data.lstrip().startswith(b"{") and not (len(columns) == 6 and columns[1] == b"Q0")


def _trec_rows(path: str | Path, data: bytes) -> _Rows:
    found: _Rows = {}
    for number, line in _lines(data):
        try:
            query, _, document, rank, score, _ = line.split()
            place, value = float(rank), float(score)
        except ValueError:
            raise UsageError(
                f"{path}, line {number}: found {_text(line[:80])!r}; write `query Q0 document rank score tag`."
            ) from None
        if not math.isfinite(value) or math.isnan(place):
            raise UsageError(
                f"{path}, line {number}: found {_text(line[:80])!r}; write finite numbers as rank and score."
            )
        found.setdefault(unescape(_text(query)), []).append((unescape(_text(document)), place, value))
    return found


def _json_rows(path: str | Path, data: bytes) -> _Rows:
    try:
        shortlists = json.loads(
            _text(data), object_pairs_hook=list
        )  # pairs, so that a repeated key is seen and not dropped
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON ({error}); write it again.") from None
    found: _Rows = {}
    for query, documents in shortlists:
        if not isinstance(documents, list) or not all(isinstance(entry, tuple) for entry in documents):
            raise UsageError(f"{path}: the value of {query!r} is not an object; write {{query: {{document: score}}}}.")
        rows = found.setdefault(query, [])
        for document, score in documents:
            if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= 1e308:
                raise UsageError(f"{path}: the score of {document!r} for query {query!r} is {score!r}; give a number.")
            rows.append((document, float(len(rows)), float(score)))
    return found


def _falling(query: str, documents: Sequence[tuple[str, float]]) -> list[str]:
    scores = np.array([score for _, score in documents], np.float64)
    for wrong, problem in (
        (~(np.abs(scores) <= _LARGEST), "is not a finite 32-bit number"),
        (np.r_[False, scores[1:] > scores[:-1]], "is higher than the one above it"),
    ):
        if wrong.any():
            document, score = documents[int(wrong.argmax())]
            raise UsageError(
                f"Query {query!r}: the score {score} of {document!r} {problem}; list finite scores, best first."
            )
    rounded = scores.astype(np.float32)
    for i in np.flatnonzero(rounded[1:] >= rounded[:-1]) + 1:
        for place in range(i, len(rounded)):  # lower scores until the list falls by itself again
            if rounded[place] < rounded[place - 1]:
                break
            rounded[place] = np.nextafter(rounded[place - 1], np.float32(-np.inf))
    return list(map(str, rounded))


def _refuse_repeats(path: str | Path, lists: Mapping[str, Sequence[str]]) -> None:
    for query, documents in lists.items():
        if len(set(documents)) < len(documents):
            document, n = Counter(documents).most_common(1)[0]
            raise UsageError(f"{path}: query {query!r} lists {document!r} {n} times; list each document once.")


def _whole(column: str) -> int | None:
    try:
        number = float(column)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None
