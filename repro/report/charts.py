"""Charts as SVG text for the report: drawn by matplotlib, coloured by the page, so that they follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

MOST_POINTS = 240
"""Points of a line in a chart; longer ones are thinned evenly, first and last kept."""

WIDE = 200
"""Positive values that are further apart than this factor are drawn on a logarithmic axis."""

SENTINELS = {
    "#010203": "var(--ink)",
    "#010204": "var(--line)",
    "#010205": "var(--muted)",
    "#020301": "var(--series-1)",
    "#020302": "var(--series-2)",
    "#020303": "var(--series-3)",
    "#020304": "var(--series-4)",
    "#020305": "var(--series-5)",
}
"""Colours that matplotlib is given -> variables of the page's style sheet."""

INK, GRID, MUTED, *SERIES = SENTINELS


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: its name in the legend.
        x, y: its points.
        is_authors: drawn wide and grey, below ours.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    is_authors: bool = False


def thin(line: Line, most: int = MOST_POINTS) -> Line:
    """At most `most` points, evenly chosen by position."""
    count = len(line.x)
    if count <= most:
        return line
    chosen = sorted({round(n * (count - 1) / (most - 1)) for n in range(most)})
    return Line(line.label, tuple(line.x[n] for n in chosen), tuple(line.y[n] for n in chosen), line.is_authors)


def draw_lines(
    lines: Sequence[Line], x: str, y: str, id: str, breaks: Sequence[float] = (), is_loss: bool = False
) -> str:
    """An SVG element with all curves.

    Args:
        lines: the curves; the authors' are drawn below ours.
        x, y: names of the axes, with their units.
        id: prefix of every id in the SVG; unique within the page.
        breaks: places of vertical lines (beginnings of tasks).
        is_loss: values that are far apart get a logarithmic axis.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": id, "font.family": "sans-serif", "font.size": 11}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        FigureCanvasSVG(figure)  # why: no screen, no global plotting state
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for place in breaks:
            axes.axvline(place, color=GRID, linewidth=0.8, linestyle=":")
        colours = iter(SERIES * 4)
        for line in map(thin, sorted(lines, key=lambda one: not one.is_authors)):
            style = (
                {"color": MUTED, "linewidth": 3.2} if line.is_authors else {"color": next(colours), "linewidth": 1.4}
            )
            marker = "o" if len(line.x) < 30 and not line.is_authors else None
            axes.plot(line.x, line.y, label=line.label, marker=marker, markersize=3, **style)
        values = [value for line in lines for value in line.y]
        if is_loss and values and 0 < min(values) and max(values) > WIDE * min(values):
            axes.set_yscale("log")
        axes.set_xlabel(x, color=INK)
        axes.set_ylabel(y, color=INK)
        axes.grid(color=GRID, linewidth=0.6)
        axes.tick_params(colors=INK)
        for spine in axes.spines.values():
            spine.set_color(GRID)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        legend = axes.legend(frameon=False, labelcolor=INK, fontsize="small")
        legend.set_zorder(5)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), id)


def _inline(text: str, id: str) -> str:
    """The <svg> element alone: colours by variable, ids with a prefix, no fixed size, no fonts by name."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    for colour, variable in SENTINELS.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{id}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)([^")]+)', rf"\1{id}-\2", svg)
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1; font-family: inherit", svg)
    return re.sub(r"<svg", '<svg aria-hidden="true" focusable="false"', svg, count=1)
