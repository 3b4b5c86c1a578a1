"""Draw small line and scatter plots as SVG text: axes, marks, names. This module knows numbers, no files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias
from xml.sax.saxutils import escape

Points: TypeAlias = Sequence[tuple[float, float]]
Place: TypeAlias = Callable[[float, float], tuple[float, float]]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 60, 48, 36, 150
COLOURS = ("#3465a4", "#c1440e", "#4e7f1b", "#75507b", "#8f6b00", "#2e7d7a", "#555753")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}line,polyline{fill:none}"
    "@media(prefers-color-scheme:dark){svg{background:#1b1c1e}text{fill:#ddd}}"
)


def plot(series: Mapping[str, Points], *, title: str, x: str, y: str, joined: bool = True, guide: Points = ()) -> str:
    """Return an SVG with one line (or, not `joined`, one cloud of marks) per series; both axes start at 0 or below.

    `guide` is a dashed line without marks or name.
    """
    points = [point for line in (*series.values(), guide) for point in line] or [(0.0, 0.0)]
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    right = max(max(px for px, _ in points), 1e-9)
    highest, bottom = max(max(py for _, py in points), 1e-9), min(0.0, min(py for _, py in points))
    top = 1.0 if 0.9 < highest <= 1 else highest * 1.05

    def place(px: float, py: float) -> tuple[float, float]:
        return round(LEFT + px / right * width, 1), round(TOP + (top - py) / (top - bottom) * height, 1)

    body = [_text(WIDTH / 2 - RIGHT / 2, 20, title, "middle"), _text(LEFT + width / 2, HEIGHT - 8, x, "middle")]
    body.append(_text(8, TOP - 10, y))
    for i in range(5):
        body += _ticks(i / 4 * right, bottom + i / 4 * (top - bottom), place, bottom)
    path = " ".join(",".join(map(str, place(*point))) for point in guide)
    body += [f'<polyline points="{path}" stroke="#888" stroke-dasharray="5 4"/>'] if guide else []
    for number, (name, line) in enumerate(series.items()):
        body += _series(number, name, [place(*point) for point in line], joined)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><style>{STYLE}</style>'
    return head + "".join(body) + "</svg>\n"


def _ticks(px: float, py: float, place: Place, bottom: float) -> list[str]:
    (left, level), (at, floor) = place(0, py), place(px, bottom)
    rule = f'<line x1="{left}" y1="{level}" x2="{WIDTH - RIGHT}" y2="{level}" stroke="#999" stroke-opacity=".35"/>'
    return [rule, _text(left - 6, level + 4, f"{py:.3g}", "end"), _text(at, floor + 18, f"{px:.3g}", "middle")]


def _series(number: int, name: str, places: Sequence[tuple[float, float]], joined: bool) -> list[str]:
    colour, level = COLOURS[number % len(COLOURS)], TOP + 10 + 18 * number
    filled = "none" if number // len(COLOURS) % 2 else colour  # hollow marks tell repeated colours apart
    style = f'fill="{filled}" stroke="{colour}" stroke-width="1.5"'
    marks = [f'<circle cx="{px}" cy="{py}" r="3" {style}/>' for px, py in places]
    if joined:
        path = " ".join(f"{px},{py}" for px, py in places)
        marks.insert(0, f'<polyline points="{path}" stroke="{colour}" stroke-width="2"/>')
    key = f'<circle cx="{WIDTH - RIGHT + 14}" cy="{level - 4}" r="4" {style}/>'
    return [*marks, key, _text(WIDTH - RIGHT + 24, level, name)]


def _text(px: float, py: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{px:g}" y="{py:g}" text-anchor="{anchor}">{escape(text)}</text>'
