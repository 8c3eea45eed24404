"""The report of a search: its front, its order, its picture."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from mmdet_backbones.search.report import Point, front, search_figure


def beats(one, other):
    return (
        one.milliseconds <= other.milliseconds
        and one.ap >= other.ap
        and (one.milliseconds, one.ap) != (other.milliseconds, other.ap)
    )


@pytest.mark.parametrize('seed', range(20))
def test_the_front_is_what_nothing_beats(seed):
    draw = random.Random(seed)
    points = [
        Point(draw.randint(1, 6), draw.randint(0, 5) / 5, str(number))
        for number in range(draw.randint(1, 15))
    ]
    found = front(points)
    unbeaten = {p[:2] for p in points if not any(beats(q, p) for q in points)}
    assert {p[:2] for p in found} == unbeaten
    assert found == sorted(found)


def test_every_candidate_has_its_name_in_the_picture():
    points = [Point(10 + n, n / 40, f'timm/net{n}@64x64') for n in range(30)]
    figure = search_figure(points, 'latency on cpu')
    (axes,) = figure.axes
    assert {p.name for p in points} <= {text.get_text() for text in axes.texts}
    (line,) = axes.get_lines()
    assert len(line.get_xdata()) == len(front(points)) == 30
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    assert Image.open(buffer).size[0] > 500
