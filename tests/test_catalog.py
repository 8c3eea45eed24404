"""The catalog: names, figures, listing, and what a backbone looks like."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mmdet_backbones.backbones.contract import Level
from mmdet_backbones.catalog import figures as figures_module
from mmdet_backbones.catalog import find, load_source, resolve, sweep
from mmdet_backbones.catalog.entries import SOURCES, recorded_source
from mmdet_backbones.catalog.figures import Figures, SourceFigures, read_figures
from mmdet_backbones.catalog.inspection import inspect_backbone, probe_levels
from mmdet_backbones.catalog.listing import list_backbones, matches, parse_count
from mmdet_backbones.catalog.mmpretrain_names import short_name
from mmdet_backbones.catalog.report import timm_page
from mmdet_backbones.catalog.weightless import build_weightless

ROOT = Path(__file__).parents[1]
LIST = 'tools/list_backbones.py'
INSPECT = 'tools/inspect_backbone.py'


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('timm/convnext_tiny', dict(type='TIMMBackbone', model_name='convnext_tiny')),
        (
            'timm/resnet50.a1_in1k',
            dict(type='TIMMBackbone', model_name='resnet50.a1_in1k'),
        ),
        (
            'torchvision/vgg16_bn',
            dict(type='TorchvisionBackbone', model_name='vgg16_bn'),
        ),
        ('mmpretrain/shufflenet-v2-1x', dict(type='ShuffleNetV2', widen_factor=1.0)),
        (
            'mmpretrain/efficientnet-b0',
            dict(type='MMPretrainBackbone', model=dict(type='EfficientNet', arch='b0')),
        ),
        ('res2net50_26w_6s', dict(type='Res2Net', depth=50, scales=6)),
    ],
)
def test_names_resolve_to_configs(name, config):
    config['type'] = f'mmdet_backbones.{config["type"]}'
    assert resolve(name) == config


def test_names_of_mmdet_resolve_to_its_own_classes():
    assert resolve('mmdet/ResNet-50') == dict(type='mmdet.ResNet', depth=50)
    darknet = find('mmdet/Darknet-53')
    assert darknet.config == dict(type='mmdet.Darknet', depth=53)
    assert darknet.every_level == dict(out_indices=(0, 1, 2, 3, 4, 5))


def test_what_resolve_returns_is_the_callers_own():
    resolve('mmpretrain/efficientnet-b0')['model']['arch'] = 'b7'
    assert resolve('mmpretrain/efficientnet-b0')['model']['arch'] == 'b0'


@pytest.mark.parametrize(
    ('name', 'nearest'),
    [
        ('convnext_tiny', 'timm/convnext_tiny, torchvision/convnext_tiny'),
        ('timm/convnxt_tiny', 'timm/convnext_tiny'),
        ('mmdet/ResNet50', 'mmdet/ResNet-50'),
        ('shufflenet-v2-1x', 'mmpretrain/shufflenet-v2-1x'),
        ('res2net50_26w_7s', 'res2net50_26w_6s'),
        ('xyz', r'tools/list_backbones\.py lists all'),
    ],
)
def test_unknown_names_get_the_nearest_of_all_sources(name, nearest):
    with pytest.raises(ValueError, match=f"no backbone '{name}'.*{nearest}"):
        resolve(name)


def test_weights_stand_with_the_names():
    short = find('mmpretrain/swin-tiny')
    assert 'swin_tiny_224_b16x64_300e' in short.weights
    # The same net, other weights: the full name of the model zoo tells them apart.
    full = find('mmpretrain/swin-tiny_3rdparty_in1k')
    assert full.config == short.config
    assert 'convert/swin_tiny_patch4_window7_224' in full.weights
    assert find('timm/resnet50.a1_in1k').weights == 'timm://resnet50.a1_in1k'
    assert find('torchvision/resnet50').weights == 'torchvision://resnet50'


@pytest.mark.parametrize(
    ('name', 'short'),
    [
        ('shufflenet-v2-1x_16xb64_in1k', 'shufflenet-v2-1x'),
        ('swin-base_in21k-pre-3rdparty_in1k-384', 'swin-base_in21k-pre_384'),
        ('resnet50_8xb256-rsb-a1-600e_in1k', 'resnet50_rsb-a1-600e'),
        ('resnet50_8xb16_cifar10', 'resnet50_cifar10'),
        ('convnext-v2-tiny_3rdparty-fcmae_in1k', 'convnext-v2-tiny_fcmae'),
    ],
)
def test_short_names_keep_what_tells_weights_apart(name, short):
    assert short_name(name) == short


def test_every_name_of_the_model_zoo_has_an_entry():
    source = load_source('mmpretrain')
    assert len(source.aliases) > 400
    # A short name that stood for two nets would be missing here.
    missing = {
        name
        for name in source.aliases
        if f'mmpretrain/{short_name(name.partition("/")[2])}' not in source.entries
    }
    assert missing == set()
    # Arguments of the detector are not those of the net.
    for entry in source.entries.values():
        net = entry.config.get('model', entry.config)
        assert not {'init_cfg', 'frozen_stages', 'out_indices', 'in_channels'} & {*net}


BROKEN = 'operator torchvision::nms does not exist'


@pytest.fixture(scope='module')
def fresh(tmp_path_factory):
    """What a process of its own finds in which timm cannot be imported."""
    folder = tmp_path_factory.mktemp('broken')
    (folder / 'timm').mkdir()
    (folder / 'timm' / '__init__.py').write_text(f'raise RuntimeError({BROKEN!r})')
    code = (
        'import json, sys\n'
        'from mmdet_backbones.catalog import find\n'
        'from mmdet_backbones.catalog.listing import list_backbones\n'
        'arch = find("mmpretrain/swin-tiny").config["arch"]\n'
        'sources = ["timm", "torchvision", "mmdet", "mmpretrain"]\n'
        'recorded = list_backbones(sources=sources).to_dict()\n'
        'modules = sorted(sys.modules)\n'
        'asked = list_backbones(sources=sources, figures={}).to_dict()\n'
        'try:\n    find("timm/resnet18")\n'
        'except ValueError as error:\n    problem = str(error)\n'
        'print(json.dumps([arch, modules, recorded, asked, problem]))'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env={**os.environ, 'PYTHONPATH': str(folder)},
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_libraries_are_listed_without_importing_them(fresh):
    arch, modules, recorded, *_ = fresh
    assert arch == 'tiny'
    found = {backbone['source'] for backbone in recorded['backbones']}
    imported = {'mmpretrain', 'mmdet'} & set(modules)
    # The names of another release than the recorded one are those it gives itself.
    for name in ('timm', 'torchvision'):
        if read_figures()[name].version == recorded['sources'][name]['version']:
            imported |= {f'{name}.models'} & set(modules)
            assert name in found
    assert found >= {'mmdet', 'mmpretrain'}
    assert imported == set()


def test_the_record_names_what_the_library_names():
    for name in ('timm', 'torchvision'):
        live = load_source(name)
        known = read_figures()[name]
        models = {model: found.published for model, found in known.models.items()}
        recorded = recorded_source(name, known.version, models)
        if live.version == known.version:
            assert recorded.entries == live.entries
        else:
            assert recorded is live


def test_a_broken_library_does_not_take_the_others_along(fresh):
    *_, asked, refusal = fresh
    for problem in (asked['sources']['timm']['problem'], refusal):
        assert BROKEN in problem
        assert 'tools/doctor.py' in problem
    assert any(b['name'] == 'mmdet/Darknet-53' for b in asked['backbones'])


def test_a_library_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setitem(SOURCES, 'no_such_library', (('none',), dict))
    listing = list_backbones(sources=['no_such_library'])
    assert listing.sources[0].problem == (
        'no_such_library is not installed: pip install no_such_library'
    )
    with pytest.raises(ValueError, match=r'cannot be used: .* is not installed'):
        find('no_such_library/net')


def test_figures_are_there_for_our_nets_and_mmdets():
    figures = read_figures()
    for source in ('ours', 'mmdet', 'torchvision'):
        assert set(figures[source].models) == set(load_source(source).entries)
        assert all(model.usable for model in figures[source].models.values())


@pytest.mark.parametrize('name', ['res2net50_48w_2s', 'mmdet/CSPDarknet-s'])
def test_figures_are_those_of_the_net(name):
    measured = sweep.measure_backbone(name)
    assert measured.usable
    recorded = read_figures()[find(name).source].models[name]
    assert replace(recorded, published=True) == measured


def test_figures_are_written_and_read_back(tmp_path):
    content = {
        'timm': SourceFigures(
            '1.0', {'timm/a': Figures(12, (Level(0, 8, 4), Level(1, 16, 8)))}
        ),
        'ours': SourceFigures(
            None, {'b': Figures(refused='no "maps"'), 'c': Figures(failed='broke')}
        ),
    }
    path = tmp_path / 'levels.json'
    figures_module.write_figures(content, path)
    assert read_figures(path) == content
    assert read_figures(tmp_path / 'nothing.json') == {}


def test_the_page_on_timm_is_that_of_the_figures():
    models = {
        'timm/good': Figures(12, (Level(0, 8, 4),)),
        'timm/poor': Figures(refused="timm's 'poor' cannot be a backbone: a | b"),
        'timm/slow': Figures(failed='it takes more than 60 s'),
    }
    page = timm_page(SourceFigures('1.0', models))
    for line in (
        '| built | 3 |',
        '| usable | 1 |',
        '| `poor` | a \\| b |',
        '| `slow` | it takes more than 60 s |',
    ):
        assert line in page.splitlines()
    written = (ROOT / 'docs' / 'timm.md').read_text(encoding='utf-8')
    assert written == timm_page(read_figures()['timm'])


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


VGG = [(0, 64, 1), (1, 128, 2), (2, 256, 4), (3, 512, 8), (4, 512, 16), (5, 512, 32)]
PYRAMID = [(0, 96, 4), (1, 192, 8), (2, 384, 16), (3, 768, 32)]
EXPECTED = {
    'mmpretrain/shufflenet-v2-1x': [
        (0, 116, 8), (1, 232, 16), (2, 464, 32), (3, 1024, 32),
    ],
    'timm/resnet50': [
        (0, 64, 2), (1, 256, 4), (2, 512, 8), (3, 1024, 16), (4, 2048, 32),
    ],
    'timm/convnext_tiny': PYRAMID,
    'timm/swin_tiny_patch4_window7_224': PYRAMID,
    'timm/vgg16_bn': VGG,
    'mmdet/Darknet-53': [
        (0, 32, 1), (1, 64, 2), (2, 128, 4), (3, 256, 8), (4, 512, 16), (5, 1024, 32),
    ],
    'mmpretrain/swin-tiny': PYRAMID,
}  # fmt: skip


@pytest.mark.parametrize('name', EXPECTED)
def test_inspect_tool(run_tool, name):
    done = run_tool(INSPECT, name, '--json', '--size', '192', '320')
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    levels = [(lv['index'], lv['channels'], lv['stride']) for lv in found['levels']]
    assert levels == EXPECTED[name]
    assert [(lv['height'], lv['width']) for lv in found['levels']] == [
        (192 // stride, 320 // stride) for _, _, stride in levels
    ]
    assert sum(found['stages'].values()) == found['parameters']
    # What the backbone says about itself is what came out of it.
    assert found['declared'] == []


def test_inspect_tool_prints_tables(run_tool):
    done = run_tool(INSPECT, 'res2net50_26w_6s')
    assert done.returncode == 0, done.stderr
    assert 'GMACs at 640 x 640 (multiply-adds' in done.stdout
    assert '51.38 GMACs' in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ['1', '512', '8', '80', 'x', '80'] in rows
    assert ['stage', '4', '22,025,376'] in rows
    assert ['all', '35,002,448'] in rows


@pytest.mark.parametrize(
    ('name', 'size', 'published'),
    [('res2net50_26w_6s', 224, 6.29), ('res2net50_48w_2s', 640, 33.9)],
)
def test_multiply_adds_are_the_published_ones(name, size, published):
    macs = inspect_backbone(name, (size, size)).macs / 1e9
    assert macs == pytest.approx(published, abs=0.06)


def test_other_channels_change_the_stem_only():
    three, four = (
        inspect_backbone('mmdet/ResNet-18', (64, 96), channels) for channels in (3, 4)
    )
    assert four.parameters - three.parameters == 7 * 7 * 64
    assert next(iter(four.stages)) == 'stem'
    assert {**four.stages, 'stem': 0} == {**three.stages, 'stem': 0}


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['timm/beit_base_patch16_224'], ['(224, 224) only', '--size 224 224']),
        (['timm/convnxt_tiny'], ['timm/convnext_tiny']),
        (['mmdet/Swin-T', '--size', '0', '64'], ['positive integers', '0 x 64']),
        (['mmdet/Darknet-53', '--in-channels', '4'], ['in_channels']),
    ],
)
def test_inspect_tool_with_a_mistake(run_tool, arguments, words):
    done = run_tool(INSPECT, *arguments)
    assert done.returncode == 1
    assert done.stderr.count('error: ') == 1
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize('name', ['mmpretrain/swin-tiny', 'mmdet/Swin-T', 'resnet18'])
def test_nothing_is_allocated(name):
    net = build_weightless(find(name).config)
    assert not net.training
    tensors = [*net.parameters(), *net.buffers()]
    assert tensors
    assert all(tensor.is_meta for tensor in tensors)


def test_probe_levels_refuses_what_is_no_pyramid():
    class Net(nn.Module):
        def __init__(self, *outputs: nn.Module) -> None:
            super().__init__()
            self.parts = nn.ModuleList(outputs)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [part(x) for part in self.parts]

    def strided(stride):
        return nn.Conv2d(3, 8, stride, stride, device='meta')

    levels = probe_levels(Net(strided(4), strided(8), strided(8)))
    assert levels == [Level(0, 8, 4), Level(1, 8, 8), Level(2, 8, 8)]
    for net in (
        Net(strided(8), strided(4)),
        Net(nn.Flatten()),
        Net(nn.Conv2d(3, 8, 1, stride=(4, 8), device='meta')),
    ):
        with pytest.raises(ValueError, match='every output must be a map'):
            probe_levels(net)


def test_a_small_image_does_not_change_the_strides():
    found = inspect_backbone('res2net50_26w_4s', (32, 32))
    assert [level.stride for level in found.levels] == [4, 8, 16, 32]
    assert (found.levels[-1].height, found.declared) == (1, ())


def test_time_is_limited():
    found = sweep._measure_in_time('mmdet/HRNetV2p-W40', 0.05)
    assert found.failed == 'it takes more than 0.05 s'


def test_a_refusal_is_no_failure():
    found = sweep.measure_backbone('mmpretrain/mae_vit-base-p16_amp-coslr-300e')
    assert found.failed is None
    assert 'MAEViT' in found.refused


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_stopped(tmp_path):
    record = tmp_path / 'ours.jsonl'
    chosen = ['res2net50_26w_4s', 'resnet18', 'resnet34']
    run = sweep.resumed_sweep('ours', chosen, record)
    stopped, _ = next(run)
    run.close()
    lines = record.read_text().splitlines()
    assert [json.loads(line).get('name') for line in lines] == [None, stopped]
    # A line of a killed run, and a mark to tell old results from new ones.
    mark = json.dumps({'name': stopped, 'refused': 'marked'})
    record.write_text(f'{lines[0]}\n{mark}\n{{"name": "resn')
    results = dict(sweep.resumed_sweep('ours', chosen, record))
    assert set(results) == set(chosen)
    assert results.pop(stopped).refused == 'marked'
    assert all(result.usable for result in results.values())
    # Another version of the library begins anew.
    record.write_text('{"version": "0.0.1"}\n' + mark + '\n')
    assert all(
        result.usable for _, result in sweep.resumed_sweep('ours', [stopped], record)
    )


def assert_as_recorded(source: str) -> None:
    """Measure all of a source again; nothing may fail or differ from the file."""
    recorded = read_figures()[source].models
    found = dict(sweep.sweep(load_source(source).entries, jobs=2))
    assert {n: m.failed for n, m in found.items() if m.failed is not None} == {}
    assert {n for n in found if found[n] != recorded.get(n)} == set()


@pytest.mark.slow
@pytest.mark.parametrize('source', SOURCES)
def test_every_backbone_is_as_recorded(source):
    assert_as_recorded(source)


@pytest.mark.slow
def test_convnext_large_needs_no_memory_of_its_size():
    code = (
        'import resource, time, timm\n'
        'from mmdet_backbones.adapters import timm_outline\n'
        'from mmdet_backbones.catalog.inspection import inspect_backbone\n'
        'def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n'
        'before, start = peak(), time.process_time()\n'
        'assert inspect_backbone("timm/convnext_large").parameters > 190e6\n'
        'print(peak() - before, time.process_time() - start)'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    mebibytes, seconds = map(float, done.stdout.split())
    # Its weights are 750 MiB.
    assert mebibytes < 200
    assert seconds < 10
