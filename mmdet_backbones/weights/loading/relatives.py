"""Other nets of the class of a backbone, to find the one that a file belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .matching import match

if TYPE_CHECKING:
    from .target import Target

# Each takes some milliseconds to build without weights.
_MOST = 20
_ENOUGH = 0.95


def fitting_relative(
    backbone: Target, state_dict: Mapping[str, Tensor]
) -> tuple[str, str] | None:
    """Find the net of the same class that a checkpoint was made for.

    Args:
        backbone: For which the checkpoint is not.
        state_dict: Of the file.

    Returns:
        The name of the net and the arguments to write, or None.
    """
    best: tuple[int, str, str] | None = None
    for name, arguments in islice(_relatives(backbone), _MOST):
        expected = _outline(backbone, arguments)
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


def _outline(backbone: Target, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Names and shapes of the parameters of a net; none if it cannot be built."""
    from ...shapes.build import without_initialisation

    kind = type(backbone).__name__
    name = arguments.get('model_name')
    try:
        with torch.device('meta'), without_initialisation():
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


def _relatives(backbone: Target) -> Iterator[tuple[str, dict[str, Any]]]:
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
    match = re.match(r'[a-z]+(?:v\d)?', name)
    return match[0] if match else name
