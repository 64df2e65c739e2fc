"""Lines over time as one SVG that needs nothing else: panels below each other, spans of time shaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 940, 118  # of the panels
LEFT, TOP, GAP = 70, 76, 58  # room for numbers, the title, a panel's own heading
COLOURS = ("#1f5fa8", "#c0562f", "#2e7d4f", "#7a4ea3", "#8a6d1b", "#5b6770")
MOST = 900  # points of a line; of more than these, each pair is the least and the most of its neighbours
MINUTE = 60.0

Points = Sequence[tuple[float, float]]  # seconds since the beginning, value


@dataclass(frozen=True)
class Panel:
    """title: with the unit. lines: by name. verdict: a line of words below the title."""

    title: str
    lines: Mapping[str, Points]
    verdict: str = ""


def svg(
    title: str, below: Sequence[str], panels: Sequence[Panel], shaded: Sequence[tuple[float, float]]
) -> str:
    """below: lines of words under the title. shaded: from, to, in seconds."""
    ends = (points[-1][0] for panel in panels for points in panel.lines.values() if points)
    end = max(ends, default=1.0) or 1.0
    top = TOP + 16 * len(below)
    height = top + len(panels) * (HEIGHT + GAP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEFT + 30}" height="{height}" '
            'font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<text x="{LEFT}" y="30" font-size="17" font-weight="bold">{escape(title)}</text>',
            *(
                f'<text x="{LEFT}" y="{50 + 16 * number}" fill="#444">{escape(line)}</text>'
                for number, line in enumerate(below)
            ),
            *(
                line
                for number, panel in enumerate(panels)
                for line in _panel(panel, top + number * (HEIGHT + GAP), end, shaded)
            ),
            "</svg>\n",
        ]
    )


def _panel(panel: Panel, y: float, end: float, shaded: Sequence[tuple[float, float]]) -> Iterator[str]:
    most = _round_up(max((value for points in panel.lines.values() for _, value in points), default=1.0))
    yield f'<g transform="translate({LEFT},{y})">'
    yield f'<text y="-18" font-weight="bold">{escape(panel.title)}</text>'
    yield f'<text y="-4" fill="#444">{escape(panel.verdict)}</text>'
    for since, until in shaded:
        start, wide = since / end * WIDTH, max(1.0, (until - since) / end * WIDTH)
        yield f'<rect x="{start:.1f}" width="{wide:.1f}" height="{HEIGHT}" fill="#f3e3c3"/>'
    for part in (0.0, 0.5, 1.0):
        line = HEIGHT * (1 - part)
        yield f'<path d="M0 {line}H{WIDTH}" stroke="#ccc"/>'
        yield f'<text x="-6" y="{line + 4}" text-anchor="end" fill="#444">{most * part:g}</text>'
    for part in range(7):
        x, anchor = WIDTH * part / 6, {0: "start", 6: "end"}.get(part, "middle")
        minutes = f"{end / MINUTE * part / 6:.3g} min"
        yield f'<text x="{x}" y="{HEIGHT + 14}" text-anchor="{anchor}" fill="#666">{minutes}</text>'
    for number, (name, points) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(
            f"{at / end * WIDTH:.1f},{HEIGHT - value / most * HEIGHT:.1f}" for at, value in _thinned(points)
        )
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
        ends = WIDTH - 110 * (len(panel.lines) - 1 - number)
        yield f'<text x="{ends}" y="-18" text-anchor="end" fill="{colour}">{escape(name)}</text>'
    yield "</g>"


def _thinned(points: Points) -> Points:
    if len(points) <= MOST:
        return points
    size = -(-2 * len(points) // MOST)
    found: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        some = points[start : start + size]
        found += sorted({min(some, key=lambda each: each[1]), max(some, key=lambda each: each[1])})
    return found


def _round_up(value: float) -> float:
    """The next of 1, 2, 3, 4, 5, 6, 8, 10 times a power of ten."""
    scale = 1.0
    while scale * 10 <= value:
        scale *= 10
    while scale > value > 0:
        scale /= 10
    return next((scale * each for each in (1, 2, 3, 4, 5, 6, 8) if scale * each >= value), scale * 10)
