"""Names beside the dots of a plot, none over another and none cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

_FONTSIZE = 8
_GAP = 3.0
# Distances between a dot and its name that are tried, in pixels, nearest first.
_DISTANCES = (0, 8, 16, 28, 42, 60, 85, 120)
# Right of the dot first, then left of it, then above and below.
_DIRECTIONS = [
    n * pi / 8 for n in (0, 8, 4, 12, 2, 14, 6, 10, 1, 15, 7, 9, 3, 13, 5, 11)
]
# Boxes that cover a line between dot and name, and boxes whose lines are looked at.
_STEPS, _TRIED = 24, 300


@dataclass(frozen=True)
class Dot:
    """What a name stands beside.

    Attributes:
        x: In numbers of the axis.
        y: The same.
        area: As ``scatter`` takes it, in square points.
        name: To write.
        colour: Of name and line.
    """

    x: float
    y: float
    area: float
    name: str
    colour: Any


def label_dots(axes: Any, dots: Sequence[Dot]) -> list[Dot]:
    """Write the name of each dot where there is room, with a line if it is far away.

    The layout of the figure is settled first and kept.

    Args:
        axes: With the dots, inside a figure.
        dots: Those that come first choose first.

    Returns:
        Those that there is no room for.
    """
    figure = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    figure.set_layout_engine('none')
    pixels = figure.dpi / 72
    circles = np.array([_circle(axes, dot, pixels) for dot in dots])
    inside = axes.get_window_extent(renderer).extents
    names, lines = np.empty((0, 4)), np.empty((0, 4))
    unnamed = []
    for dot, circle in zip(dots, circles, strict=True):
        how: dict[str, Any] = dict(
            textcoords='offset points', fontsize=_FONTSIZE, ha='center', va='center'
        )
        text = axes.annotate(dot.name, (dot.x, dot.y), (0, 0), **how)
        extent = text.get_window_extent(renderer)
        text.remove()
        half = np.array([extent.width / 2 + 1, extent.height / 2 + 1])
        boxes = _free(circle, half, inside, np.vstack([circles, names]))
        if not len(boxes):
            unnamed.append(dot)
            continue
        box, line = _clearest(circle, boxes, names, lines)
        names, lines = np.vstack([names, box]), np.vstack([lines, line])
        if len(line):
            how['arrowprops'] = dict(arrowstyle='-', color=dot.colour, lw=0.8)
        offset = (box[:2] - circle[:2]) / pixels
        axes.annotate(dot.name, (dot.x, dot.y), offset, **how)
    return unnamed


# Boxes are rows of their middle and half of their sides: x, y, width, height.


def _circle(axes: Any, dot: Dot, pixels: float) -> tuple[float, ...]:
    x, y = axes.transData.transform((dot.x, dot.y))
    radius = dot.area**0.5 / 2 * pixels
    return x, y, radius, radius


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Tell for each box whether it overlaps any of the others."""
    apart = abs(boxes[:, None, :2] - others[None, :, :2])
    touching = apart < boxes[:, None, 2:] + others[None, :, 2:]
    return touching.all(2).any(1)


def _free(
    circle: np.ndarray, half: np.ndarray, inside: np.ndarray, taken: np.ndarray
) -> np.ndarray:
    """Boxes with room for a name, around its dot, then all over the axes."""
    directions = np.array([(cos(angle), sin(angle)) for angle in _DIRECTIONS])
    rings = [directions * (circle[2] + _GAP + far + half) for far in _DISTANCES]
    columns = np.arange(inside[0], inside[2], half[0])
    rows = np.arange(inside[1], inside[3], half[1])
    grid = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    nearest = np.argsort(np.hypot(*(grid - circle[:2]).T), kind='stable')
    middles = np.vstack([circle[:2] + np.vstack(rings), grid[nearest]])
    within = (middles - half > inside[:2]) & (middles + half < inside[2:])
    middles = middles[within.all(1)]
    boxes = np.hstack([middles, np.broadcast_to(half, middles.shape)])
    return boxes[~_overlap(boxes, taken)]


def _clearest(
    circle: np.ndarray, boxes: np.ndarray, names: np.ndarray, lines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take the first box without a line over another name, and what its line covers.

    If there is none, the first box.
    """
    clear = boxes[~_overlap(boxes, lines)]
    for box in clear[:_TRIED]:
        line = _line(circle, box)
        if not _overlap(line, names).any():
            return box, line
    return boxes[0], _line(circle, boxes[0])


def _line(circle: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Cover the line from a dot to the box of its name; nothing if they are close."""
    apart = abs(box[:2] - circle[:2]) - box[2:] - circle[2:]
    if apart.max() < 2 * _GAP:
        return np.empty((0, 4))
    shares = np.linspace(0, 1, _STEPS)[:, None]
    middles = circle[:2] + shares * (box[:2] - circle[:2])
    points = np.hstack([middles, np.ones_like(middles)])
    return points[~_overlap(points, np.stack([circle, box]))]
