"""Outlines of objects: polygons, and the run lengths of COCO's masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .values import number, whole

Turn = Callable[[float, float], tuple[float, float]]


def outline_in(outline: Any, turn: Turn, size: tuple[int, int]) -> Any:
    """Return an outline as it lies in the picture.

    Args:
        outline: As the annotation gives it.
        turn: Makes a point of the picture of one of the annotation.
        size: Width and height of the picture.

    Returns:
        Polygons or run lengths that pycocotools can draw; None if there is nothing.

    Raises:
        ValueError: If it cannot be read.
    """
    if not outline:
        return None
    if isinstance(outline, dict):
        if turn(1.0, 0.0) != (1.0, 0.0):
            raise ValueError('run lengths, which cannot be turned with the picture')
        return _checked_runs(outline, size)
    if not isinstance(outline, list):
        raise ValueError('neither polygons nor run lengths')
    flat = not isinstance(outline[0], list)
    polygons = [_points(part) for part in ([outline] if flat else outline)]
    width, height = size
    found = [
        [
            round(value, 3)
            for x, y in (turn(*point) for point in points)
            for value in (min(max(x, 0), width), min(max(y, 0), height))
        ]
        for points in polygons
        # A line encloses nothing.
        if len(points) >= 3
    ]
    return found or None


def _points(part: Any) -> list[tuple[float, float]]:
    if not isinstance(part, list):
        raise ValueError('a polygon that is no list')
    values = [number(value) for value in part]
    if len(values) % 2:
        raise ValueError(f'a polygon of {len(values)} numbers, which are no pairs')
    return list(zip(values[::2], values[1::2], strict=True))


def _checked_runs(outline: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Return run lengths that fill the picture; pycocotools does not look."""
    given = outline.get('size')
    if not isinstance(given, list) or [whole(v) for v in given] != [*size[::-1]]:
        raise ValueError('run lengths of a picture of another size')
    counts = outline.get('counts')
    runs = run_lengths(counts)
    if min(runs, default=-1) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError('run lengths that do not fill the picture')
    return dict(size=[*size[::-1]], counts=counts if isinstance(counts, str) else runs)


def run_lengths(counts: Any) -> list[int]:
    """Return how many pixels are outside, inside, outside and so on.

    Args:
        counts: A list of them, or COCO's text, six bits a letter.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(counts, list):
        return [whole(count) for count in counts]
    if not isinstance(counts, str):
        raise ValueError('run lengths that are neither a list nor text')
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError('run lengths that cannot be decoded')
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        # From the third on, they are told by the difference to the last but one.
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError('run lengths that are cut off')
    return runs


def area(outline: Any) -> float:
    """Return how many pixels a clean outline encloses, 0 without one."""
    if isinstance(outline, dict):
        return float(sum(run_lengths(outline['counts'])[1::2]))
    total = 0.0
    for polygon in outline or ():
        xs, ys = polygon[::2], polygon[1::2]
        following = zip(xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)
        pairs = zip(xs, ys, following, strict=True)
        total += abs(sum(x * v - u * y for x, y, (u, v) in pairs)) / 2
    return total
