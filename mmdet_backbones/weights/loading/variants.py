"""Of which net a file is, among those that are like the one that takes it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher, get_close_matches
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...shapes.build import on_meta
from ..names.dialect import is_computed, is_resized
from ..names.libraries import INTO_TIMM, without_root
from .matching import match

if TYPE_CHECKING:
    from .target import Target

# Variants that are tried; each takes some milliseconds to build without weights.
_MOST = 20
_ENOUGH = 0.95
# Models of timm that are laid beside a file, those of a similar name.
_MOST_ALIKE = 40
_ALIKE = 0.5
# Tensors of classifiers and of their copies, in the file of a net.
_MOST_MORE = 8


def variant_of(backbone: Target) -> str | None:
    """Name a net as its family or its library does, None if it is none of these."""
    name = getattr(backbone, 'model_name', None)
    if isinstance(name, str):
        return name.partition('.')[0]
    found = fitting_variant(backbone, backbone.state_dict())
    return found[0] if found is not None else None


def fitting_variant(
    backbone: Target, state_dict: Mapping[str, Tensor], exactly: bool = False
) -> tuple[str, str] | None:
    """Find the net of the same class that a checkpoint was made for.

    Args:
        backbone: Of that class.
        state_dict: Of the file.
        exactly: Take no net that lacks a tensor of the file, or has one more.

    Returns:
        The name of the net and the arguments to write, or None.
    """
    best: tuple[int, str, str] | None = None
    for name, arguments in islice(_variants(backbone), _MOST):
        expected = _shapes(backbone, arguments)
        if not expected:
            continue
        found = match(state_dict, expected, backbone.dialects)
        share = found.coverage(expected)
        if share < _ENOUGH or (exactly and (found.unexpected or share < 1)):
            continue
        # A shallow net finds all it needs in the file of a deep one.
        left = len(found.unexpected)
        if best is None or left < best[0]:
            text = ', '.join(f'{k}={v!r}' for k, v in arguments.items())
            best = (left, name, text)
        if left == 0:
            break
    return best[1:] if best is not None else None


def is_same_net(backbone: Target, state_dict: Mapping[str, Tensor]) -> bool:
    """Tell whether a file has all tensors of a net and few others, by their shapes."""
    needed, theirs = _multiset(backbone.state_dict()), _multiset(state_dict)
    more = (theirs - _multiset(backbone.uncut() or backbone.state_dict())).total()
    return not needed - theirs and more <= max(_MOST_MORE, needed.total() // 20)


def _multiset(state_dict: Mapping[str, Tensor]) -> Counter[tuple[int, ...]]:
    """Count shapes as they are in every source: without ones, queries by themselves."""
    shapes = [
        tuple(side for side in tensor.shape if side > 1)
        for key, tensor in state_dict.items()
        if not is_computed(key) and not is_resized(key)
    ]
    joined = {s[0] for s in shapes if len(s) == 2 and s[0] == 3 * s[1]}
    counts: Counter[tuple[int, ...]] = Counter()
    for shape in shapes:
        width = shape[0] // 3 if shape else 0
        if shape[:1] and shape[0] in joined and shape[1:] in ((), (width,)):
            counts[(width, *shape[1:])] += 3
        else:
            counts[shape] += 1
    return counts


def namesake(like: str, prefix: str, state_dict: Mapping[str, Tensor]) -> str | None:
    """Find the model of timm that has exactly the tensors of a file.

    Args:
        like: Name of a similar model.
        prefix: Under which the tensors stand in the file.
        state_dict: Of the file.
    """
    import timm

    file = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    there = _body(file)
    for name in get_close_matches(like, timm.list_models(), _MOST_ALIKE, _ALIKE):
        if _body_of_model(name) == there:
            return name
    return None


@lru_cache(maxsize=4 * _MOST_ALIKE)
def _body_of_model(name: str) -> dict[str, torch.Size]:
    import timm

    return _body(on_meta(lambda: timm.create_model(name)).state_dict())


def _body(state_dict: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    timm_names = INTO_TIMM[0]
    return {
        key: value.shape
        for key, value in state_dict.items()
        if not timm_names.is_head(key) and not is_computed(key)
    }


def _shapes(backbone: Target, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Names and shapes of the parameters of a net; none if it cannot be built."""
    whole = _whole(type(backbone), tuple(arguments.items()))
    # TIMMBackbone makes its dialects anew every time that they are asked for.
    own = backbone.dialects[:1]
    return {
        key: value
        for key, value in whole.items()
        if not any(dialect.is_head(without_root(key)) for dialect in own)
    }


@lru_cache(maxsize=4 * _MOST)
def _whole(
    kind: type[Target], arguments: tuple[tuple[str, Any], ...]
) -> Mapping[str, Tensor]:
    try:
        return kind.whole(**dict(arguments))
    except (ValueError, RuntimeError, NotImplementedError):
        return {}


def _variants(backbone: Target) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, arguments in type(backbone).variants.items():
        yield name, dict(arguments)
    model = getattr(backbone, 'model_name', None)
    kind = type(backbone).__name__
    names = _siblings(kind, model) if isinstance(model, str) else []
    for name in names:
        yield name, dict(model_name=name)


def _siblings(kind: str, model: str) -> list[str]:
    """Names of the models of one family, the most similar to one first."""
    if kind == 'TIMMBackbone':
        import timm

        names = timm.list_models()
    else:
        from torchvision import models

        names = models.list_models(module=models)
    stem = _stem(model)
    alike = {
        n: SequenceMatcher(None, n, model).ratio() for n in names if _stem(n) == stem
    }
    return sorted(alike, key=lambda name: (-alike[name], name))


def _stem(name: str) -> str:
    """Letters at the start: `resnet` of `resnet50`, `convnext` of `convnext_tiny`."""
    found = re.match(r'[a-z]+(?:v\d)?', name)
    return found[0] if found else name
