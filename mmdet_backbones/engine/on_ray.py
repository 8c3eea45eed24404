"""A training whose processes run on a Ray cluster, and start again when one is lost."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import CheckpointError, PretrainedWeightsError, UserError

_TOLD = (UserError, CheckpointError, PretrainedWeightsError)
# Of torch, for processes without GPUs.
_SECONDS = 1800
_TRIES = 3
# Below the work folder; the checkpoints of the training lie beside it.
_STORAGE = 'ray'


def train_on_ray(
    work: Callable[[Mapping[str, Any]], None],
    told: Mapping[str, Any],
    cfg: Config,
    processes: int,
) -> None:
    """Train in processes of the cluster that this process is connected to.

    Ray Train starts them, names them to each other as torchrun does, and joins them
    through NCCL, or gloo where there is no GPU. When one dies, as its machine does, all
    start again, and go on from the newest checkpoint in the work folder.

    Args:
        work: Trains in one process.
        told: What it is told; ``resume`` is ``'auto'`` when it starts again.
        cfg: The whole config, with its work folder, which all machines see.
        processes: How many, each on its GPU, or core if the cluster has no GPU.

    Raises:
        UserError: If the cluster is too small, a process cannot train, or processes
            were lost too often.
    """
    gpus = _use_gpus(processes)
    folder = os.getcwd()
    last = ''
    for number in range(_TRIES):
        again = {} if number == 0 else dict(resume='auto', force=False)
        if again:
            print_log(
                f'{last}; all processes start again, and go on from the newest '
                'checkpoint',
                'current',
                logging.WARNING,
            )
        last = _run(work, {**told, **again}, folder, cfg, processes, gpus)
        if not last:
            return
    raise UserError(
        f'{last}, {_TRIES} times. Start the same command with --resume when the '
        'machines are well: it goes on from the newest checkpoint'
    )


def _use_gpus(processes: int) -> bool:
    """Whether each process gets a GPU.

    Raises:
        UserError: If the cluster has not as many GPUs, or cores if it has none.
    """
    import ray

    has = ray.cluster_resources()
    gpus = int(has.get('GPU', 0))
    most, what = (gpus, 'GPU') if gpus else (int(has.get('CPU', 0)), 'core')
    if processes > most:
        raise UserError(
            f'--gpus {processes}: the cluster has {most} {what}{"s" * (most != 1)}, '
            f'one for each process: write --gpus {most}'
        )
    return gpus > 0


def _run(
    work: Callable[[Mapping[str, Any]], None],
    told: Mapping[str, Any],
    folder: str,
    cfg: Config,
    processes: int,
    gpus: bool,
) -> str:
    """Train once; return how a process was lost, or nothing if none was.

    Raises:
        UserError: If a process says that it cannot train.
    """
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    settings = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    trainer = TorchTrainer(
        _process,
        train_loop_config=dict(work=work, told=dict(told), folder=folder),
        torch_config=TorchConfig(timeout_s=settings.get('timeout') or _SECONDS),
        scaling_config=ScalingConfig(num_workers=processes, use_gpu=gpus),
        run_config=RunConfig(storage_path=str(Path(cfg.work_dir, _STORAGE).resolve())),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        return _lost(error)
    return ''


def _process(config: dict[str, Any]) -> None:
    """What each process does, after it has joined the others."""
    # What a person writes is relative to where that was.
    try:
        os.chdir(config['folder'])
    except OSError as error:
        raise UserError(
            f"{socket.gethostname()} does not see the folder '{config['folder']}': "
            'machines need the same files in the same places'
        ) from error
    try:
        config['work'](config['told'])
    except SystemExit:
        # The first process tells why none of them can; another error would hide it.
        return


def _lost(error: Any) -> str:
    """Say which process was lost.

    Raises:
        UserError: If none was, but the training cannot be.
        Exception: Of a bug.
    """
    failures: Mapping[int, Any] = getattr(error, 'worker_failures', {})
    # Ray may wrap what a process raises; one that is gone has an error of Ray.
    errors = {n: getattr(one, '_base_exc', one) for n, one in failures.items()}
    raised = {
        n: None if type(one).__module__.startswith('ray.') else one
        for n, one in errors.items()
    }
    for one in raised.values():
        if isinstance(one, _TOLD):
            raise UserError(str(one)) from error
    if any(one is not None and not _of_another(one) for one in raised.values()):
        raise error
    gone = [str(rank) for rank, one in raised.items() if one is None]
    return f'process {", ".join(gone) or "?"} (from 0) was lost'


def _of_another(error: BaseException) -> bool:
    """Whether it is what a process meets when another one is gone."""
    return isinstance(error, torch.distributed.DistError) or 'gloo' in str(error)
