"""Convert layouts to and from JSON, and count their tokens.

Knows no codec and no model. An impossible layout raises Damaged, because it came from a table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from looktwice.errors import Damaged
from looktwice.types import Block, Layout, Newline, TextIds

MOST_TOKENS = 1 << 22
"""Largest number of tokens of an image; a layout that claims more is damaged."""


def blocks(layout: Layout) -> Iterator[Block]:
    """Yield the rectangles of the layout, in order."""
    return (part for part in layout if isinstance(part, Block))


def token_count(layout: Layout) -> int:
    """Return T: the visual tokens of all blocks. Newlines and text markers belong to the model and do not count."""
    return sum(block.h * block.w for block in blocks(layout))


def to_json(layout: Layout) -> str:
    """Return the layout as compact JSON; `from_json` reads it back, and equal layouts give equal text.

    >>> to_json((Block("global", 2, 3), Newline(), TextIds((5, 6))))
    '[{"global":[2,3]},"newline",{"ids":[5,6]}]'
    """
    return json.dumps([_part_to_json(part) for part in layout], separators=(",", ":"))


@lru_cache(maxsize=4096)  # a collection has few layouts, a shortlist has many images
def from_json(text: str) -> Layout:
    """Read a layout. Raises Damaged if the text is not one.

    >>> from_json('[{"tile":[2,2],"stride":2,"grid":[3,4],"newlines":true}]')
    (Block(kind='tile', h=2, w=2, stride=2, grid=(3, 4), newlines=True),)
    """
    try:
        parts = json.loads(text)
        layout = tuple(_part_from_json(part) for part in parts)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Damaged(f"A stored token layout cannot be read ({error}); index that item again.") from error
    if not 1 <= token_count(layout) <= MOST_TOKENS:
        raise Damaged(f"A stored token layout claims {token_count(layout)} tokens; index that item again.")
    return layout


def _part_to_json(part: Block | Newline | TextIds) -> Any:
    if isinstance(part, Newline):
        return "newline"
    if isinstance(part, TextIds):
        return {"ids": list(part.ids)}
    record: dict[str, Any] = {part.kind: [part.h, part.w]}
    if part.stride != 1:
        record["stride"] = part.stride
    if part.grid is not None:
        record["grid"] = list(part.grid)
    if part.newlines:
        record["newlines"] = True
    return record


def _part_from_json(part: Any) -> Block | Newline | TextIds:
    if part == "newline":
        return Newline()
    if not isinstance(part, dict):
        raise ValueError(f"unknown part {part!r}")
    if set(part) == {"ids"}:
        return TextIds(tuple(_whole(value, least=0) for value in part["ids"]))
    kind = "global" if "global" in part else "tile"
    if not {kind} <= set(part) <= {kind, "stride", "grid", "newlines"} or not isinstance(
        part.get("newlines", True), bool
    ):
        raise ValueError(f"unknown part {part!r}")
    h, w = map(_whole, part[kind])
    grid = part.get("grid")
    return Block(
        kind=kind,  # type: ignore[arg-type]  # one of the two literals, just above
        h=h,
        w=w,
        stride=_whole(part.get("stride", 1)),
        grid=None if grid is None else _pair(grid),
        newlines=part.get("newlines", False),
    )


def _pair(value: Any) -> tuple[int, int]:
    rows, cols = map(_whole, value)
    return rows, cols


def _whole(value: Any, least: int = 1) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{value!r} is not a whole number ≥ {least}")
    return value
