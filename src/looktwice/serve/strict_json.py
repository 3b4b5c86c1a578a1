"""Parse request bodies more strictly than Python: no NaN, no half characters, no repeated keys, no deep nesting."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

from looktwice.serve.problems import Problem

MOST_DEPTH = 32
MOST_BRACKETS = 200_000

_TEXT = re.compile(rb'"[^"]*"')
_OTHER = bytes(set(range(256)) - set(b"[]{}"))


def parse(data: bytes) -> Any:
    """Return the value of a JSON document. Raises Problem (400)."""
    _check_depth(data)
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise _problem("the body is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        place = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise _problem(f"the body is not JSON{place}") from None
    _check_texts(value)
    return value


def _problem(why: str) -> Problem:
    return Problem(400, "bad_json", f"The request cannot be read: {why}.")


def _refuse(name: str) -> Any:
    raise _problem(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _problem("a key occurs twice in one object")
    return made


def _check_depth(data: bytes) -> None:
    """Refuse deep nesting before Python's parser recurses into it."""
    if data.count(b"[") + data.count(b"{") <= MOST_DEPTH:
        return
    outside = _TEXT.sub(b"", data.replace(b"\\\\", b"").replace(b'\\"', b""))
    brackets = outside.translate(None, _OTHER)
    if len(brackets) > MOST_BRACKETS:
        raise _problem("it has too many lists and objects")
    if max(accumulate(1 if byte in b"[{" else -1 for byte in brackets), default=0) > MOST_DEPTH:
        raise _problem(f"it is nested more than {MOST_DEPTH} deep")


def _check_texts(value: Any) -> None:
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            _check_text(one)
        elif isinstance(one, float) and not math.isfinite(one):  # 1e999
            raise _problem("a number is too large")
        elif isinstance(one, list):
            stack += one
        elif isinstance(one, dict):
            stack += one.keys()
            stack += one.values()


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _problem("a text has half characters") from None
