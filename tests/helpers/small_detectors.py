"""Detectors of a few hundred thousand parameters, and checkpoints of them."""

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from planted import RETINANET, load, merged

# A RetinaNet on a backbone of ours, and on one of mmdet's.
OURS = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet_backbones.ResNet',
        depth=18,
        base_channels=8,
        out_strides=(4, 8, 16, 32),
    ),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
)
HOSTS = merged(
    OURS,
    backbone=dict(
        type='ResNet',
        base_channels=8,
        frozen_stages=-1,
        norm_eval=False,
        out_indices=(0, 1, 2, 3),
    ),
)
HOSTS['backbone'].pop('out_strides')


def small_config(tmp_path, model=OURS, **settings) -> Config:
    """A config that a user could train."""
    return load(tmp_path, RETINANET, model=model, **settings)


def build(config: Config) -> torch.nn.Module:
    """The detector of a config, with random weights."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(config.copy().model)


def save(path, state_dict, epoch=1, iter=10, **more) -> str:
    """Write a checkpoint as mmengine's Runner does."""
    state = dict(
        meta=dict(epoch=epoch, iter=iter),
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
        optimizer=dict(param_groups=[]),
        param_schedulers=[],
    )
    torch.save(dict(state, state_dict=state_dict, **more), path)
    return str(path)
