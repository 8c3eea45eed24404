"""The catalog: names, figures, and what was recorded of them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import update_catalog as sweep
from write_docs_tables import timm_page

from mmdet_backbones.catalog import figures as figures_module
from mmdet_backbones.catalog import find, load_source, resolve
from mmdet_backbones.catalog.entries import SOURCES, recorded_source
from mmdet_backbones.catalog.figures import Figures, SourceFigures, read_figures
from mmdet_backbones.catalog.listing import list_backbones
from mmdet_backbones.catalog.mmpretrain_names import short_name
from mmdet_backbones.catalog.published import published_weights, usual_of
from mmdet_backbones.levels import Level

ROOT = Path(__file__).parents[2]


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
        ('xyz', 'mmdet_backbones list lists all'),
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
        # mmengine looks there for an optimizer, and that brings torchvision.
        'sys.modules["transformers"] = None\n'
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
        assert 'mmdet_backbones doctor' in problem
    assert any(b['name'] == 'mmdet/Darknet-53' for b in asked['backbones'])


def test_a_library_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setitem(SOURCES, 'no_such_library', (('none',), dict))
    listing = list_backbones(sources=['no_such_library'])
    assert listing.sources[0].problem == (
        'no_such_library is not installed: pip install no_such_library'
    )
    with pytest.raises(ValueError, match=r'cannot be used: .* is not installed'):
        find('no_such_library/net')


@pytest.mark.parametrize(
    ('name', 'usual'),
    [
        ('timm/resnet50', ('timm/resnet50.a1_in1k', 'apache-2.0', None)),
        ('timm/resnet50.fb_swsl_ig1b_ft_in1k',
         ('timm/resnet50.fb_swsl_ig1b_ft_in1k', 'cc-by-nc-4.0', None)),
        ('torchvision/resnet50',
         ('torchvision/resnet50.IMAGENET1K_V1', 'unknown', 76.13)),
        ('torchvision/resnet50.IMAGENET1K_V2',
         ('torchvision/resnet50.IMAGENET1K_V2', 'unknown', 80.858)),
        ('torchvision/vit_h_14',
         ('torchvision/vit_h_14.IMAGENET1K_SWAG_E2E_V1', 'cc-by-nc-4.0', 88.552)),
        ('mmpretrain/resnet50', ('mmpretrain/resnet50_8xb32_in1k', 'unknown', 76.55)),
        ('mmdet/ResNet-50', ('mmdet/ResNet-50', 'unknown', 76.13)),
        ('mmdet/PVT-tiny', ('mmdet/PVT-tiny', 'unknown', None)),
    ],
)  # fmt: skip
def test_what_libraries_tell_of_weights(name, usual):
    found = published_weights(find(name))
    marked = [one for one in found if one.usual]
    assert [(one.name, one.licence, one.top1) for one in marked] == [usual]
    # By its name each can be asked for, and means the same net.
    for one in found:
        entry = find(one.name)
        assert usual_of(entry) == replace(one, usual=True)
        assert 'mmdet' in name or entry.weights == one.checkpoint


def test_weights_without_a_library_are_told_too():
    assert published_weights(find('resnet50')) == ()
    assert published_weights(find('timm/beit3_giant_patch14_224')) == ()
    assert usual_of(find('resnet50')) is None


def test_every_net_of_torchvision_has_weights_that_are_there():
    for entry in load_source('torchvision').entries.values():
        usual = usual_of(entry)
        assert usual is not None
        assert entry.weights in (usual.checkpoint, usual.checkpoint.partition('.')[0])


def test_licences_and_accuracies_are_as_recorded():
    for source, figures in read_figures().items():
        live = load_source(source)
        if live.version != figures.version and source != 'ours':
            continue
        for name in list(figures.models)[::30]:
            recorded = figures.models[name]
            assert sweep.with_weights(name, recorded) == recorded


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
    assert sweep.with_weights(name, measured) == recorded


GAPS = tuple(Level(i, c, s) for i, c, s in (
    (1, 8, 4), (2, 8, 4), (3, 8, 8), (5, 8, 8), (6, 9, 8), (0, 9, 8),
))  # fmt: skip


@pytest.mark.parametrize(
    ('levels', 'text'),
    [
        ((), ''),
        (GAPS, '1:8@4 x2 8@8 5:8@8 9@8 0:9@8'),
        (tuple(Level(i, 192, 16) for i in range(12)), '192@16 x12'),
    ],
)
def test_levels_are_written_and_read_back(levels, text):
    assert figures_module.write_levels(levels) == text
    assert figures_module.read_levels(text) == levels


def test_figures_are_written_and_read_back(tmp_path):
    content = {
        'timm': SourceFigures(
            '1.0',
            {
                'timm/a': Figures(12, (Level(0, 8, 4), Level(1, 16, 8)), 7),
                'timm/b': Figures(12, GAPS, 7, (224, 192), licence='mit', top1=80.5),
            },
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
        'timm/good': Figures(12, (Level(0, 8, 4),), licence='mit'),
        'timm/poor': Figures(refused="timm's 'poor' cannot be a backbone: a | b"),
        'timm/slow': Figures(failed='it takes more than 60 s'),
    }
    page = timm_page(SourceFigures('1.0', models))
    for line in (
        '| built | 3 |',
        '| usable | 1 |',
        '| mit | 1 |',
        '| `poor` | a \\| b |',
        '| `slow` | it takes more than 60 s |',
    ):
        assert line in page.splitlines()
    written = (ROOT / 'docs' / 'timm.md').read_text(encoding='utf-8')
    assert written == timm_page(read_figures()['timm'])
