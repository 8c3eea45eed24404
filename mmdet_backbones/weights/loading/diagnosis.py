"""Why weights do not fit, and the line to write."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...shapes.build import weightless
from ..names.dialect import is_computed
from ..names.kinds import differ, kind_of
from .matching import Match, all_prefixes, match
from .report import LoadReport

if TYPE_CHECKING:
    from .target import Target

_FIXED_NORMS = ('FrozenBN', 'FrozenBatchNorm2d', 'FrozenBatchNormAct2d')
_NAMED = 5
# Variants that are tried; each takes some milliseconds to build without weights.
_MOST = 20
_ENOUGH = 0.95


def refusal(
    backbone: Target,
    report: LoadReport,
    state_dict: Mapping[str, Tensor],
    min_coverage: float,
) -> str:
    """Say why weights that cover too little of a backbone do not fit.

    Args:
        backbone: That the weights are for.
        report: Of what would be loaded.
        state_dict: Of the file.
        min_coverage: What was asked for.

    Returns:
        The message: what would be loaded, the cause, and what to write.
    """
    name = type(backbone).__name__
    cause = (
        _prefix(backbone, report, state_dict)
        or _other_kind(backbone, state_dict)
        or _other_size(backbone, state_dict)
        or _unknown(report, state_dict)
    )
    share = int(report.coverage * 100) / 100
    return (
        f'{report.coverage:.1%} of the parameters of {name} would be loaded, at least '
        f'{min_coverage:.0%} are needed.\n{report}\n{cause}\n'
        "To accept the file as it is write init_cfg=dict(type='Pretrained', "
        f"checkpoint='{report.source}', min_coverage={share})"
    )


def _prefix(
    backbone: Target, report: LoadReport, state_dict: Mapping[str, Tensor]
) -> str | None:
    expected = backbone.state_dict()
    wanted = sum(not is_computed(key) for key in expected)
    candidates = ['']
    for prefix in all_prefixes(state_dict):
        inside = sum(key.startswith(prefix) for key in state_dict)
        if 2 * inside >= wanted:
            candidates.append(prefix)
    found = match(state_dict, expected, backbone.dialects, candidates)
    coverage = found.coverage(expected)
    if coverage < 0.5 or coverage <= report.coverage:
        return None
    return (
        f"Cause: the prefix. Under '{found.prefix}' the file covers {coverage:.1%}: "
        f"write init_cfg=dict(type='Pretrained', checkpoint='{report.source}', "
        f"prefix='{found.prefix}')"
    )


def _other_kind(backbone: Target, state_dict: Mapping[str, Tensor]) -> str | None:
    here, there = kind_of(_names(backbone)), kind_of(state_dict)
    if not differ(here, there):
        return None
    text = f'Cause: another architecture. The file looks like a {there}, the net is a '
    text += f'{here}: write a checkpoint of a {here}'
    if (here, there) == ('ShuffleNetV2', 'ShuffleNetV1'):
        width = getattr(backbone, 'widen_factor', 1.0)
        text += (
            '. The checkpoint `shufflenet_v1_...` is not for V2; for example write '
            f"checkpoint='torchvision://shufflenet_v2_x{str(width).replace('.', '_')}'"
        )
    return text


def _names(backbone: Target) -> list[str]:
    """Names of the backbone as its source has them, without wrappers."""
    names = list(backbone.state_dict())
    for dialect in backbone.dialects:
        if dialect.name in ('timm', 'torchvision'):
            return list(dialect.spell(names).values())
    return names


def _other_size(backbone: Target, state_dict: Mapping[str, Tensor]) -> str | None:
    if kind_of(state_dict) is None:
        return None
    found = _fitting_variant(backbone, state_dict)
    if found is None:
        return None
    name, arguments = found
    mine = getattr(backbone, 'model_name', None) or _own_variant(backbone)
    if mine is not None and mine.partition('.')[0] == name:
        return None
    return (
        f'Cause: another width or depth. The file is a {name}, the net '
        f'{f"a {mine}" if mine else "is none"}: write {arguments} in the backbone, or '
        f'a checkpoint of {"a " + mine if mine else "the net"}'
    )


def deeper_refusal(
    backbone: Target, found: Match, state_dict: Mapping[str, Tensor]
) -> str:
    """Refuse the file of a deeper net, in which a shallow one finds all it needs.

    Args:
        backbone: That the weights are for.
        found: What would be loaded.
        state_dict: Of the file.

    Returns:
        The message, empty if the file has no blocks between those that are used.
    """
    used = {name for entry in found.found.values() for name in entry.names}
    blocks = {block for name in used for block in _blocks(name)}
    containers = {container for container, _ in blocks}
    order = list(state_dict)
    last = max((i for i, name in enumerate(order) if name in used), default=-1)
    rest = {found.prefix + name for name in found.unexpected}
    between = [
        name
        for name in order[:last]
        if name in rest
        and any(b not in blocks and b[0] in containers for b in _blocks(name))
    ]
    if not between:
        return ''
    cause = _other_size(backbone, state_dict)
    if cause is None:
        return ''
    return (
        f'The file has blocks that {type(backbone).__name__} lacks, between those it '
        f'has: {_some(between)}. {cause}'
    )


def _blocks(name: str) -> list[tuple[str, str]]:
    """Numbers in the name of a parameter, each with what stands before it."""
    parts = name.split('.')
    return [
        ('.'.join(parts[:i]), part)
        for i, part in enumerate(parts)
        if part.isdigit() and i
    ]


def _own_variant(backbone: Target) -> str | None:
    found = _fitting_variant(backbone, backbone.state_dict())
    return found[0] if found is not None else None


def _fitting_variant(
    backbone: Target, state_dict: Mapping[str, Tensor]
) -> tuple[str, str] | None:
    """Find the net of the same class that a checkpoint was made for.

    Returns:
        The name of the net and the arguments to write, or None.
    """
    best: tuple[int, str, str] | None = None
    for name, arguments in islice(_variants(backbone), _MOST):
        expected = _shapes(backbone, arguments)
        if not expected:
            continue
        found = match(state_dict, expected, backbone.dialects)
        if found.coverage(expected) < _ENOUGH:
            continue
        # A shallow net finds all it needs in the file of a deep one.
        left = len(found.unexpected)
        if best is None or left < best[0]:
            text = ', '.join(f'{k}={v!r}' for k, v in arguments.items())
            best = (left, name, text)
        if left == 0:
            break
    return best[1:] if best is not None else None


def _shapes(backbone: Target, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Names and shapes of the parameters of a net; none if it cannot be built."""
    kind = type(backbone).__name__
    name = arguments.get('model_name')
    try:
        with weightless():
            if kind not in _LIBRARIES or name is None:
                return type(backbone)(**arguments).state_dict()
            net, root = _LIBRARIES[kind](name)
    except (ValueError, TypeError, RuntimeError, NotImplementedError):
        return {}
    # Whole nets, as finding the levels of each would take a second.
    return {
        f'{root}{key}': value
        for key, value in net.state_dict().items()
        if not any(d.is_head(key) for d in backbone.dialects[:1])
    }


