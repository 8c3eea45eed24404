"""From a config file and a command line to a Runner that can start."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from ..detector_config.tree import datasets_in, dotted, walk
from ..detector_config.values import require_values
from ..errors import CheckpointError, PretrainedWeightsError, UserError, explain
from .checkpoint_hook import use_safe_checkpoints
from .layer_decay import fused
from .lr_scaling import count_processes, find_scale, read_rates, scale_rates
from .quiet import QuietRunner
from .resuming import refuse_full_disk
from .without_gpu import join_processes_without_gpu

# Some of mmengine's messages hold half a config.
_LONGEST = 600


def require_model(cfg: Config) -> None:
    """Make sure that a config is more than a base for others, of possible values.

    Args:
        cfg: The whole config.

    Raises:
        UserError: If there is no model, or a value cannot be.
    """
    if 'model' not in cfg:
        raise UserError(
            'there is no model in the config, so no detector to train or test: write '
            'model = dict(type=...), or inherit one, _base_ = [...]'
        )
    require_values(cfg)


def require_data(cfg: Config, *splits: str) -> None:
    """Make sure that the annotation files and image folders of a config are there.

    Args:
        cfg: The whole config.
        *splits: Which dataloaders: ``'train'``, ``'val'``, ``'test'``.

    Raises:
        UserError: Names every path that is missing and the key that says so.
    """
    missing: dict[str, str] = {}
    for split in splits:
        loader = f'{split}_dataloader'
        for key, path in _data_paths(cfg.get(loader), loader):
            if '://' not in path and not Path(path).exists():
                missing.setdefault(path, key)
    if missing:
        lines = '\n'.join(f"  {key}: '{path}'" for path, key in missing.items())
        raise UserError(
            f'the data set is not there:\n{lines}\nPut it there, or name the right '
            'place with --cfg-options KEY=PATH (data_root stands before ann_file '
            'and data_prefix)'
        )


def _data_paths(loader: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the config key and full path of every data set of a dataloader."""
    for place, part in datasets_in(loader):
        root = part.get('data_root') or ''
        if part.get('ann_file'):
            yield dotted(key, *place, 'ann_file'), _under(root, part['ann_file'])
        prefixes = part.get('data_prefix')
        if isinstance(prefixes, Mapping):
            for name, prefix in prefixes.items():
                yield dotted(key, *place, 'data_prefix', name), _under(root, prefix)


def _under(root: str, part: str) -> str:
    if '://' in part:
        return part
    # pathlib would make one slash of the two in an address.
    return os.path.join(root, part) if '://' in root else str(Path(root, part))


def build_runner(cfg: Config) -> Runner:
    """Build the Runner, or say which part of the config cannot be built.

    Args:
        cfg: The whole config.

    Raises:
        UserError: With the message of the part that failed.
    """
    join_processes_without_gpu(cfg)
    use_safe_checkpoints(cfg)
    add_hook(cfg, dict(type='mmdet_backbones.PretrainedReportHook'))
    add_hook(cfg, dict(type='mmdet_backbones.ProgressBarHook'))
    add_hook(cfg, dict(type='mmdet_backbones.DivergenceHook'))
    _measure_classes(cfg)
    try:
        if 'runner_type' in cfg:
            return RUNNERS.build(cfg)
        return QuietRunner.from_cfg(cfg)
    except (UserError, CheckpointError, PretrainedWeightsError):
        raise
    except Exception as error:  # whatever the parts of a foreign detector raise
        if isinstance(error, OSError):
            refuse_full_disk(error, cfg, cfg.work_dir)
        raise UserError(
            f'the config cannot be built: {type(error).__name__}: '
            f'{explain(error)[:_LONGEST]}'
        ) from error


def _measure_classes(cfg: Config) -> None:
    """Put our metric in the place of mmdet's CocoMetric, whose values it has."""
    for name in ('val_evaluator', 'test_evaluator'):
        for _, part in walk(cfg.get(name)):
            kind = part.get('type', '')
            named = isinstance(kind, type)
            kind = f'{kind.__module__}.{kind.__name__}' if named else str(kind)
            if kind == 'CocoMetric':
                # mmpose has another one.
                kind = f'{cfg.get("default_scope")}.{kind}'
            if kind.startswith('mmdet.') and kind.endswith('.CocoMetric'):
                part['type'] = 'mmdet_backbones.ClasswiseCocoMetric'


