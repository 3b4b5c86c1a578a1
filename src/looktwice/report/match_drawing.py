"""Draw which tokens of a query found what in a candidate: both images side by side, with numbered boxes.

The drawing is one SVG that holds its images. This module knows thumbnails and boxes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Protocol, TypeAlias
from xml.sax.saxutils import escape

SIDE, GAP, HEAD = 180, 24, 22
COLOURS = ("#d1495b", "#00798c", "#edae49", "#66a182", "#8d5fd3", "#2e4057")
Edges: TypeAlias = tuple[float, float, float, float]


class Match(Protocol):
    """One match: boxes in shares of both images' sides, a weight and a cosine."""

    @property
    def query(self) -> Edges: ...

    @property
    def image(self) -> Edges: ...

    @property
    def weight(self) -> float: ...

    @property
    def cosine(self) -> float: ...


def match_svg(query: str, image: str, matches: Sequence[Match], caption: str) -> str:
    """Return an SVG of two images, given as data URLs, with one colour per match; heavier tokens are more opaque."""
    width, height = 2 * SIDE + GAP, SIDE + HEAD
    heaviest = max((match.weight for match in matches), default=0.0) or 1.0
    body = [f'<text x="0" y="15">{escape(caption)}</text>']
    for left, address in ((0, query), (SIDE + GAP, image)):
        body.append(
            f'<image href="{escape(address, {chr(34): "&quot;"})}" x="{left}" y="{HEAD}" width="{SIDE}" '
            f'height="{SIDE}" preserveAspectRatio="none"/>'
        )
    for number, match in enumerate(matches):
        colour = COLOURS[number % len(COLOURS)]
        strength = 0.2 + 0.5 * match.weight / heaviest
        body += [_box(match.query, 0, colour, strength), _box(match.image, SIDE + GAP, colour, strength)]
        (x1, y1), (x2, y2) = _centre(match.query, 0), _centre(match.image, SIDE + GAP)
        body.append(f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{colour}" stroke-opacity="{strength:.2f}"/>')
    style = "text{font:13px system-ui,sans-serif;fill:#555}rect,path{stroke-width:2;fill-opacity:.25}path{fill:none}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"><style>{style}</style>'
    return head + "".join(body) + "</svg>\n"


def data_url(image: bytes) -> str:
    """Return a thumbnail (JPEG, PNG or WebP) as a data URL."""
    kind = "png" if image.startswith(b"\x89PNG") else "webp" if image.startswith(b"RIFF") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def _box(box: Edges, left: int, colour: str, strength: float) -> str:
    x1, y1, x2, y2 = (SIDE * edge for edge in box)
    return (
        f'<rect x="{left + x1:g}" y="{HEAD + y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}" fill="{colour}" '
        f'stroke="{colour}" stroke-opacity="{strength:.2f}"/>'
    )


def _centre(box: Edges, left: int) -> tuple[float, float]:
    return left + SIDE * (box[0] + box[2]) / 2, HEAD + SIDE * (box[1] + box[3]) / 2
