"""What a net would keep as it was drawn: frozen parts that a file does not fill."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...compat.batch_norm import is_batch_norm
from ...levels import ALL
from ..names.dialect import is_computed
from .report import some

if TYPE_CHECKING:
    from .target import Target

FIXED_NORMS = ('FrozenBN', 'FrozenBatchNorm2d', 'FrozenBatchNormAct2d')


def frozen_problem(
    backbone: Target, loaded: Collection[str]
) -> tuple[str, tuple[str, ...]]:
    """Name what would stay as it was drawn and never train.

    A fresh layer or group normalisation is left out: it normalises by the numbers it
    sees and changes nothing else.

    Args:
        backbone: That the weights are for.
        loaded: Keys that would be.

    Returns:
        The problem and what to write in the backbone; both empty if there is none.
    """
    missing = {
        key
        for key in backbone.state_dict()
        if key not in loaded and not is_computed(key) and not _is_neutral(backbone, key)
    }
    problems, lines = [], []
    frozen = _frozen_keys(backbone)
    by_stage = {stage: sorted(keys & missing) for stage, keys in frozen.items()}
    stages = [stage for stage, keys in by_stage.items() if keys]
    if stages:
        keys = [key for stage in stages for key in by_stage[stage]]
        problems.append(
            f'{_cause(backbone)} freezes random values in stage '
            f'{", ".join(map(str, stages))}: {some(keys)}'
        )
        lines.append('lora=None' if backbone.lora else f'frozen_stages={stages[0] - 1}')
    fixed = sorted(missing & _fixed_statistics(backbone))
    if fixed:
        problems.append(
            'batch normalisation that never trains '
            f'({"norm_eval=True" if backbone.norm_eval else "a frozen kind"}) has no '
            f'values in the file, so that nothing is normalised: {some(fixed)}'
        )
        lines.append('norm_eval=False' if backbone.norm_eval else 'ordinary BN')
    return '; '.join(problems), tuple(lines)


def _frozen_keys(backbone: Target) -> dict[int, set[str]]:
    """Keys of the frozen stages."""
    names: dict[int, list[str]] = {}
    for name, tensor in _tensors(backbone):
        names.setdefault(id(tensor), []).append(name)
    whole = backbone.frozen_stages == ALL or backbone.lora is not None
    stages = backbone.built_stages() if whole else _stages(backbone)
    found = {
        stage: {
            name
            for part in parts
            for tensor in _tensors_of(part)
            for name in names.get(id(tensor), ())
        }
        for stage, parts in enumerate(stages)
    }
    if whole:
        # What belongs to no stage, such as the normalisation of an output, is on top.
        every = {name for held in names.values() for name in held}
        found[max(found)] |= every.difference(*found.values())
    return found


def _cause(backbone: Target) -> str:
    return 'lora' if backbone.lora else f'frozen_stages={backbone.frozen_stages!r}'


def _stages(backbone: Target) -> list[Sequence[nn.Module | nn.Parameter]]:
    assert backbone.frozen_stages != ALL
    return [backbone.stage_modules(n) for n in range(backbone.frozen_stages + 1)]


def _tensors(module: nn.Module | Target) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _tensors_of(part: nn.Module | nn.Parameter) -> Iterable[Tensor]:
    if isinstance(part, nn.Module):
        yield from (tensor for _, tensor in _tensors(part))
    else:
        yield part


def _fixed_statistics(backbone: Target) -> set[str]:
    """Keys of the batch normalisations that use their statistics in training."""
    return {
        f'{name}.{leaf}'
        for name, module in backbone.named_modules(remove_duplicate=False)
        if (backbone.norm_eval and is_batch_norm(module))
        or type(module).__name__ in FIXED_NORMS
        for leaf in ('weight', 'bias', 'running_mean', 'running_var')
    }


def _is_neutral(backbone: Target, key: str) -> bool:
    owner, _, leaf = key.rpartition('.')
    module = backbone.get_submodule(owner)
    if not isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
        return False
    value = getattr(module, leaf)
    if value.is_meta:
        return True
    neutral = torch.ones_like(value) if leaf == 'weight' else torch.zeros_like(value)
    return torch.equal(value, neutral)
