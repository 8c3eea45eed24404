"""A net of torchvision as a graph: its nodes, their maps, and the part some need."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer
from torchvision.models.swin_transformer import ShiftedWindowAttention

from ...backbones.checkpointing import checkpoint_blocks
from ...backbones.frozen_norm import FrozenBN
from ...levels import map_size
from ...shapes.repeated import repeated_shapes
from .nets import AnySizePartitionAttention, tokens_to_map

# Not square, so that swapped height and width cannot hide, and so large that what
# convolutions without padding cut off does not change a rounded stride. Nothing of
# this size is ever computed.
_SIZE = (12288, 20480)

_OPERATIONS = tuple(
    value
    for value in vars(torchvision.ops).values()
    if isinstance(value, type) and issubclass(value, nn.Module)
)
# Their forward depends on the mode, on the size of the map or on whether it needs a
# gradient, which a graph would fix to what it was while tracing.
_DYNAMIC = (ShiftedWindowAttention, AnySizePartitionAttention, FrozenBN)
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)

# Classes whose activations are recomputed as a whole, by the names torchvision gives
# them. AlexNet and VGG have none.
_BLOCKS = frozenset(
    {
        'BasicBlock',
        'Bottleneck',
        'CNBlock',
        'EncoderBlock',
        'Fire',
        'FusedMBConv',
        'Inception',
        'InceptionA',
        'InceptionB',
        'InceptionC',
        'InceptionD',
        'InceptionE',
        'InvertedResidual',
        'MaxVitLayer',
        'MBConv',
        'ResBottleneckBlock',
        'SwinTransformerBlock',
        'SwinTransformerBlockV2',
        '_DenseLayer',
        '_InvertedResidual',
    }
)


class FeatureMap(NamedTuple):
    """What a node of a graph returns.

    Attributes:
        channels: Channels C.
        stride: Pixels of the image per pixel of the map.
        layout: ``'nchw'``, ``'nhwc'``, or ``'tokens'`` for (N, 1 + H * W, C).
    """

    channels: int
    stride: int
    layout: str

    def to_nchw(self, x: Tensor, image: Tensor) -> Tensor:
        """Bring the node's output for an image into the shape (N, C, H, W)."""
        if self.layout == 'nhwc':
            return x.permute(0, 3, 1, 2)
        if self.layout == 'tokens':
            return tokens_to_map(x, *map_size(image.shape[2:], self.stride))
        return x


@dataclass(frozen=True)
class Nodes:
    """Nodes of a net.

    Attributes:
        names: Of every node in order of execution, as torchvision's
            ``get_graph_node_names`` has them.
        maps: By name, for those nodes that return a feature map.
    """

    names: tuple[str, ...]
    maps: dict[str, FeatureMap]

    def map_of(self, query: str) -> FeatureMap | None:
        """Feature map of a node, or of the last one inside a module."""
        name = find_node(self.names, query)
        return self.maps.get(name) if name is not None else None

    def has(self, query: str) -> bool:
        """Tell whether there is such a node or a module with nodes."""
        return find_node(self.names, query) is not None

    def position(self, query: str) -> int:
        """Place of a node in the order of execution."""
        name = find_node(self.names, query)
        assert name is not None
        return self.names.index(name)


def find_node(names: Collection[str], query: str) -> str | None:
    """Find the node of that name, or the last one inside the module of that name."""
    inside = [name for name in names if name == query or name.startswith(f'{query}.')]
    return inside[-1] if inside else None


def trace(
    net: nn.Module, leaves: Iterable[type[nn.Module]] = ()
) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """Record what a net does.

    Args:
        net: A net of torchvision.
        leaves: Classes of modules that become one node each.

    Returns:
        The graph, the same in training and in eval mode, and its nodes by name.
    """
    tracer = NodePathTracer(
        autowrap_modules=(math, torchvision.ops),
        leaf_modules=[*_OPERATIONS, *_DYNAMIC, *leaves],
    )
    graph = tracer.trace(net)
    nodes: dict[str, fx.Node] = {}
    for node, name in tracer.node_to_qualname.items():
        # The tracer takes the number off a module's name, such as encoder_layer_0.
        own = str(node.target) if node.op == 'call_module' else name
        nodes[name if own in nodes else own] = node
    return graph, nodes


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of what every node returns."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        return result


