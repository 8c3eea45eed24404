"""Find which tensor of a checkpoint belongs to which one of a backbone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..names.dialect import OWN, Dialect

# Under what the programs of self-supervised training, of detection and of the
# transformers library keep a backbone. The first of two that fit alike is taken.
PREFIXES = (
    '',
    'backbone.',
    'backbone.body.',
    'backbone.bottom_up.',
    'model.backbone.',
    'encoder.',
    'encoder_q.',
    'encoder_q.0.',
    'base_encoder.',
    'online_net.0.',
    'online_net.backbone.',
    'target_net.0.',
    'teacher.backbone.',
    'teacher.',
    'student.backbone.',
    'student.',
    'momentum_encoder.',
    'img_backbone.',
    'image_encoder.',
    'visual.',
    'trunk.',
    'model.',
    'resnet.',
    'swin.',
    'convnext.',
    'dinov2.',
    'basenet.',
)
# mmcls and mmcv keep averaged weights as buffers, whose names must have no dots.
_AVERAGED = 'ema_'

# What a net computes from its own arguments. The counter of batch normalisation is
# missing in older files and has no influence with a fixed momentum.
_COMPUTED = re.compile(
    r'(?:^|\.)(?:num_batches_tracked|relative_position_index|rel_position_index|'
    r'relative_coords_table|attn_mask|position_ids)$'
)


def is_computed(key: str) -> bool:
    """Tell whether a net computes this tensor by itself, so that nothing is missed."""
    return _COMPUTED.search(key) is not None


@dataclass(frozen=True)
class Found:
    """A tensor of a file in the place of one of a backbone.

    Attributes:
        names: In the file; several are stacked along the first dimension.
        shape: In the form of the backbone.
        make: Makes the tensor; it shares memory with the file's where it can.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


@dataclass(frozen=True)
class Match:
    """A checkpoint laid over a backbone.

    Attributes:
        dialect: In which the names of the file were understood.
        prefix: Under which the weights stand.
        found: Tensors by key of the backbone, whatever their shape.
        heads: Number of tensors of the classifier.
        unexpected: Other names, without the prefix, that nothing in the backbone has.
        outside: Number of tensors that do not stand under the prefix.
    """

    dialect: Dialect = OWN
    prefix: str = ''
    found: dict[str, Found] = field(default_factory=dict)
    heads: int = 0
    unexpected: tuple[str, ...] = ()
    outside: int = 0

    def coverage(self, expected: Mapping[str, Tensor]) -> float:
        """Share of the parameters and statistics whose names and shapes fit."""
        sizes = {k: v.numel() for k, v in expected.items() if not is_computed(k)}
        loaded = sum(
            size
            for key, size in sizes.items()
            if key in self.found and self.found[key].shape == tuple(expected[key].shape)
        )
        return loaded / max(sum(sizes.values()), 1)


def match(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    dialects: Sequence[Dialect],
    prefixes: Iterable[str] = PREFIXES,
) -> Match:
    """Choose the prefix and the dialect under which most tensors find their place.

    Args:
        state_dict: Of the file.
        expected: Of the backbone.
        dialects: Those of its class; its own names are tried in any case.
        prefixes: What may stand before the names.

    Returns:
        The best match; without any tensor if nothing fits.
    """
    forward: dict[str, dict[str, tuple[str, ...]]] = {}
    best = (0, 0, Match(unexpected=tuple(state_dict)))
    views: dict[str, dict[str, str]] = {}
    for prefix in prefixes:
        keys = [key for key in state_dict if key.startswith(prefix)]
        if keys:
            views[prefix] = {key[len(prefix) :]: key for key in keys}
    for prefix, view in views.items():
        for dialect in _candidates(dialects, view):
            renewed = {new: view[old] for new, old in dialect.renew(view).items()}
            if dialect.through is not None or dialect.name not in forward:
                forward[dialect.name] = dialect.names(expected, renewed)
            names = forward[dialect.name]
            score = _score(names, renewed, expected, state_dict)
            if score > best[:2]:
                found = _collect(names, renewed, expected, state_dict, dialect)
                best = (*score, Match(dialect, prefix, found))
    averaged = _averaged(state_dict, expected, best)
    chosen = averaged or best[2]
    return _with_rest(chosen, state_dict)