def add_hook(cfg: Config, hook: dict[str, Any], replace: bool = True) -> None:
    """Add a hook of ours.

    Args:
        cfg: The whole config.
        hook: Type and arguments.
        replace: Whether it takes the place of one that an earlier run left in the
            config, or that one stays.
    """
    hooks = list(cfg.get('custom_hooks') or [])
    others = [h for h in hooks if h.get('type') != hook['type']]
    if replace or len(others) == len(hooks):
        cfg.custom_hooks = [*others, hook]


def enable_amp(cfg: Config) -> None:
    """Train with automatic mixed precision and a dynamic loss scale."""
    if cfg.optim_wrapper.type == 'AmpOptimWrapper':
        print_log('AMP is on in the config already', 'current', logging.WARNING)
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.loss_scale = 'dynamic'


def fuse_optimizer(cfg: Config) -> None:
    """On a GPU, have AdamW of one process update many parameters in one launch.

    Args:
        cfg: The whole config.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    # Who shards a model has steps of its own.
    plain = wrapper.get('type', 'OptimWrapper') in ('OptimWrapper', 'AmpOptimWrapper')
    optimizer = wrapper.get('optimizer')
    if torch.cuda.is_available() and plain and optimizer and not cfg.get('strategy'):
        wrapper['optimizer'] = fused(optimizer)


def set_tf32(wanted: bool) -> None:
    """Say whether a GPU rounds factors of float32 to TF32, which torch half does.

    By itself torch rounds in convolutions alone.

    Args:
        wanted: Whether it shall, if it can.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        return
    torch.set_float32_matmul_precision('high' if wanted else 'highest')
    torch.backends.cudnn.allow_tf32 = wanted
    how = 'in TF32, whose factors have 10 bits; --no-tf32 leaves all 23'
    print_log(
        'Matrix products and convolutions of float32 run '
        f'{how if wanted else "in full precision"}',
        'current',
    )


def compile_parts(runner: Runner) -> None:
    """Compile backbone and neck at their first call; weights keep their names.

    Args:
        runner: Built from a config.

    Raises:
        UserError: If the detector has neither.
    """
    detector: Any = runner.model
    while is_model_wrapper(detector):
        detector = detector.module
    parts = {name: getattr(detector, name, None) for name in ('backbone', 'neck')}
    found = {n: part for n, part in parts.items() if isinstance(part, nn.Module)}
    if not found:
        raise UserError(
            f'--compile compiles backbone and neck, and {type(detector).__name__} has '
            'neither: leave --compile away'
        )
    for part in found.values():
        part.compile()
    print_log(
        f'{" and ".join(found)}: compiled in the first iterations, which are slow',
        'current',
    )


def apply_lr_scaling(cfg: Config, wanted: bool | None = None) -> None:
    """Scale the learning rate to the batch size of all processes, and say how.

    Args:
        cfg: The whole config, with its launcher.
        wanted: Whether to scale; if left out, ``auto_scale_lr.enable`` decides; a
            config that gives a base and no ``enable`` is scaled.

    Raises:
        UserError: If scaling is asked for by the flag and the config does not say what
            batch size its rate is for, or what it says cannot be used.
    """
    settings = cfg.get('auto_scale_lr') or {}
    scale = find_scale(cfg, count_processes(cfg.get('launcher', 'none')))
    if scale is None and wanted:
        raise UserError(
            '--auto-scale-lr needs the batch size that the learning rate of the config '
            'was chosen for: write auto_scale_lr = dict(base_batch_size=16)'
        )
    if scale is None:
        return
    if not (settings.get('enable', True) if wanted is None else wanted):
        cfg.auto_scale_lr.enable = False
        if scale.factor != 1:
            print_log(
                f'The learning rate is that of batches of {scale.base_batch_size} '
                f'images and is not scaled to {scale.batch_size}; --auto-scale-lr '
                'scales it',
                'current',
                logging.WARNING,
            )
        return
    rates = read_rates(cfg)
    lines = '; '.join(f'{key}: {scale.formula(lr)}' for key, lr in rates.items())
    scale_rates(cfg, scale)
    hook = dict(
        type='mmdet_backbones.LearningRateScaleHook',
        batch_size=scale.batch_size,
        rule=scale.rule,
        note=f'Learning rate, {scale.rule} rule. {lines}',
    )
    add_hook(cfg, hook)


def leave_processes() -> None:
    """Leave the other processes of a run that ended well.

    Threads of the group that are still there when Python ends abort the process, and a
    finished training would be reported as a failed one. They stay as long as anybody
    holds a model that is wrapped for several processes.
    """
    gc.collect()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
