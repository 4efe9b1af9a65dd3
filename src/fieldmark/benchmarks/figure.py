"""A line of marks for each benchmark, one for each row, on a logarithmic axis: drawn as text, the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Ratio, verdict, and whether the peer is quoted.
Mark = tuple[float, str, bool]

_COLOURS = {"PASS": "#1b7f4d", "FAIL": "#c62828", "": "#8a9099"}
_LEFT, _PLOT, _RIGHT, _TOP, _LINE = 210, 560, 20, 14, 24
_FONT = 'font-family="sans-serif" font-size="12"'


def draw(lines: Sequence[tuple[str, Sequence[Mark]]]) -> str:
    """The figure as SVG.

    Args:
        lines: Name and marks of each benchmark; ratios above 0.

    Example:
        >>> figure = draw([("transport", [(20.0, "PASS", False), (0.5, "", True)])])
        >>> figure.count("<line"), "transport" in figure, figure.startswith("<svg")
        (6, True, True)
    """
    ratios = [ratio for _, marks in lines for ratio, _, _ in marks] or [1.0]
    low = math.floor(min(0.0, *map(math.log10, ratios), -0.01))
    high = math.ceil(max(0.0, *map(math.log10, ratios), 0.01))
    height = _TOP + _LINE * len(lines) + 40

    def at(ratio: float) -> float:
        return _LEFT + _PLOT * (math.log10(ratio) - low) / (high - low)

    bottom = _TOP + _LINE * len(lines)
    width = _LEFT + _PLOT + _RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for power in range(low, high + 1):
        x, weight = at(10.0**power), 'stroke="#404040" stroke-width="1.5"' if power == 0 else 'stroke="#dddddd"'
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}" {weight}/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" {_FONT}>{10.0**power:g}</text>')
    middle = _LEFT + _PLOT / 2
    parts.append(f'<text x="{middle:.1f}" y="{bottom + 34}" text-anchor="middle" {_FONT}>ours over the peer\'s</text>')
    for number, (name, marks) in enumerate(lines):
        y = _TOP + _LINE * number + _LINE / 2
        parts.append(f'<text x="{_LEFT - 12}" y="{y + 4:.1f}" text-anchor="end" {_FONT}>{_escaped(name)}</text>')
        # Those with a verdict come last, on top.
        for ratio, judged, quoted in sorted(marks, key=lambda mark: ("", "PASS", "FAIL").index(mark[1])):
            half, x = 3.5 if quoted else 8, at(ratio)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - half:.1f}" y2="{y + half:.1f}" '
                f'stroke="{_COLOURS[judged]}" stroke-width="2"/>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
