"""Read `.jsonl` lists: one JSON object per line, `{"id": …, "image": …, "text": …, "metadata": {…}}`.

`image` is a path relative to the list, a `file:` uri or a URL; without it the item is its text. All other keys count as
metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from looktwice.errors import MediaError
from looktwice.sources.records import MAX_DEPTH, Line, Source, Unreadable, text_is_clean
from looktwice.sources.uri import Urls, failure, is_object, is_url, join_uri, open_uri, parse_uri, range_uri

MAX_LINE = 2**24


def scan_jsonl(root: str, urls: Urls = "refused") -> Iterator[Source | Unreadable]:
    """Yield one item per line, in order; an unusable line is yielded as Unreadable and hides the list."""
    try:
        with open_uri(root) as file:
            offset = number = 0
            while line := file.readline(MAX_LINE):
                number += 1
                where = range_uri(root, offset, len(line))
                long = len(line) == MAX_LINE and not line.endswith(b"\n")
                offset += len(line) + (_skip_line(file) if long else 0)
                try:
                    if long:
                        raise MediaError("bad-record", f"the line is longer than {MAX_LINE:,} bytes; shorten it")
                    if record := parse_object(line.removeprefix(b"\xef\xbb\xbf")):
                        yield _source(record, root, Line(number, where), urls)
                except MediaError as error:
                    yield Unreadable(where, root, error.reason, f"line {number}: {error.detail}", hides=root)
    except MediaError as error:
        yield Unreadable.of(root, root, error, hides=root)
    except OSError as error:
        yield Unreadable.of(root, root, failure(error, parse_uri(root).path), hides=root)


def parse_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object; white space alone gives an empty one. Raises MediaError (`bad-record`)."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse) if data.strip() else {}
    except UnicodeDecodeError as error:
        raise MediaError("bad-record", f"it is not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise MediaError("bad-record", f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise MediaError("bad-record", "it is JSON, but not an object; write {…}")
    try:
        clean = text_is_clean(value)
    except RecursionError:
        raise MediaError("bad-record", f"it is nested deeper than {MAX_DEPTH} levels") from None
    if not clean:
        raise MediaError("bad-record", "it contains a lone surrogate; write it again as valid UTF-8")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _skip_line(file: Any) -> int:
    skipped = 0
    while part := file.readline(MAX_LINE):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _source(record: dict[str, Any], root: str, line: Line, urls: Urls) -> Source:
    item_id, image, text, metadata = (record.pop(key, None) for key in ("id", "image", "text", "metadata"))
    if isinstance(item_id, int) and not isinstance(item_id, bool):
        item_id = str(item_id)
    if not isinstance(item_id, str) or not item_id:
        raise MediaError("bad-record", '"id" must be a non-empty string or a whole number')
    if not isinstance(text, str | None) or not isinstance(image, str | None):
        raise MediaError("bad-record", '"image" and "text" must be strings')
    if not image and not (text or "").strip():
        raise MediaError("bad-record", "it has neither image nor text; add one of them")
    if not isinstance(metadata, dict | None):
        raise MediaError("bad-record", '"metadata" must be an object')
    uri = _image_uri(image, root) if image else line.uri
    return Source(item_id, uri, root, text, {**record, **(metadata or {})}, bool(image), urls, line)


def _image_uri(image: str, root: str) -> str:
    if "\0" in image:
        raise MediaError("bad-record", '"image" contains a NUL character; remove it')
    if image.startswith("data:"):
        raise MediaError("bad-record", '"image" is a data URI; write it to a file, or hand it to Table.upsert')
    if is_url(image) or image.startswith("file:///") or is_object(image):
        return image
    return join_uri(root, image)
