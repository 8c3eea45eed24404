"""From the content of a file to tensors by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...errors import CheckpointError, printable
from .values import once

_T = TypeVar('_T')
# Keys under which training scripts store the weights. Averaged weights come first,
# as they are the better ones. mmengine's `ema_state_dict` comes last: its EMAHook
# swaps the two when it saves, so that `state_dict` holds the averaged weights.
_WRAPPERS = (
    'state_dict_ema', 'model_ema', 'params_ema', 'ema', 'teacher',
    'state_dict', 'model_state_dict', 'model_state', 'model', 'net', 'network',
    'params', 'module', 'weights', 'student', 'ema_state_dict',
)  # fmt: skip
_DEPTH = 4
_PREFIXES = ('module.', '_orig_mod.')
# Of averaged models, beside the tensors.
_COUNTERS = ('steps', 'n_averaged')
# Tensors may share or repeat storage, within reason.
_LARGEST_RATIO = 8
_SLACK = 1 << 26
_NAMED = 5
_LONGEST_NAME = 1000
_LONGEST_SHOWN = 60


def unwrap(content: Any, source: str) -> tuple[dict[str, Tensor], str | None]:
    """Take off what training scripts put around the weights.

    ``module.`` of data-parallel runs and ``_orig_mod.`` of ``torch.compile`` are
    removed from the names if every name carries them.

    Args:
        content: As it was saved.
        source: Of the file, for messages.

    Returns:
        The tensors, and the keys under which they stood, joined by dots, or None.

    Raises:
        CheckpointError: If there are no tensors with names, or tensors that cannot
            be copied into a net.
    """
    path: list[str] = []
    inner = content
    while len(path) < _DEPTH and (key := _wrapper(inner)) is not None:
        path.append(printable(key))
        inner = inner[key]
    tensors = loadable(inner, source) if isinstance(inner, Mapping) else {}
    if not tensors:
        raise CheckpointError(
            f"'{source}' holds no weights: expected tensors by name, or those under "
            f'one of {", ".join(_WRAPPERS)}; got {_describe(content)}'
        )
    return without_prefixes(tensors), '.'.join(path) or None


def without_prefixes(tensors: dict[str, _T]) -> dict[str, _T]:
    """Remove what wrappers of a net put before every name.

    Args:
        tensors: Tensors, or their shapes, by name.

    Returns:
        The same without ``module.`` and ``_orig_mod.``, however often they stand
        there, and without the counter of an averaged model.
    """
    averaged = {k: v for k, v in tensors.items() if k not in _COUNTERS}
    if averaged and all(key.startswith('module.') for key in averaged):
        tensors = averaged
    for prefix in _PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            return without_prefixes(
                {k.removeprefix(prefix): v for k, v in tensors.items()}
            )
    return tensors


def check_names(names: Iterable[str], source: str) -> None:
    """Refuse names of tensors that no net has, and no terminal shows.

    Raises:
        CheckpointError: If there are any.
    """
    bad = [f'{_name(name)} {what}' for name in names if (what := _bad_name(name))]
    if bad:
        raise CheckpointError(
            f"'{source}' is not used, as no net has such names: "
            f'{", ".join(bad[:_NAMED])}'
        )


def check_size(
    state_dict: Mapping[str, Tensor], size: int, source: str, copied: bool = True
) -> None:
    """Refuse tensors that claim far more memory than the file of ``size`` bytes has.

    Args:
        state_dict: Tensors by name.
        size: Of the file.
        source: Of the file, for the message.
        copied: Whether they go into a net, where what ``expand`` repeats takes memory.

    Raises:
        CheckpointError: If they do.
    """
    tensors = state_dict.values() if copied else map(once, state_dict.values())
    claimed = sum(t.numel() * t.element_size() for t in tensors)
    if claimed > size * _LARGEST_RATIO + _SLACK:
        raise CheckpointError(
            f"'{source}' is not used: its {size} bytes claim tensors of {claimed} "
            'bytes, which no weights do'
        )


def _wrapper(content: Any) -> str | None:
    """Name the key under which the weights stand, None if they stand here."""
    if not isinstance(content, Mapping):
        return None
    seen: dict[tuple[int, int], bool] = {}
    for key in _WRAPPERS:
        if _holds_tensors(content.get(key), _DEPTH, seen):
            return key
    if _holds_tensors(content, 1, seen):
        return None
    keys = [key for key, value in content.items() if _holds_tensors(value, 1, seen)]
    return keys[0] if len(keys) == 1 and isinstance(keys[0], str) else None


def _holds_tensors(content: Any, depth: int, seen: dict[tuple[int, int], bool]) -> bool:
    """Whether there is a tensor in a dict, or in a dict that it wraps."""
    if not isinstance(content, Mapping) or depth == 0:
        return False
    # The same dict may stand under every key, on every floor.
    place = id(content), depth
    if place not in seen:
        seen[place] = any(
            isinstance(value, (Tensor, np.ndarray)) for value in content.values()
        ) or any(_holds_tensors(content.get(key), depth - 1, seen) for key in _WRAPPERS)
    return seen[place]


def loadable(content: Mapping[Any, Any], source: str) -> dict[str, Tensor]:
    """Take the tensors out of a dict.

    Raises:
        CheckpointError: If there are some that no net takes.
    """
    found, problems = {}, []
    for key, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in 'fiub':
            value = torch.from_numpy(value)
        if not isinstance(value, Tensor):
            continue
        problem = _problem(key, value)
        if problem:
            problems.append(f'{_name(key)} {problem}')
        else:
            found[key] = value.detach() if value.requires_grad else value
    if problems:
        more = f', and {len(problems) - _NAMED} more' if len(problems) > _NAMED else ''
        raise CheckpointError(
            f"'{source}' holds tensors that cannot be loaded: "
            f'{", ".join(problems[:_NAMED])}{more}. Save dense float tensors by name: '
            'torch.save(model.state_dict(), path) of the float model'
        )
    return found


def _bad_name(name: str) -> str | None:
    """Say what is wrong with a name that no net has, and no terminal shows."""
    if len(name) > _LONGEST_NAME:
        return f'has a name of {len(name)} characters'
    return None if name.isprintable() else 'has control characters in its name'


def _name(key: Any) -> str:
    # The text of any other object may be of any length.
    if not isinstance(key, (str, int)):
        return f'a {type(key).__name__}'
    return printable(str(key), _LONGEST_SHOWN)


def _problem(key: Any, value: Tensor) -> str | None:
    if not isinstance(key, str):
        return f'is named by a {type(key).__name__}, not by text'
    if bad := _bad_name(key):
        return bad
    if value.is_quantized:
        return f'is quantised ({value.dtype})'
    if value.layout != torch.strided:
        return f'is sparse ({value.layout})'
    if value.is_meta:
        return 'has a shape and no data'
    return None


def _describe(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f'a {type(content).__name__}'
    keys = [_name(key) for key, _ in zip(content, range(_NAMED), strict=False)]
    more = ', ...' if len(content) > _NAMED else ''
    return f'a dict of {", ".join(keys) or "nothing"}{more}'
