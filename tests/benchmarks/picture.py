"""Curves as an SVG picture: one panel each, with axes from 0, points, and lines between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 420, 280  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 48, 44
COLOURS = ("#1f6feb", "#d1571e", "#2a7f3f")
GRID, TEXT = "#d0d7de", "#24292f"


@dataclass
class Curve:
    """What was measured over something that grows; `points` are (x, a figure for each of `names`)."""

    title: str
    over: str
    unit: str
    names: Sequence[str]
    points: list[tuple[float, Sequence[float]]] = field(default_factory=list)


def picture(curves: Sequence[Curve], note: str) -> str:
    """All of them, two in a row, with a note below."""
    rows = math.ceil(len(curves) / 2)
    width, height = 2 * WIDTH, rows * HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, curve in enumerate(curves):
        x, y = number % 2 * WIDTH, number // 2 * HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *_panel(curve), "</g>"]
    parts += [_text(LEFT, height - 9, note, size=10), "</svg>"]
    return "\n".join(parts) + "\n"


def _panel(curve: Curve) -> Iterator[str]:
    most_x = max(x for x, _ in curve.points) or 1.0
    top = _round_up(max(max(figures) for _, figures in curve.points) or 1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return round(LEFT + across * x / most_x, 1), round(HEIGHT - BOTTOM - up * y / top, 1)

    yield _text(LEFT, 18, curve.title, size=13, weight="bold")
    for step in range(5):
        x, y = at(most_x, top * step / 4)
        yield f'<line x1="{LEFT}" x2="{x}" y1="{y}" y2="{y}" stroke="{GRID}"/>'
        yield _text(LEFT - 6, y + 4, _short(top * step / 4), anchor="end")
        x, y = at(most_x * step / 4, 0)
        yield _text(x, y + 15, _short(most_x * step / 4), anchor="middle")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, curve.over, anchor="middle")
    for number, name in enumerate(curve.names):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(x, figures[number]) for x, figures in curve.points]
        line = " ".join(f"{x},{y}" for x, y in places)
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places)
        yield _text(LEFT + 150 * number, 36, f"{name}, {curve.unit}", colour=colour)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 11,
    anchor: str = "start",
    colour: str = TEXT,
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _round_up(value: float) -> float:
    """The next number of 1, 2, 2.5, 4, 5 or 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 4, 5, 8, 10) if step * power >= value)


def _short(value: float) -> str:
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{sign}"
    return f"{value:g}"
