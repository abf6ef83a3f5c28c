"""Curves of time against size as a small picture: SVG by hand, the same on every machine.

Lines take the colour of the text around them or one of a few that can be read on light and dark.
"""

import math
from collections.abc import Mapping, Sequence

COLOURS = ("#3b7dd8", "#d9822b", "#2e9d5c", "#b5489b", "#8a8f98", "#c2453d")
WIDTH, HEIGHT = 360, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 40
Curve = Sequence[tuple[float, float]]


def relative(curve: Curve) -> list[tuple[float, float]]:
    """Sizes and times as multiples of the first."""
    (size, time), *_ = curve
    return [(x / size, y / time) for x, y in curve]


def picture(curves: Mapping[str, Curve], caption: str) -> list[str]:
    """A figure: time over size, both as multiples of the smallest, on doubling scales."""
    scaled = {name: relative(curve) for name, curve in curves.items()}
    points = [point for curve in scaled.values() for point in curve]
    right = math.ceil(math.log2(max(x for x, _ in points)))
    top = max(right, math.ceil(math.log2(max(y for _, y in points))))
    bottom = min(0, math.floor(math.log2(min(y for _, y in points))))

    def place(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - RIGHT) * math.log2(x) / right
        height = HEIGHT - TOP - BOTTOM
        down = TOP + height * (top - math.log2(y)) / (top - bottom)
        return f"{across:.1f},{down:.1f}"

    lines = grid(place, right, top, bottom)
    for (name, curve), colour in zip(scaled.items(), COLOURS, strict=False):
        path = " ".join(place(x, y) for x, y in curve)
        lines.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2">'
            f"<title>{name}</title></polyline>"
        )
    legend = ", ".join(
        f'<span style="color:{colour}">{name}</span>'
        for name, colour in zip(scaled, COLOURS, strict=False)
    )
    return [
        "<figure>",
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" style="max-width:{WIDTH * 1.5:.0f}px" '
        f'role="img" aria-label="{caption}" font-size="10">',
        *lines,
        "</svg>",
        f"<figcaption>{caption} {legend}.</figcaption>",
        "</figure>",
    ]


def grid(place, right: int, top: int, bottom: int) -> list[str]:
    """Doubling lines with their numbers, the line of equal growth, names of the axes."""
    lines = []
    for power in range(right + 1):
        x = place(2.0**power, 2.0**bottom).split(",")[0]
        lines.append(
            f'<text x="{x}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle" fill="currentColor">'
            f"{2**power}</text>"
        )
        lines.append(rule(place(2.0**power, 2.0**bottom), place(2.0**power, 2.0**top)))
    for power in range(bottom, top + 1):
        y = place(1.0, 2.0**power).split(",")[1]
        label = f"{2.0**power:g}"
        lines.append(
            f'<text x="{LEFT - 5}" y="{float(y) + 3:.1f}" text-anchor="end" fill="currentColor">'
            f"{label}</text>"
        )
        lines.append(rule(place(1.0, 2.0**power), place(2.0**right, 2.0**power)))
    dashes = 'stroke-dasharray="4 3" stroke-opacity="0.8"'
    lines.append(rule(place(1.0, 1.0), place(2.0**right, 2.0**right), dashes))
    middle = (LEFT + WIDTH - RIGHT) / 2
    lines.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle" fill="currentColor">'
        "size, multiple of the smallest</text>"
    )
    lines.append(
        f'<text transform="translate(11 {(HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" '
        'text-anchor="middle" fill="currentColor">time, multiple of the first</text>'
    )
    return lines


def rule(start: str, end: str, style: str = 'stroke-opacity="0.15"') -> str:
    """A straight line in the colour of the text."""
    (x1, y1), (x2, y2) = start.split(","), end.split(",")
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="currentColor" {style}/>'
