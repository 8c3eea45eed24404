"""The processes of a training on machines without GPUs."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta

import torch
from mmengine.config import Config


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
