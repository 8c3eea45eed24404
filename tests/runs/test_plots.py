"""Plots of trainings: what is drawn, and that no text is cut off or over another."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.text import Text
from readable_figures import assert_readable, visible_texts

from mmdet_backbones.runs import plots
from mmdet_backbones.runs.logs import Log, read_log
from mmdet_backbones.runs.records import read_run

REAL = Path(__file__).parent / 'yolox_efficientnet-lite0_trees'
LONG = 'a_work_directory_with_a_name_' * 8


def texts(figure):
    return {text.get_text() for text in visible_texts(figure)}


def test_a_training_has_a_title_and_the_rates_of_backbone_and_head():
    log = read_log(REAL)
    figure = plots.training_figure(log, 'coco/bbox_mAP', 'YOLOX\nbest 0.1')
    assert {'YOLOX\nbest 0.1', 'head', 'backbone (its first parameters)'} <= texts(
        figure
    )
    head, backbone = (line.get_ydata() for line in figure.axes[1].get_lines())
    assert list(head) == [step['base_lr'] for step in log.steps]
    assert list(backbone) == [step['lr'] for step in log.steps]
    # The config of this run halves the rate of the backbone.
    assert backbone[0] == pytest.approx(head[0] / 2, rel=1e-3)
    assert_readable(figure)


@pytest.mark.parametrize('base', [{}, dict(base_lr=0.1)])
def test_one_rate_needs_no_names(base):
    log = Log(steps=[dict(step=n, loss=1.0, lr=0.1, **base) for n in (1, 2)])
    figure = plots.training_figure(log, None, LONG)
    assert len(figure.axes[1].get_lines()) == 1
    assert figure.axes[1].get_legend() is None
    assert_readable(figure)
    # All of the title, on several lines.
    assert figure._suptitle.get_text().replace('\n', '') == LONG


@pytest.mark.parametrize('draw', [plots.curves_figure, plots.costs_figure])
def test_long_names_of_runs_have_room(draw):
    run = replace(read_run(REAL, with_costs=False), name=LONG)
    figure = draw([run] * 3)
    assert_readable(figure)
    labels: list[Text] = figure.legends[0].get_texts()
    assert [label.get_text().replace('\n', '') for label in labels] == [LONG] * 3
