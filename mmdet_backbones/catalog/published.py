"""Published weights of a backbone: their licence and accuracy, as libraries tell them.

What a library does not tell is not known here either: timm's package has licences and
no accuracies, mmpretrain's the reverse, torchvision's accuracies and few licences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .entries import load_source
from .entry import Entry

UNKNOWN = 'unknown'
# The file that torchvision links to, in the words of timm's licences.
_LINKED = {'https://github.com/facebookresearch/SWAG/blob/main/LICENSE': 'cc-by-nc-4.0'}


@dataclass(frozen=True)
class Published:
    """Weights of a backbone that its library publishes.

    Attributes:
        name: Of the catalog, which means the backbone with these weights.
        checkpoint: As ``init_cfg`` takes it.
        licence: Of the weights, in the words of the library; ``'unknown'`` if it does
            not tell.
        top1: Accuracy on ImageNet-1k in percent, None if the library does not tell.
        usual: Whether the entry that was asked for means these.
    """

    name: str
    checkpoint: str
    licence: str = UNKNOWN
    top1: float | None = None
    usual: bool = False


def published_weights(entry: Entry) -> tuple[Published, ...]:
    """List what the library of a backbone publishes for it.

    Args:
        entry: Of the catalog.

    Returns:
        All weights of timm or torchvision for the model; for mmpretrain those of the
        nets of its zoo that are the same; the one that mmdet's configs start from.
    """
    if entry.source == 'mmpretrain':
        return tuple(_of_mmpretrain(entry))
    if entry.weights is None:
        return ()
    scheme, _, name = entry.weights.partition('://')
    if scheme == 'timm':
        return tuple(_of_timm(name))
    if scheme != 'torchvision':
        return (Published(entry.name, entry.weights, usual=True),)
    found = tuple(_of_torchvision(name))
    if entry.source == 'torchvision':
        return found
    # To its names belong nets of another class.
    return tuple(replace(one, name=entry.name) for one in found if one.usual)


def usual_of(entry: Entry) -> Published | None:
    """Tell of the weights that an entry means, None if there are none."""
    return next((found for found in published_weights(entry) if found.usual), None)


def _of_timm(name: str) -> Iterator[Published]:
    import timm

    model, _, tag = name.partition('.')
    default: Any = timm.get_pretrained_cfg(model)
    usual = tag or default.tag
    for tagged in timm.list_pretrained(f'{model}.*'):
        found: Any = timm.get_pretrained_cfg(tagged)
        yield Published(
            f'timm/{tagged}',
            f'timm://{tagged}',
            found.license or UNKNOWN,
            usual=found.tag == usual,
        )


def _of_torchvision(name: str) -> Iterator[Published]:
    from torchvision import models

    model, _, tag = name.partition('.')
    weights = models.get_model_weights(model)
    for found in weights:
        results = found.meta.get('_metrics', {}).get('ImageNet-1K', {})
        licence = found.meta.get('license', UNKNOWN)
        yield Published(
            f'torchvision/{model}.{found.name}',
            f'torchvision://{model}.{found.name}',
            _LINKED.get(licence, licence),
            results.get('acc@1'),
            usual=found is weights[tag or 'IMAGENET1K_V1'],
        )


def _of_mmpretrain(entry: Entry) -> Iterator[Published]:
    from .mmpretrain_names import architecture, model_zoo, published

    net = architecture(entry.config)
    zoo = {f'mmpretrain/{model.name}': model for model in published(model_zoo())}
    for name, alias in load_source('mmpretrain').aliases.items():
        if alias.weights and architecture(alias.config) == net:
            yield Published(
                name,
                alias.weights,
                top1=zoo[name].top1,
                usual=alias.weights == entry.weights,
            )
