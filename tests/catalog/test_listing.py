"""Backbones are listed by pattern, stride and size, by the function and the tool."""

import io
import json

import pytest
from rich.console import Console

from mmdet_backbones.catalog.conditions import fits_licence
from mmdet_backbones.catalog.figures import Figures, SourceFigures, read_figures
from mmdet_backbones.catalog.listing import (
    SORTS,
    list_backbones,
    listing_table,
    matches,
    parse_count,
)
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
    [
        ('30M', 30_000_000),
        ('500k', 500_000),
        ('1.2B', 1_200_000_000),
        ('7700000', 7_700_000),
        ('0.5K', 500),
    ],
)
def test_numbers_of_parameters(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize('text', ['', 'M', '30X', 'many', 'inf'])
def test_bad_numbers_of_parameters(text):
    with pytest.raises(ValueError, match='as in 30M'):
        parse_count(text)


@pytest.mark.parametrize('text', ['30', '7.5', '9999'])
def test_a_number_that_lacks_its_unit_is_asked_about(text):
    with pytest.raises(ValueError, match=f'write --max-params {text}M for millions'):
        parse_count(text)
    smallest = min(
        model.parameters
        for source in read_figures().values()
        for model in source.models.values()
        if model.usable
    )
    assert float(text) < smallest


LEVELS = (Level(0, 8, 4), Level(1, 16, 8))


@pytest.fixture
def known():
    """Made-up figures of four nets of torchvision."""
    models = {
        'torchvision/resnet18': Figures(4, LEVELS, 30, licence='mit', top1=70.0),
        'torchvision/resnet34': Figures(2, LEVELS, 10, licence='unknown', top1=80.0),
        'torchvision/resnet50': Figures(
            3, LEVELS, 20, (224, 224), licence='cc-by-nc-4.0'
        ),
        'torchvision/resnet101': Figures(1, LEVELS[:1], 40, published=False),
    }
    version = read_figures()['torchvision'].version
    return {'torchvision': SourceFigures(version, models)}


@pytest.mark.parametrize(
    ('sort', 'order'),
    [
        ('params', [101, 34, 50, 18]),
        # What is counted for another size comes after what can be compared.
        ('macs', [34, 18, 101, 50]),
        ('top1', [34, 18, 50, 101]),
        ('name', [101, 18, 34, 50]),
    ],
)
def test_rows_are_sorted(known, sort, order):
    listing = list_backbones(sources=['torchvision'], sort=sort, figures=known)
    assert names(listing) == [f'torchvision/resnet{depth}' for depth in order]
    told = [note for note in listing.notes if note.startswith('2 of 4 backbones stand')]
    assert len(told) == (sort == 'top1')


def test_another_sort_is_refused():
    with pytest.raises(ValueError, match=f"one of {', '.join(SORTS)}, got 'size'"):
        list_backbones(sort='size')


@pytest.mark.parametrize(
    ('licence', 'chosen'),
    [
        ('commercial', [18]),
        ('MIT', [18]),
        ('cc-*', [50]),
        ('*', [18, 34, 50]),
        ('unknown', [34]),
    ],
)
def test_licences_choose(known, licence, chosen):
    listing = list_backbones(sources=['torchvision'], licence=licence, figures=known)
    assert names(listing) == [f'torchvision/resnet{depth}' for depth in chosen]
    found = [row['licence'] for row in listing.to_dict()['backbones']]
    assert all(fits_licence(one, licence) for one in found)


def test_no_licence_is_commercial_by_its_name_alone():
    told = {m.licence for s in read_figures().values() for m in s.models.values()}
    allowed = {one for one in told if fits_licence(one, 'commercial')}
    assert allowed == {'apache-2.0', 'bsd-3-clause', 'cc-by-4.0', 'mit'}


@pytest.mark.parametrize(
    ('asked', 'words'),
    [
        (dict(pattern='resnet5O'), r"no backbone of torchvision matches 'resnet5O'\. "
         r'Nearest: .*torchvision/resnet50'),
        (dict(pattern='resnt*'), 'Nearest: .*torchvision/resnet'),
        (dict(strides=[4, 32]), r"4 backbones here there are none with --stride 4 32 "
         r'\(there are 4, 8\)$'),
        (dict(strides=[8], max_parameters=1),
         r'3 with --stride 8, 1 with --max-params 1e-06M, none with all of it'),
        (dict(licence='gpl*', pattern='net1'), r"2 backbones that match 'net1' there "
         r'are none with --licence gpl\* \(there are mit \(1\), without weights'),
    ],
)  # fmt: skip
def test_nothing_found_is_a_mistake_that_is_told(known, asked, words):
    with pytest.raises(ValueError, match=words):
        list_backbones(sources=['torchvision'], figures=known, **asked)


@pytest.mark.parametrize('width', [30, 60, 80, 100, 400])
@pytest.mark.parametrize('sort', [None, 'macs'])
def test_tables_are_no_wider_than_the_terminal(width, sort):
    listing = list_backbones('vit_*', ['timm'], sort=sort)
    screen = io.StringIO()
    console = Console(width=width, file=screen)
    console.print(listing_table(listing, width))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    longest = max(map(len, names(listing)))
    whole = set(names(listing)) <= set(screen.getvalue().split())
    assert whole == (longest <= width)
    # Nothing is cut off.
    assert '…' not in screen.getvalue()
    if width < longest:
        first = ''.join(line.strip() for line in lines[1:])
        assert all(name in first for name in names(listing))
    # What there is no room for is named.
    head, below = lines[0], ' '.join(screen.getvalue().partition('no room for')[2:])
    for column in ('parameters', 'GMACs at 640', 'top-1', 'licence'):
        assert (column in head) != (column in ' '.join(below.split()))
    assert ('GMACs' in head) >= (sort == 'macs' and width >= 80)
    assert bool(below.strip()) == (width < 400)


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
    assert 'mmdet_backbones inspect res2net50_26w_6s' in listing.notes[0]
    with pytest.raises(ValueError, match=r'have no figures: .* res2net50_26w_6s'):
        list_backbones('*_6s', ['ours'], [4], figures=figures)


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
    with pytest.raises(ValueError, match='cannot be used: mmdet/ResNet-50: it says no'):
        list_backbones('mmdet/ResNet-50', ['mmdet'], figures={'mmdet': SourceFigures(
            '0.1', {name: models['mmdet/ResNet-50'] for name in (
                'mmdet/ResNet-50', 'mmdet/ResNet-50-Caffe')})})  # fmt: skip


def test_list_tool(run_tool):
    done = run_tool(LIST, 'res2net50_26w_6s', '--source', 'ours')
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    levels = ['256@4', '512@8', '1024@16', '2048@32']
    assert rows[1] == ['res2net50_26w_6s', *levels, '35.00', 'M', '51.38', '-', '-']
    arguments = ['--max-params', '5M', '--sort', 'top1', '--licence', '*']
    done = run_tool(LIST, '--source', 'mmdet', '--json', *arguments)
    content = json.loads(done.stdout)
    found = {backbone['name']: backbone for backbone in content['backbones']}
    assert found['mmdet/MobileNetV2']['config'] == {'type': 'mmdet.MobileNetV2'}
    assert content['sources']['mmdet']['problem'] is None


def test_list_tool_with_a_mistake(run_tool):
    done = run_tool(LIST, '--max-params', 'few')
    assert done.returncode == 1
    assert done.stderr.startswith('error: a number of parameters is digits with K, M')