def _candidates(dialects: Sequence[Dialect], view: Mapping[str, str]) -> list[Dialect]:
    return [OWN, *(d for d in dialects if d.fits(view))]


def _score(
    names: Mapping[str, tuple[str, ...]],
    renewed: Mapping[str, str],
    expected: Mapping[str, Tensor],
    state_dict: Mapping[str, Tensor],
) -> tuple[int, int]:
    """Count the names that fit, then those that also have the right size."""
    fitting, sized = 0, 0
    for key, parts in names.items():
        if key in expected and all(part in renewed for part in parts):
            fitting += 1
            numel = sum(state_dict[renewed[part]].numel() for part in parts)
            sized += numel == expected[key].numel()
    return fitting, sized


def _collect(
    names: Mapping[str, tuple[str, ...]],
    renewed: Mapping[str, str],
    expected: Mapping[str, Tensor],
    state_dict: Mapping[str, Tensor],
    dialect: Dialect,
) -> dict[str, Found]:
    found = {}
    for key in expected:
        parts = names.get(key, ())
        if parts and all(part in renewed for part in parts):
            files = tuple(renewed[part] for part in parts)
            found[key] = _source(key, parts[0], files, state_dict, dialect)
    return found


def _source(
    key: str,
    name: str,
    files: tuple[str, ...],
    state_dict: Mapping[str, Tensor],
    dialect: Dialect,
) -> Found:
    tensors = [state_dict[file] for file in files]
    change = dialect.reader(key, name)

    def make() -> Tensor:
        # Late, so that no more than one tensor is held twice.
        tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        return tensor if change is None else change(tensor)

    if change is not None:
        shape = tuple(make().shape)
    elif len(tensors) > 1:
        shape = (sum(t.shape[0] for t in tensors), *tensors[0].shape[1:])
    else:
        shape = tuple(tensors[0].shape)
    return Found(files, shape, make)


def _averaged(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    best: tuple[int, int, Match],
) -> Match | None:
    """Take mmcls' averaged copies if the file has nothing else under these names."""
    if not any(key.startswith(_AVERAGED) for key in state_dict):
        return None
    for prefix in (f'{_AVERAGED}backbone_', _AVERAGED):
        found = {}
        for key in expected:
            name = prefix + key.replace('.', '_')
            if name in state_dict:
                tensor = state_dict[name]
                shape = tuple(tensor.shape)
                found[key] = Found((name,), shape, lambda t=tensor: t)  # type: ignore[misc]
        if len(found) > best[0]:
            return Match(OWN, prefix, found)
    return None


def _with_rest(chosen: Match, state_dict: Mapping[str, Tensor]) -> Match:
    """Say what becomes of the tensors that have no place."""
    used = {name for found in chosen.found.values() for name in found.names}
    heads, outside, unexpected = 0, 0, []
    for key in state_dict:
        if key in used:
            continue
        if not key.startswith(chosen.prefix):
            outside += 1
            continue
        short = key[len(chosen.prefix) :]
        if chosen.dialect.is_head(short):
            heads += 1
        elif not is_computed(short) and not short.startswith(_AVERAGED):
            unexpected.append(short)
        elif short.startswith(_AVERAGED):
            outside += 1
    return Match(
        chosen.dialect, chosen.prefix, chosen.found, heads, tuple(unexpected), outside
    )


def all_prefixes(state_dict: Mapping[str, Any]) -> Iterator[str]:
    """Name everything that may be a prefix in a file, the shortest first."""
    found: dict[str, None] = {}
    for depth in range(1, 5):
        for key in state_dict:
            parts = key.split('.')
            if len(parts) > depth + 1:
                found['.'.join(parts[:depth]) + '.'] = None
    yield from list(found)[:400]
