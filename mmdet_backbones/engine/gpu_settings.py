"""Settings of a training that only GPUs can follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config

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
    for key, kind in _types(cfg.get('model'), 'model'):
        yield (
            f"{key}.type='{kind}': SyncBatchNorm runs on GPUs only; write "
            f"{key}.type='BN'"
        )


def _types(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        if node.get('type') in _SYNC_BN:
            yield path, node['type']
        for key, value in node.items():
            yield from _types(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _types(value, f'{path}.{index}')
