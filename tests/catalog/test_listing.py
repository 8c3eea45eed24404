"""Backbones are listed by pattern, stride and size, by the function and the tool."""

import json

import pytest

from mmdet_backbones.catalog.figures import Figures, SourceFigures
from mmdet_backbones.catalog.listing import list_backbones, matches, parse_count
from mmdet_backbones.levels import Level

LIST = 'tools/list_backbones.py'


def names(listing):
    return [row.entry.name for row in listing.rows]


def test_filters_choose_by_stride_and_size():
    both = list_backbones(
        sources=['ours', 'mmdet'], strides=(8, 16, 32), max_parameters=5_000_000
    )
    assert 'mmdet/MobileNetV2' in names(both)
    assert 'mmdet/ResNet-50' not in names(both)
    for row in both.rows:
        assert row.figures.parameters <= 5_000_000
        assert {8, 16, 32} <= {level.stride for level in row.figures.levels}
    everything = list_backbones(sources=['ours', 'mmdet'])
    assert len(everything.rows) > len(both.rows)
    stride_1 = list_backbones(sources=['mmdet'], strides=[1])
    assert names(stride_1) == ['mmdet/Darknet-53']


@pytest.mark.parametrize(
    ('pattern', 'fits'),
    [
        ('', True),
        ('NET50', True),
        ('timm/', True),
        ('timm/resnet*d', True),
        ('resnet*', True),
        ('resnet5?d', True),
        ('resnet*s', False),
        ('resnet51', False),
        ('*/res[kl]*', False),
    ],
)
def test_patterns(pattern, fits):
    assert matches('timm/resnet50d', pattern) is fits


@pytest.mark.parametrize(
    ('text', 'number'),
    [('30M', 30_000_000), ('500k', 500_000), ('1.2B', 1_200_000_000), ('77', 77)],
)
def test_numbers_of_parameters(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize('text', ['', 'M', '30X', 'many', 'inf'])
def test_bad_numbers_of_parameters(text):
    with pytest.raises(ValueError, match='as in 30M'):
        parse_count(text)


def test_what_nobody_measured_is_listed_and_counted_when_filtered():
    known = {'res2net50_26w_4s': Figures(1, (Level(0, 8, 4),))}
    figures = {'ours': SourceFigures(None, known)}
    listing = list_backbones('res2net50_26w*', ['ours'], figures=figures)
    assert len(listing.rows) == 3
    assert [row.figures is None for row in listing.rows] == [False, True, True]
    listing = list_backbones('res2net50_26w*', ['ours'], [4], figures=figures)
    assert names(listing) == ['res2net50_26w_4s']
    assert len(listing.left_out) == 2
    assert listing.notes[0].startswith('2 backbones have no figures')
    assert 'tools/inspect_backbone.py res2net50_26w_6s' in listing.notes[0]


def test_figures_of_another_version_and_refusals_are_told():
    models = {
        'mmdet/ResNet-50': Figures(refused='it says no'),
        'mmdet/ResNet-18': Figures(1, (Level(0, 8, 4),)),
    }
    figures = {'mmdet': SourceFigures('0.1', models)}
    listing = list_backbones('mmdet/ResNet-[15][80]', figures=figures)
    assert names(listing) == ['mmdet/ResNet-18']
    assert listing.refused == {'mmdet/ResNet-50': 'it says no'}
    assert 'the figures are those of mmdet 0.1, installed is' in listing.notes[0]


def test_list_tool(run_tool):
    done = run_tool(LIST, 'res2net50_26w_6s', '--source', 'ours')
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    levels = ['256@4', '512@8', '1024@16', '2048@32']
    assert rows[1] == ['res2net50_26w_6s', *levels, '35.00', 'M']
    done = run_tool(LIST, '--source', 'mmdet', '--json', '--max-params', '5M')
    content = json.loads(done.stdout)
    found = {backbone['name']: backbone for backbone in content['backbones']}
    assert found['mmdet/MobileNetV2']['config'] == {'type': 'mmdet.MobileNetV2'}
    assert content['sources']['mmdet']['problem'] is None


def test_list_tool_with_a_mistake(run_tool):
    done = run_tool(LIST, '--max-params', 'few')
    assert done.returncode == 1
    assert done.stderr.startswith('error: a number of parameters is digits with K, M')
