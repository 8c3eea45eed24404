"""Which levels and stages a net of torchvision has, found without its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ...errors import ArgumentError
from ...levels import Level, map_size, select_levels
from ...shapes.build import on_meta
from ...shapes.repeated import repeated_shapes
from ...shapes.structure import find_structure
from ...weights.names.libraries import HEADS
from ..inputs import fit_map, pad_to_multiple
from .graph import FeatureMap, Nodes, extract, find_nodes
from .nets import build

Arguments = tuple[tuple[str, Any], ...]

# No multiple of any stride, nor of twice the multiple it is padded to, so that it
# shows whether a net rounds up or down.
_ODD_SIZE = (97, 131)


class Feature(NamedTuple):
    """A feature map and the node of the net that returns it."""

    node: str
    map: FeatureMap


@dataclass(frozen=True)
class FeatureStructure:
    """What a net has to offer.

    Attributes:
        features: One per level, shallow to deep.
        stages: Names of modules and bare parameters by stage; 0 is the stem. A stage
            is what a level adds to those before it, if it adds any.
        nodes: All nodes.
        multiple: Images are padded to multiples of it; 1 if the net itself rounds the
            sizes of its maps up.
    """

    features: tuple[Feature, ...]
    stages: tuple[tuple[str, ...], ...]
    nodes: Nodes
    multiple: int


def levels_of(features: Iterable[Feature]) -> tuple[Level, ...]:
    """Describe features as the levels 0, 1, ..."""
    return tuple(
        Level(index, feature.map.channels, feature.map.stride)
        for index, feature in enumerate(features)
    )


@lru_cache(maxsize=16)
def structure_of(model_name: str, arguments: Arguments = ()) -> FeatureStructure:
    """Find levels and stages of a net on the meta device.

    There is one level per stride: the deepest map that has it, of those that the
    stages of the net return. Every block of a ViT is a level.

    Args:
        model_name: As in ``torchvision.models.get_model``.
        arguments: For the net's constructor.
    """
    # In eval mode, which is faster on meta.
    net = on_meta(lambda: build(model_name, **dict(arguments))).eval()
    nodes = find_nodes(net)
    features = [
        Feature(node, found)
        for node in _level_nodes(net, nodes)
        if (found := nodes.map_of(node)) is not None
    ]
    body = extract(net, [feature.node for feature in features])
    multiple = _multiple(body, features)
    whole = find_structure(body, lambda x: feature_maps(body, features, x, multiple))
    stages = tuple(stage for stage in whole.stages if stage)
    return FeatureStructure(tuple(features), stages, nodes, multiple)


def _level_nodes(net: nn.Module, nodes: Nodes) -> list[str]:
    if isinstance(net, VisionTransformer):
        encoder: Any = net.encoder
        return [f'encoder.layers.{name}' for name, _ in encoder.layers.named_children()]
    units = []
    for name, child in net.named_children():
        if name in HEADS:
            continue
        container = isinstance(child, (nn.Sequential, nn.ModuleList))
        inner = [f'{name}.{n}' for n, _ in child.named_children()] if container else []
        found = [nodes.map_of(unit) for unit in inner]
        several = len({m.stride for m in found if m is not None}) > 1
        units += inner if several else [name]
    deepest: dict[int, str] = {}
    for unit in units:
        feature_map = nodes.map_of(unit)
        if feature_map is not None:
            deepest[feature_map.stride] = unit
    return sorted(deepest.values(), key=nodes.position)


def _multiple(body: nn.Module, features: Sequence[Feature]) -> int:
    """Find the multiple to pad images to so that no map is too small."""
    deepest = max(feature.map.stride for feature in features)
    multiple = 1
    while multiple < deepest and not _rounds_up(body, features, multiple):
        multiple *= 2
    return multiple


def _rounds_up(body: nn.Module, features: Sequence[Feature], multiple: int) -> bool:
    with repeated_shapes(), torch.no_grad(), torch.device('meta'):
        image = pad_to_multiple(torch.zeros(2, 3, *_ODD_SIZE), multiple)
        outputs = body(image)
    return all(
        feature.map.to_nchw(output, image).shape[2:]
        == map_size(image.shape[2:], feature.map.stride)
        for feature, output in zip(features, outputs, strict=True)
    )


def feature_maps(
    body: nn.Module, features: Sequence[Feature], image: Tensor, multiple: int
) -> tuple[Tensor, ...]:
    """Run an extractor and bring its maps into the form of the contract.

    Args:
        body: Returns what the nodes of ``features`` return.
        features: One per output.
        image: Of shape (N, C, H, W).
        multiple: Pad H and W to multiples of it.

    Returns:
        One (N, C, ceil(H / stride), ceil(W / stride)) tensor per feature.
    """
    padded = pad_to_multiple(image, multiple)
    return tuple(
        fit_map(
            feature.map.to_nchw(output, padded),
            map_size(image.shape[2:], feature.map.stride),
        )
        for feature, output in zip(features, body(padded), strict=True)
    )


def choose(
    whole: FeatureStructure,
    return_nodes: Sequence[str] | Mapping[str, str] | None,
    out_indices: Sequence[int] | None,
    out_strides: Sequence[int] | None,
    *,
    owner: str,
) -> tuple[tuple[Level, ...], tuple[Feature, ...]]:
    """Choose levels by node, by index or by stride.

    Args:
        whole: What the net has to offer.
        return_nodes: As in ``create_feature_extractor``.
        out_indices: Ascending level numbers.
        out_strides: Ascending strides.
        owner: Name of the backbone, for messages.

    Returns:
        The levels, and the feature of each.

    Raises:
        TypeError: If a choice is of another type.
        ValueError: If a choice cannot be served, or nodes come with another choice.
    """
    if return_nodes is None:
        available = levels_of(whole.features)
        levels = select_levels(available, out_indices, out_strides, owner=owner)
        return levels, tuple(whole.features[level.index] for level in levels)
    if out_indices is not None or out_strides is not None:
        raise ArgumentError(
            f'{owner} takes return_nodes or one of out_indices and out_strides: leave '
            'the others out',
            dict(out_indices=None, out_strides=None),
        )
    features = _choose_nodes(whole.nodes, return_nodes, owner)
    return levels_of(features), features


def _choose_nodes(
    nodes: Nodes, return_nodes: Sequence[str] | Mapping[str, str], owner: str
) -> tuple[Feature, ...]:
    named = isinstance(return_nodes, (list, tuple, Mapping))
    if not named or not all(isinstance(name, str) for name in return_nodes):
        raise TypeError(
            f'{owner}: return_nodes must be a list of node names or a dict with node '
            f'names as keys, got {return_nodes!r}'
        )
    problems = [problem for name in return_nodes if (problem := _problem(nodes, name))]
    if not return_nodes:
        problems.append('at least one node is needed')
    if not problems:
        problems += _order_problems(nodes, list(return_nodes))
    if problems:
        raise ValueError(f'{owner}: return_nodes: {"; ".join(problems)}')
    return tuple(Feature(name, _map_of(nodes, name)) for name in return_nodes)


def _map_of(nodes: Nodes, name: str) -> FeatureMap:
    found = nodes.map_of(name)
    assert found is not None
    return found


def _problem(nodes: Nodes, name: str) -> str | None:
    """Tell why a node cannot be returned."""
    if nodes.map_of(name) is not None:
        return None
    if nodes.has(name):
        return f"'{name}' is no feature map"
    known = {
        '.'.join(parts[:depth])
        for parts in (node.split('.') for node in nodes.maps)
        for depth in range(1, len(parts) + 1)
    }
    near = get_close_matches(name, sorted(known), n=3)
    hint = f', did you mean {" or ".join(near)}?' if near else ''
    return f"there is no node '{name}'{hint}"


def _order_problems(nodes: Nodes, names: list[str]) -> list[str]:
    right = sorted(set(names), key=nodes.position)
    if names == right:
        return []
    return [f'nodes are named once each, shallow to deep: write return_nodes={right}']


def size_arguments(
    whole: FeatureStructure, image_size: int | None, owner: str
) -> dict[str, Any]:
    """Arguments that build a ViT for images of another size.

    Raises:
        ValueError: If the net is no ViT, or the size is no multiple of its patches.
    """
    if image_size is None:
        return {}
    first = whole.features[0].map
    if first.layout != 'tokens':
        raise ValueError(
            f'{owner} has no position embedding made for one image size: leave '
            'image_size out'
        )
    if type(image_size) is not int or image_size < 1 or image_size % first.stride:
        raise ValueError(
            f'{owner}: image_size must be a positive multiple of {first.stride}, the '
            f'side of its patches, got {image_size!r}'
        )
    return {'image_size': image_size}
