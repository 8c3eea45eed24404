"""Weights of a backbone of another library, whose loader loses some in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import getmodule
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..compat.batch_norm import is_batch_norm
from ..detector_config.detector import DetectorConfig
from ..detector_config.tree import type_name
from ..detector_config.weights import Pretrained
from ..weights.loading.frozen import FIXED_NORMS
from ..weights.loading.matching import all_prefixes
from ..weights.loading.report import percent, some
from ..weights.loading.unchecked import lay_over, taken_by_mmengine
from ..weights.names.dialect import is_resized
from ..weights.names.kinds import differ, kind_of
from ..weights.reading.reader import Saved, read_saved
from ..weights.reading.unwrap import unwrap
from .findings import Finding, line

# Below which share of a foreign class's parameters nothing useful is loaded.
_MIN_COVERAGE = 0.95


def check_host_file(
    detector: DetectorConfig, weights: Pretrained, path: Path, key: str
) -> Iterator[Finding]:
    """Report a file that leaves a part of a backbone random, whose class is not ours.

    Args:
        detector: The config.
        weights: What is said about the file.
        path: Of the file.
        key: Place in the config that says so.

    Raises:
        CheckpointError: If the file cannot be read.
    """
    net = detector.net
    saved = read_saved(path, weights.checkpoint)
    tensors = _taken(net, weights, saved)
    prefix = f'{weights.prefix.removesuffix(".")}.' if weights.prefix else ''
    if _reads(net):
        prefix = ''  # which it takes no notice of
    inside = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
    laid = lay_over(net, inside)
    # Classes that read the file themselves fit tables to other windows.
    fits = {e.name for e in laid.mismatched if _reads(net) and is_resized(e.name)}
    lost = [name for name in laid.lost if name not in fits]
    sizes = {name: net.state_dict()[name].numel() for name in laid.expected}
    share = 1 - sum(sizes[name] for name in lost) / max(sum(sizes.values()), 1)
    never = never_trained(net)
    frozen = [name for name in lost if name in never and not is_resized(name)]
    if share >= _MIN_COVERAGE and not frozen:
        return
    here, there = kind_of(net.state_dict()), kind_of(tensors)
    problem = (
        f'{percent(share)} of the parameters of {type_name(detector.backbone)} would '
        f'be loaded from {weights.checkpoint}, without an error. '
    )
    if share >= _MIN_COVERAGE:
        problem += f'Without values, and frozen, are {some(frozen)}. '
    elif differ(here, there):
        problem += f'the file looks like a {there}, the net is a {here}. '
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    fitting = fitting_prefix(net, shapes) if weights.key == 'init_cfg' else None
    cure: tuple[str, ...] = ()
    if fitting not in (None, prefix):
        cure = (line(f'{key}.prefix', str(fitting).removesuffix('.') or None),)
    yield Finding('weights', key, problem, cure)


def _reads(net: nn.Module) -> bool:
    """Whether it is a class of mmdet that reads the checkpoint itself."""
    return hasattr(net, 'convert_weights')


def _taken(net: nn.Module, weights: Pretrained, saved: Saved) -> Mapping[str, Tensor]:
    """Tensors by the names under which the class looks for them."""
    if weights.key != 'init_cfg' and hasattr(net, 'timm_model'):
        # timm's own loader.
        tensors, _ = unwrap(saved.content, weights.checkpoint)
        return {f'timm_model.{name}': value for name, value in tensors.items()}
    if not saved.by_torch:
        return {}
    if not _reads(net):
        return taken_by_mmengine(saved.content)
    content: Any = saved.content
    tensors = next(
        (content[k] for k in ('state_dict', 'model') if k in content), content
    )
    module: Any = getmodule(type(net))
    if hasattr(module, 'pvt_convert'):
        return module.pvt_convert(tensors) if net.convert_weights else tensors
    if net.convert_weights:
        tensors = module.swin_converter(tensors)
    inside = 'backbone.'
    return {
        n.removeprefix(inside): t for n, t in tensors.items() if n.startswith(inside)
    }


def fitting_prefix(net: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Find the prefix under which most of a file's names are those of a net.

    Args:
        net: That takes the file.
        shapes: Of the tensors of the file.

    Returns:
        The prefix with its dot; None if fewer than half of the net's names are there.
    """
    names = set(net.state_dict())
    candidates = {'', *all_prefixes(shapes)}
    counts = {
        prefix: sum(prefix + name in shapes for name in names) for prefix in candidates
    }
    best = max(candidates, key=lambda prefix: (counts[prefix], -len(prefix)))
    return best if 2 * counts[best] >= len(names) else None


def never_trained(net: nn.Module) -> set[str]:
    """Name what training leaves as it is: frozen parameters, fixed statistics.

    Args:
        net: It is left in eval mode.
    """
    net.train()
    names = {name for name, p in net.named_parameters() if not p.requires_grad}
    for name, module in net.named_modules():
        fixed = type(module).__name__ in FIXED_NORMS
        if fixed or (is_batch_norm(module) and not module.training):
            names.update(f'{name}.{leaf}' for leaf in ('running_mean', 'running_var'))
    net.eval()
    return names
