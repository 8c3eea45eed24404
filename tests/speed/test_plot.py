"""The plot of a benchmark: every net is named, and every name can be read."""

import pytest
from readable_figures import assert_readable, visible_texts

from mmdet_backbones.speed.output import speed_figure
from mmdet_backbones.speed.timing import Measured


def measured(name: str, millions: float, speed: float, memory: float = 300.0):
    milliseconds = 1000 / speed
    return Measured(
        name, int(millions * 1e6), 1.0, milliseconds, milliseconds, milliseconds,
        speed, memory,
    )  # fmt: skip


def spread(count: int) -> list[Measured]:
    """Made-up figures of nets of which every other one is like the one before."""
    return [
        measured(
            f'mmpretrain/a-backbone-of-number-{number}',
            3 * 1.15 ** (number // 2),
            4 / 1.1 ** (number // 2),
            50 + 10 * number,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(
    'results',
    [
        [measured('timm/resnet50', 25.6, 3.0)],
        spread(20),
        [measured(f'timm/the_same_{number}', 25.6, 3.0) for number in range(20)],
        # Names that are wide for the plot, and nothing measured of the memory.
        [measured(f'timm/{"long_" * 16}{n}', 5 * n, 3 / n, 0.0) for n in (1, 2, 3)],
        pytest.param(spread(80), marks=pytest.mark.slow),
    ],
    ids=['one', 'twenty', 'same', 'long', 'many'],
)
def test_every_net_is_named_and_no_name_is_over_another(results):
    figure = speed_figure(results, 'inference, 1 x 640 x 640, cpu, 1 thread')
    texts = [text.get_text() for text in visible_texts(figure)]
    for result in results:
        assert texts.count(result.name) == 1
    assert_readable(figure)
