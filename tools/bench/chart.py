"""A dot plot as SVG: one row per model, one dot per engine, on a logarithmic axis of ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 860, 170, 30, 34, 78, 46
"""In pixels; TOP holds title and legend, BOTTOM the axis."""

COLOURS = ("#d55e00", "#777777", "#0072b2", "#56b4e9", "#cc79a7", "#009e73", "#e69f00", "#000000")
"""Told apart by colour-blind readers too (the palette of Okabe and Ito)."""

TICKS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)

_LEGEND_COLUMNS = 4


def dot_plot(title: str, rows: Mapping[str, Mapping[str, float]], series: Sequence[str]) -> str:
    """Return the picture.

    Args:
        title: above it.
        rows: name of the row -> name of the series -> ratio; a series may be missing.
        series: names in the order of the legend; the first is drawn last, on top, and larger.
    """
    values = [value for row in rows.values() for value in row.values()] or [1.0]
    low = min(0.93, *values)
    high = next((tick for tick in TICKS if tick >= max(values)), max(values))
    legend = math.ceil(len(series) / _LEGEND_COLUMNS)
    top = TOP + 18 * (legend - 1)
    bottom = top + ROW * len(rows)
    height = bottom + BOTTOM

    def x(value: float) -> float:
        share = math.log(value / low) / math.log(max(high, low * 1.01) / low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="16" font-weight="bold">{escape(title)}</text>',
    ]
    for index, name in enumerate(series):
        column, line = index % _LEGEND_COLUMNS, index // _LEGEND_COLUMNS
        at = (LEFT + 5 + column * 168, 46 + line * 18)
        parts += [_dot(*at, index), f'<text x="{at[0] + 12}" y="{at[1] + 4}">{escape(name)}</text>']
    for tick in TICKS:
        if low <= tick <= high:
            line_style = ("#555", 1.5) if tick == 1 else ("#ddd", 1)
            parts += [
                f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top - 12}" y2="{bottom}"'
                f' stroke="{line_style[0]}" stroke-width="{line_style[1]}"/>',
                f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>',
            ]
    caption = "time over plain onnxruntime inference (1), logarithmic"
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom + 38}" text-anchor="middle">'
        f"{caption}</text>"
    )
    for number, (name, row) in enumerate(rows.items()):
        y = top + ROW * (number + 0.5) - 6
        parts += [
            f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>',
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>',
        ]
        parts += [
            _dot(x(row[key]), y, index, f"{name}, {key}: {row[key]:.2f}")
            for index, key in reversed(list(enumerate(series)))
            if key in row
        ]
    return "\n".join([*parts, "</svg>\n"])


def _dot(x: float, y: float, index: int, hint: str = "") -> str:
    radius = 6.5 if index == 0 else 5
    circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{COLOURS[index % 8]}"'
    style = ' fill-opacity="0.9" stroke="white"'
    return f"{circle}{style}><title>{escape(hint)}</title></circle>" if hint else f"{circle}/>"
