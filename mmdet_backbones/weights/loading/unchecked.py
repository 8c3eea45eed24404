"""What mmengine's own loader takes of a file, and when a backbone has it stopped."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from ...errors import PretrainedWeightsError
from ..names.dialect import is_computed
from ..names.kinds import differ, kind_of
from .report import Mismatch, some
from .surplus import between

_SIZES = re.compile(r'size mismatch for (\S+): .*?\[([\d, ]*)\].*?\[([\d, ]*)\]')


class Laid(NamedTuple):
    """A file laid over a net by names and shapes.

    Attributes:
        expected: Names of the net, without what it computes by itself.
        missing: Those that the file lacks.
        mismatched: Those that it has in another shape.
        unexpected: Names of the file that the net has not.
    """

    expected: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]
    unexpected: tuple[str, ...]

    @property
    def lost(self) -> list[str]:
        """Names of the net that would keep their values, in its order."""
        lost = {*self.missing, *(entry.name for entry in self.mismatched)}
        return [name for name in self.expected if name in lost]

    def filled_below(self, part: str) -> set[str]:
        """Names within a part of the net, such as the backbone, that are filled."""
        lost = set(self.lost)
        names = (n.partition(f'{part}.') for n in self.expected if n not in lost)
        return {inside for before, found, inside in names if found}


def taken_by_mmengine(content: Any) -> dict[str, Tensor]:
    """Choose the tensors that mmengine's loader looks at.

    Args:
        content: Of a file, as it was saved.

    Returns:
        Those under ``state_dict``, or those on top, without ``module.``; mmengine
        knows no other key that weights stand under.
    """
    inner = content.get('state_dict', content) if isinstance(content, Mapping) else {}
    if not isinstance(inner, Mapping):
        return {}
    tensors = {
        re.sub(r'^module.', '', name): value
        for name, value in inner.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    found: Any = OrderedDict(tensors)
    # Versions of classes, by which they convert the names of old checkpoints.
    found._metadata = getattr(inner, '_metadata', {})
    return found


def lay_over(net: nn.Module, tensors: Mapping[str, Tensor]) -> Laid:
    """Find out what mmengine's loader would do with a file; nothing is loaded.

    Classes convert what they load by themselves, and do so here.

    Args:
        net: On the meta device.
        tensors: Of the file.
    """
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []
    versions: Mapping[str, Any] = getattr(tensors, '_metadata', None) or {}
    # On the meta device nothing is copied.
    shapes: dict[str, Tensor] = OrderedDict(
        (name, torch.empty_like(value, device='meta'))
        for name, value in tensors.items()
    )

    def load(module: nn.Module, given: dict[str, Tensor], prefix: str) -> None:
        version = versions.get(prefix[:-1], {})
        module._load_from_state_dict(
            given, prefix, version, True, missing, unexpected, errors
        )
        for name, child in module._modules.items():
            if child is not None:
                inside = f'{prefix}{name}.'
                below = {k: v for k, v in given.items() if k.startswith(inside)}
                load(child, below, inside)
        for hook in module._load_state_dict_post_hooks.values():
            hook(module, _IncompatibleKeys(missing, unexpected))

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        load(net, shapes, '')
    expected = tuple(name for name in net.state_dict() if not is_computed(name))
    sizes = [found for found in map(_SIZES.match, map(str.strip, errors)) if found]
    return Laid(
        expected,
        tuple(name for name in missing if not is_computed(name)),
        tuple(Mismatch(m[1], _shape(m[3]), _shape(m[2])) for m in sizes),
        tuple(dict.fromkeys(n for n in unexpected if not is_computed(n))),
    )


def require_all_of(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Make sure that loading a checkpoint of a detector fills its backbone.

    mmengine and mmdet's ``init_detector`` load with ``strict=False`` and warn.

    Args:
        net: The backbone.
        state_dict: What the checkpoint has under the name of the backbone.

    Raises:
        PretrainedWeightsError: If a tensor of the backbone would stay as it is, or the
            checkpoint is of a backbone whose blocks have more.
    """
    here = {n: v.shape for n, v in net.state_dict().items() if not is_computed(n)}
    there = {n: v.shape for n, v in state_dict.items() if not is_computed(n)}
    if here == there:
        return
    # Classes rename what older versions of them have saved.
    laid = lay_over(deepcopy(net).to('meta'), state_dict)
    more = between([*state_dict], laid.unexpected)
    if not laid.lost and not more:
        return
    kind, other = kind_of(net.state_dict()), kind_of(state_dict)
    problem = (
        f'The checkpoint is not of this detector: of {len(laid.expected)} tensors of '
        f'its backbone, {type(net).__name__}, it fills '
        f'{len(laid.expected) - len(laid.lost)}'
    )
    if laid.lost:
        problem += f', not {some(laid.lost)}'
    if more:
        problem += f', and has more for it, {some(more)}'
    if differ(kind, other):
        problem += f'. The file looks like a {other}, the backbone is a {kind}'
    raise PretrainedWeightsError(
        f'{problem}. Take the config that the checkpoint was trained with, which lies '
        'in the work folder beside it; weights of a backbone alone belong into '
        "backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=...))"
    )


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(',') if number.strip())
