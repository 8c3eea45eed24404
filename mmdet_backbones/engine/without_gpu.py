"""A training on machines without GPUs: what it cannot follow, and its processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta

import torch
from mmengine.config import Config

from ..detector_config.tree import dotted, walk
from ..errors import UserError

_SYNC_BN = ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')


def require_gpu(cfg: Config) -> None:
    """Make sure that a training on CPUs can start, before anything is built.

    Without this mmengine fails in an assertion, or torch in the first iteration.

    Args:
        cfg: The whole config, with its launcher.

    Raises:
        UserError: Names every setting that needs a GPU, if there is none.
    """
    if torch.cuda.is_available():
        return
    problems = [*_amp(cfg), *_sync_bn(cfg)]
    if problems:
        raise UserError(
            'no GPU is visible to this process, and the config needs one:\n  '
            + '\n  '.join(problems)
        )


def _amp(cfg: Config) -> Iterator[str]:
    if (cfg.get('optim_wrapper') or {}).get('type') == 'AmpOptimWrapper':
        yield (
            "optim_wrapper.type='AmpOptimWrapper' (--amp): mixed precision of mmengine "
            "runs on GPUs only; leave --amp away or write type='OptimWrapper' and "
            'remove loss_scale'
        )


def _sync_bn(cfg: Config) -> Iterator[str]:
    # In a single process mmengine makes ordinary batch normalisation of it.
    if cfg.get('launcher', 'none') == 'none':
        return
    for key, node in (('', cfg), ('strategy.', cfg.get('strategy') or {})):
        if node.get('sync_bn'):
            yield (
                f'{key}sync_bn={node["sync_bn"]!r}: SyncBatchNorm runs on GPUs only; '
                f'write {key}sync_bn=None'
            )
    for place, part in walk(cfg.get('model'), ('model',)):
        kind, key = part.get('type'), dotted(*place, 'type')
        if kind in _SYNC_BN:
            yield (f"{key}='{kind}': SyncBatchNorm runs on GPUs only; write {key}='BN'")


def join_processes_without_gpu(cfg: Config) -> None:
    """Join the other processes of a distributed run through gloo, if there is no GPU.

    mmengine always selects a GPU first; it leaves processes alone that have joined,
    and takes the wrapper of the model from the config. As there,
    ``env_cfg.dist_cfg.timeout`` is how many seconds a process waits for the others.
    """
    if cfg.launcher not in ('pytorch', 'slurm') or torch.cuda.is_available():
        return
    if cfg.launcher == 'slurm':
        _name_processes_of_slurm()
    if not torch.distributed.is_initialized():
        settings = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
        seconds = settings.get('timeout')
        torch.distributed.init_process_group(
            'gloo', timeout=None if seconds is None else timedelta(seconds=seconds)
        )
    strategy = cfg.get('strategy')
    if strategy is not None:
        fsdp = 'FSDP' in strategy.type
        device = dict(device_id='cpu') if fsdp else dict(device_ids=None)
        strategy.model_wrapper = {**device, **(strategy.get('model_wrapper') or {})}
        return
    cfg.setdefault(
        'model_wrapper_cfg',
        dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        ),
    )


def _name_processes_of_slurm() -> None:
    """Tell torch what Slurm calls differently, as mmengine does where GPUs are."""
    variables = os.environ
    if 'MASTER_ADDR' not in variables:
        names = ['scontrol', 'show', 'hostnames', variables['SLURM_NODELIST']]
        variables['MASTER_ADDR'] = subprocess.check_output(names, text=True).split()[0]
    variables.setdefault('MASTER_PORT', '29500')
    variables['RANK'] = variables['SLURM_PROCID']
    variables['LOCAL_RANK'] = variables['SLURM_LOCALID']
    variables['WORLD_SIZE'] = variables['SLURM_NTASKS']
