"""The shipped configs and how their necks change strides."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config import utils as config_utils

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
COCO = [name for name in CONFIGS if name.endswith('_coco.py')]
_load_once = functools.cache(config_utils.load)


@functools.cache
def read(name: str) -> Config:
    """Read a config; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        # mmengine reads a hundred of mmdet's metafiles for every base otherwise.
        patch.setattr(config_utils, 'load', _load_once)
        return Config.fromfile(ROOT / name)


def neck_strides(model, strides):
    """Strides of what the neck gives, for all necks that the configs have."""
    neck = model.get('neck') or dict(type='none')
    kind = neck['type'].rpartition('.')[2]
    if kind == 'YOLOV3Neck':
        return strides[::-1]
    if kind == 'SimpleFeaturePyramid':
        return [4, 8, 16, 32, 64]
    if kind in ('FPN', 'ChannelMapper'):
        strides = strides[neck.get('start_level', 0) :]
        while len(strides) < neck['num_outs']:
            strides = [*strides, 2 * strides[-1]]
        return strides
    passing = ('YOLOXPAFPN', 'CSPNeXtPAFPN', 'HybridEncoder', 'SingleLevel', 'none')
    assert kind in passing, kind
    return strides
