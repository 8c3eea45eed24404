"""The shipped configs: whether their parts fit, and what they say of themselves."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
from config_files import COCO, CONFIGS, ROOT, neck_strides, read
from mmengine.config import Config

from mmdet_backbones.catalog.figures import read_figures
from mmdet_backbones.levels import Level, select_levels
from mmdet_backbones.shapes.build import build_weightless
from mmdet_backbones.shapes.structure import count_parameters
from mmdet_backbones.weights.reading.sources import locate_checkpoint

# Of a backbone these change neither its levels nor its parameters.
_NO_SHAPE = ('init_cfg', 'frozen_stages', 'norm_eval', 'with_cp', 'drop_path_rate')


def header(name: str) -> str:
    """The comment on top, on one line."""
    lines = (ROOT / name).read_text().splitlines()
    comment = [lines.pop(0).removeprefix('#').strip() for _ in _comments(lines)]
    return ' '.join(comment).replace('\\ ', '')


def _comments(lines):
    while lines[0].startswith('#'):
        yield


def weightless(config: Config):
    backbone = config.model.backbone.to_dict()
    kept = {key: value for key, value in backbone.items() if key not in _NO_SHAPE}
    return _weightless(json.dumps(kept))


@functools.cache
def _weightless(backbone: str):
    return build_weightless(json.loads(backbone))


def takes_seconds(name: str) -> bool:
    """Whether the net is from timm or torchvision, read off the text of the config."""
    text = (ROOT / name).read_text()
    return re.search('TIMMBackbone|TorchvisionBackbone', text) is not None


def from_catalog(config: Config) -> str | None:
    """The catalog's name of a net that takes seconds to outline, or None."""
    backbone = config.model.backbone
    sources = dict(TIMMBackbone='timm', TorchvisionBackbone='torchvision')
    source = sources.get(backbone.type.rpartition('.')[2])
    if source is None or 'return_nodes' in backbone:
        return None
    return f'{source}/{backbone.model_name.partition(".")[0]}'


def levels_of(config: Config) -> tuple[Level, ...]:
    """Levels of the backbone, built on the meta device or as the catalog has them."""
    name = from_catalog(config)
    if name is None:
        return weightless(config).levels
    available = read_figures()[name.partition('/')[0]].models[name].levels
    strides = config.model.backbone.out_strides
    return select_levels(available, out_strides=strides, owner=name)


def head_strides(model):
    """Every list of strides below the heads, by its key."""
    found = {}
    for name in ('bbox_head', 'rpn_head'):
        head = model.get(name) or {}
        places = {name: head, f'{name}.anchors': head.get('anchor_generator') or {}}
        for place, part in places.items():
            for key in ('strides', 'featmap_strides'):
                if key in part:
                    found[f'{place}.{key}'] = list(part[key])
    return found


def test_all_configs_that_are_asked_for_are_there():
    folders = {Path(name).parent.name for name in COCO}
    assert folders == {
        'cascade_rcnn',
        'dino',
        'faster_rcnn',
        'retinanet',
        'rtdetr',
        'rtmdet',
        'yolov3',
        'yolox',
    }
    assert len(COCO) >= 38


@pytest.mark.parametrize('name', CONFIGS)
def test_header_and_length(name):
    text = header(name)
    assert re.search(r'arXiv \d{4}\.\d{5}', text)
    assert f'mmdet-backbones train {name}' in text
    assert len((ROOT / name).read_text().splitlines()) <= 75
    readme = (ROOT / name).with_name('README.md').read_text()
    row = next(line for line in readme.splitlines() if f'({Path(name).name})' in line)
    # Whoever removes "Not trained." shows the log.
    assert ('Not trained.' in text) == ('not trained' in row)
    assert 'not trained' in row or '](../../docs/' in row


@pytest.mark.parametrize('name', COCO)
def test_neck_and_heads_follow_the_backbone(name):
    config = read(name)
    model, levels = config.model, levels_of(config)
    channels = [level.channels for level in levels]
    strides = [level.stride for level in levels]
    if model.get('neck') is None:
        assert model.rpn_head.in_channels == channels[0]
    else:
        reverse = model.neck.type == 'YOLOV3Neck'
        given = model.neck.in_channels
        given = [given] if isinstance(given, int) else list(given)
        assert given == (channels[::-1] if reverse else channels)
    out = neck_strides(model, strides)
    heads = head_strides(model)
    assert heads or model.type in ('DINO', 'mmdet_backbones.RTDETR')
    assert heads == dict.fromkeys(heads, out)
    if model.get('roi_head'):
        extractor = model.roi_head.bbox_roi_extractor
        assert extractor.featmap_strides == out[: len(extractor.featmap_strides)]
    if model.type == 'mmdet_backbones.RTDETR':
        assert model.decoder.layer_cfg.cross_attn_cfg.num_levels == len(out)
    if model.type == 'DINO':
        levels = model.neck.num_outs
        assert model.encoder.layer_cfg.self_attn_cfg.num_levels == levels
        assert model.decoder.layer_cfg.cross_attn_cfg.num_levels == levels


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=pytest.mark.slow if takes_seconds(name) else ())
        for name in COCO
    ],
)
def test_backbone_header_table_and_preprocessing(name):
    config = read(name)
    backbone = weightless(config)
    assert backbone.levels == tuple(levels_of(config))
    wanted, given = backbone.preprocess, config.model.data_preprocessor
    assert given.mean == pytest.approx(wanted.mean)
    assert given.std == pytest.approx(wanted.std)
    assert given.bgr_to_rgb is (wanted.channel_order == 'rgb')
    parameters = f'{count_parameters(backbone) / 1e6:.2f} M'
    assert f'Backbone: {parameters} parameters' in header(name)
    readme = (ROOT / name).with_name('README.md').read_text()
    row = next(line for line in readme.splitlines() if f'({Path(name).name})' in line)
    cells = [cell.strip() for cell in row.split('|')]
    neck = config.model.get('neck') or {}
    given = neck.get('in_channels', 'no neck')
    given = given if isinstance(given, (int, str)) else ', '.join(map(str, given))
    assert str(given) in cells
    assert ', '.join(map(str, backbone.out_strides)) in cells
    assert any(cell.startswith(parameters) for cell in cells)
    assert f'mmdet-backbones train {name}' in readme


@pytest.mark.parametrize('name', COCO)
def test_schedule(name):
    config = read(name)
    # The batch that the rate is for: 8 processes of as many images as each one loads.
    batch = 8 * config.train_dataloader.batch_size
    assert config.auto_scale_lr.enable is True
    assert config.auto_scale_lr.base_batch_size == batch
    adaptive = config.optim_wrapper.optimizer.type == 'AdamW'
    assert config.auto_scale_lr.get('rule', 'linear') == (
        'sqrt' if adaptive else 'linear'
    )
    kind = config.model.backbone.type.rpartition('.')[2]
    transformer = kind in ('SwinTransformer', 'ConvNeXt') or 'sfp' in name
    layers = 'LayerDecayConstructor' in config.optim_wrapper.get('constructor', '')
    assert layers == transformer
    last = config.param_scheduler[-1]
    assert last.get('end', config.train_cfg.max_epochs) == config.train_cfg.max_epochs
    milestones = last.get('milestones', [0])
    assert milestones[-1] < config.train_cfg.max_epochs
    assert not config.get('find_unused_parameters', False)


@pytest.mark.parametrize('name', COCO)
def test_weights_have_an_address(name):
    checkpoint = read(name).model.backbone.init_cfg.checkpoint
    assert str(locate_checkpoint(checkpoint)).startswith('https://')