def _timm(name: str) -> tuple[nn.Module, str]:
    import timm

    return timm.create_model(name), 'timm_model.'


def _torchvision(name: str) -> tuple[nn.Module, str]:
    from torchvision import models

    return models.get_model(name, weights=None), 'body.'


_LIBRARIES = {'TIMMBackbone': _timm, 'TorchvisionBackbone': _torchvision}


def _variants(backbone: Target) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, arguments in type(backbone).variants.items():
        yield name, dict(arguments)
    model = getattr(backbone, 'model_name', None)
    kind = type(backbone).__name__
    names = _siblings(kind, model) if isinstance(model, str) else []
    for name in names:
        yield name, dict(model_name=name)


def _siblings(kind: str, model: str) -> list[str]:
    """Names of the models that differ from one in numbers and sizes only."""
    if kind == 'TIMMBackbone':
        import timm

        names = timm.list_models()
    else:
        from torchvision import models

        names = models.list_models(module=models)
    stem = _stem(model)
    return sorted((n for n in names if _stem(n) == stem), key=lambda n: (len(n), n))


def _stem(name: str) -> str:
    """Letters at the start: `resnet` of `resnet50`, `convnext` of `convnext_tiny`."""
    found = re.match(r'[a-z]+(?:v\d)?', name)
    return found[0] if found else name