def find_nodes(net: nn.Module) -> Nodes:
    """List the nodes of a net and their feature maps.

    Args:
        net: On the meta device, reading three channels.
    """
    graph, nodes = trace(net)
    interpreter = _Shapes(fx.GraphModule(net, graph))
    with repeated_shapes(), torch.no_grad(), torch.device('meta'):
        interpreter.run(torch.zeros(2, 3, *_SIZE))
    patch = getattr(net, 'patch_size', None)
    maps = {
        name: _read_map(interpreter.shapes.get(node, ()), patch)
        for name, node in nodes.items()
        if node.op != 'placeholder'
    }
    return Nodes(tuple(nodes), {name: m for name, m in maps.items() if m is not None})


def _read_map(shape: tuple[int, ...], patch: int | None) -> FeatureMap | None:
    height, width = _SIZE
    if len(shape) == 4:
        for layout, (c, h, w) in (('nchw', (1, 2, 3)), ('nhwc', (3, 1, 2))):
            stride = round(height / shape[h])
            if stride == round(width / shape[w]) > 0:
                return FeatureMap(shape[c], stride, layout)
    if len(shape) != 3 or patch is None:
        return None
    tokens = 1 + math.prod(map_size(_SIZE, patch))
    return FeatureMap(shape[2], patch, 'tokens') if shape[1] == tokens else None


def extract(
    net: nn.Module, queries: Sequence[str], leaves: Iterable[type[nn.Module]] = ()
) -> fx.GraphModule:
    """Cut a net down to what some of its nodes need.

    Args:
        net: A net of torchvision; its modules are shared, not copied.
        queries: Names of nodes or modules.
        leaves: Classes of modules that become one node each.

    Returns:
        Maps an image to the tuple of what the nodes return. Parameters keep their
        names; those that no node needs are gone.

    Raises:
        KeyError: If a name is not in the graph, as inside a leaf.
    """
    graph, nodes = trace(net, leaves)
    wanted = []
    for query in queries:
        name = find_node(nodes, query)
        if name is None:
            raise KeyError(query)
        wanted.append(nodes[name])
    for node in reversed(graph.nodes):
        # Not `eliminate_dead_code`: it keeps assertions, and with them every block of
        # a ViT up to the last one.
        if node.op != 'placeholder' and not node.users and node not in wanted:
            graph.erase_node(node)
    outputs = tuple(_protected(net, graph, node) for node in wanted)
    graph.output(outputs)
    return fx.GraphModule(net, graph, type(net).__name__)


def _protected(net: nn.Module, graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Return a copy of an output that a later layer writes over."""
    if not any(_overwrites(net, user, node) for user in node.users):
        return node
    with graph.inserting_after(node):
        return graph.call_method('clone', (node,))


def _overwrites(net: nn.Module, user: fx.Node, node: fx.Node) -> bool:
    if not user.args or user.args[0] is not node:
        return False
    if user.op == 'call_module':
        return bool(getattr(net.get_submodule(str(user.target)), 'inplace', False))
    return bool(user.kwargs.get('inplace')) or user.target in _IN_PLACE


def extract_with_blocks(
    net: nn.Module, nodes: Sequence[str], with_cp: bool, owner: str
) -> fx.GraphModule:
    """Cut a net down to what some nodes need, and checkpoint its blocks if asked to.

    Args:
        net: A net of torchvision.
        nodes: Names of nodes of the net.
        with_cp: Whether blocks recompute their activations in backward.
        owner: Name of the backbone, for messages.

    Raises:
        ValueError: If there are no blocks to checkpoint, or a node lies inside one.
    """
    if not with_cp:
        return extract(net, nodes)
    types = {type(module) for module in net.modules()}
    kinds = tuple(t for t in types if t.__name__ in _BLOCKS)
    try:
        body = extract(net, nodes, kinds)
    except KeyError as error:
        raise ValueError(
            f'{owner}: return_nodes: {error} lies inside a block, which with_cp=True '
            'recomputes as a whole: write with_cp=False or the name of the block'
        ) from error
    called = [str(node.target) for node in body.graph.nodes if node.op == 'call_module']
    blocks = [
        block for name in called if isinstance(block := body.get_submodule(name), kinds)
    ]
    if not blocks:
        raise ValueError(f'{owner} has no blocks to recompute: leave with_cp out')
    checkpoint_blocks(blocks)
    return body
