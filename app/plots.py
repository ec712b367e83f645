"""Lines over time, for a terminal and as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import leather
import msgspec
import plotille

Points = Sequence[tuple[float, float]]
"""Hours, and the value from then on; at least one."""

COLOURS = ((96, 96, 96), (31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14), (148, 103, 189), (23, 190, 207))
"""Of the lines, in turn."""
ROWS = 10
AXIS_WIDTH = 24
"""Characters that plotille puts beside a plot, its axes and their names."""


class Chart(msgspec.Struct, frozen=True):
    title: str
    lines: tuple[tuple[str, Points], ...]
    """Each with its name."""

    @property
    def hours(self) -> float:
        return max(points[-1][0] for _, points in self.lines) or 1.0

    @property
    def highest(self) -> float:
        return max(1.0, *(value for _, points in self.lines for _, value in points))


def text(chart: Chart, *, width: int, colours: bool) -> str:
    """At most so many characters wide: braille in ANSI colours, or without colours a letter for each line."""
    figure = plotille.Figure()
    figure.width, figure.height = max(20, width - AXIS_WIDTH), ROWS
    figure.with_colors, figure.color_mode = colours, "rgb"
    figure.x_label, figure.y_label = "hours", chart.title
    figure.register_label_formatter(float, _label)
    figure.set_x_limits(min_=0.0, max_=chart.hours)
    figure.set_y_limits(min_=0.0, max_=chart.highest)
    for index, (name, points) in enumerate(chart.lines):
        hours, values = zip(*points, strict=True)
        colour = COLOURS[index % len(COLOURS)]
        if colours:
            figure.plot(hours, values, lc=colour, label=name)
        else:
            figure.scatter(hours, values, lc=colour, label=name, marker=chr(ord("a") + index))
    return str(figure.show(legend=True))


def svg(charts: Sequence[Chart]) -> str:
    """All in one document, as near to a square as their number allows."""
    grid, document = leather.Grid(), io.StringIO()
    for chart in charts:
        grid.add_one(_drawn(chart))
    grid.to_svg(document)
    return document.getvalue()


def _drawn(chart: Chart) -> Any:
    drawn = leather.Chart(chart.title)
    drawn.add_x_scale(0.0, chart.hours)
    drawn.add_y_scale(0.0, chart.highest)
    drawn.add_x_axis(name="hours")
    for index, (name, points) in enumerate(chart.lines):
        colour = "#{:02x}{:02x}{:02x}".format(*COLOURS[index % len(COLOURS)])
        drawn.add_line(list(points), name=name, stroke_color=colour)
    return drawn


def _label(val: float, chars: int, delta: float, left: bool = False) -> str:
    """A number on an axis, as plotille asks for it."""
    label = f"{val:.4g}"
    return label.ljust(chars) if left else label.rjust(chars)