def _unknown(report: LoadReport, state_dict: Mapping[str, Tensor]) -> str:
    loaded = any(stage.tensors for stage in report.stages.values())
    if report.mismatched and 2 * len(report.mismatched) > len(report.missing):
        return 'Cause: the names fit and the shapes do not, another width or depth'
    keys = ', '.join(list(state_dict)[:3])
    if not loaded:
        return f'Cause: no name fits. The file has {keys}, ...: another net'
    return 'Cause: the file has only a part of this net'


def frozen_refusal(
    backbone: Target, report: LoadReport, loaded: Collection[str]
) -> str:
    """Name what would stay as it was drawn and never train.

    A fresh layer or group normalisation is left out: it normalises by the numbers it
    sees and changes nothing else.

    Args:
        backbone: That the weights are for.
        report: Of what would be loaded.
        loaded: Keys that would be.

    Returns:
        The message, empty if there is nothing.
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
            f'frozen_stages={backbone.frozen_stages} freezes random values in stage '
            f'{", ".join(map(str, stages))}: {_some(keys)}'
        )
        lines.append(f'frozen_stages={stages[0] - 1}')
    fixed = sorted(missing & _fixed_statistics(backbone))
    if fixed:
        problems.append(
            'batch normalisation that never trains '
            f'({"norm_eval=True" if backbone.norm_eval else "a frozen kind"}) has no '
            f'values in the file, so that nothing is normalised: {_some(fixed)}'
        )
        lines.append('norm_eval=False' if backbone.norm_eval else 'ordinary BN')
    if not problems:
        return ''
    return (
        f'{report}\n{"; ".join(problems)}. Write a checkpoint that has them, or '
        f'{", ".join(lines)} in the backbone; to keep it so write '
        f"init_cfg=dict(type='Pretrained', checkpoint='{report.source}', "
        'allow_random_frozen=True)'
    )


def _some(keys: Collection[str]) -> str:
    shown = list(keys)[:_NAMED]
    more = f', ... ({len(keys)} tensors)' if len(keys) > _NAMED else ''
    return f'{", ".join(shown)}{more}'


def _frozen_keys(backbone: Target) -> dict[int, set[str]]:
    """Keys of the frozen stages."""
    names: dict[int, list[str]] = {}
    for name, tensor in _tensors(backbone):
        names.setdefault(id(tensor), []).append(name)
    return {
        stage: {
            name
            for part in backbone.stage_modules(stage)
            for tensor in _tensors_of(part)
            for name in names.get(id(tensor), ())
        }
        for stage in range(backbone.frozen_stages + 1)
    }


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
        if (backbone.norm_eval and isinstance(module, _BatchNorm))
        or type(module).__name__ in _FIXED_NORMS
        for leaf in ('weight', 'bias', 'running_mean', 'running_var')
    }


def _is_neutral(backbone: Target, key: str) -> bool:
    owner, _, leaf = key.rpartition('.')
    module = backbone.get_submodule(owner)
    if not isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
        return False
    value = getattr(module, leaf)
    neutral = torch.ones_like(value) if leaf == 'weight' else torch.zeros_like(value)
    return torch.equal(value, neutral)
