"""Which convolution each normalisation follows, seen in one pass over the net."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CONVOLUTION = torch.ops.aten.convolution.default
# Small first; some nets need more pixels than others.
_SIZES = ((128, 160), (320, 320), (640, 640))
_CANNOT_RUN = (RuntimeError, ValueError, TypeError, AssertionError, LookupError)


@dataclass(frozen=True)
class Pairs:
    """What can be folded.

    Attributes:
        convs: Convolutions that each normalisation layer follows.
        problems: Why the other layers cannot be folded.
    """

    convs: dict[nn.Module, list[_ConvNd]] = field(default_factory=dict)
    problems: dict[nn.Module, str] = field(default_factory=dict)


def trace_inputs(
    module: nn.Module, example: Sequence[Any] | None
) -> Iterator[Callable[[], Any]]:
    """Name ways to run a module, the cheapest first.

    Args:
        module: As :func:`~mmdet_backbones.fuse_for_inference` takes it.
        example: As there.
    """
    if example is not None:
        yield partial(module, *example)
        return
    fixed = getattr(getattr(module, '_sizes', None), 'fixed', None)
    for size in (fixed,) if fixed is not None else _SIZES:
        if hasattr(module, 'data_preprocessor') and hasattr(module, 'test_step'):
            yield partial(_detect, module, size, 'predict')
            # For detectors that expect more of a sample than there is in ours.
            yield partial(_detect, module, size, 'tensor')
        else:
            # The first convolution may read an image whose pixels were rearranged.
            for channels in dict.fromkeys((*_first_channels(module), 3)):
                yield partial(_run, module, size, channels)


def _first_channels(net: nn.Module) -> list[int]:
    convs = [layer for layer in net.modules() if isinstance(layer, _ConvNd)]
    return [layer.in_channels for layer in convs[:1]]


def _run(net: nn.Module, size: tuple[int, int], channels: int) -> Any:
    like = next(tensor for tensor in (*net.parameters(), *net.buffers()))
    # Not by a method of the weight, which would count as a use of it.
    return net(torch.zeros(1, channels, *size, dtype=like.dtype, device=like.device))


def _detect(detector: Any, size: tuple[int, int], mode: str) -> Any:
    from mmdet.structures import DetDataSample

    mean = getattr(detector.data_preprocessor, 'mean', None)
    image = torch.zeros(3 if mean is None else len(mean), *size, dtype=torch.uint8)
    info: dict[str, Any] = dict(img_shape=size, ori_shape=size, pad_shape=size)
    # CenterNet pads images in its pipeline and asks by how much.
    info.update(img_id=0, scale_factor=(1.0, 1.0), border=(0, size[0], 0, size[1]))
    sample = DetDataSample(metainfo=info)
    batch = dict(inputs=[image], data_samples=[sample])
    return detector(**detector.data_preprocessor(batch, False), mode=mode)


def find_pairs(
    module: nn.Module, norms: Sequence[nn.Module], runs: Sequence[Callable[[], Any]]
) -> Pairs:
    """Run a module once and see what each normalisation layer is applied to.

    Args:
        module: In eval mode.
        norms: Normalisation layers to look at.
        runs: Ways to run it, of which the first that works is taken.

    Raises:
        ValueError: If none works.
    """
    problems = []
    for run in runs:
        record = _Record(module, norms)
        try:
            with record.watching(), torch.no_grad(), record:
                outputs = run()
        except _CANNOT_RUN as error:
            problems.append(f'{type(error).__name__}: {error}')
            continue
        return record.pairs(outputs)
    raise ValueError(
        f'{type(module).__name__} cannot be run to see which layers follow each '
        f'other: {problems[0]}. Give arguments that it can be called with: '
        'fuse_for_inference(module, example=(images,))'
    )


def has_own_hooks(layer: nn.Module) -> bool:
    """Tell whether somebody reads or changes what goes through a layer."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or 'forward' in vars(layer)
        or getattr(layer, 'parametrizations', None)
    )


class _Record(TorchDispatchMode):
    """Notes who reads what the convolutions of a module return.

    It looks at every operator: functions and slices between two layers are operators,
    which hooks on modules would not see. A reader is the normalisation layer that runs,
    or None for everything else.
    """

    def __init__(self, module: nn.Module, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self._norms = norms
        self._by_weight = {
            id(layer.weight): layer
            for layer in module.modules()
            if isinstance(layer, _ConvNd) and _foldable(layer)
        }
        # Maps by their number; not the tensors, which would keep every map of the net
        # in memory. A number is given anew once its tensor is gone.
        self._maps: dict[int, tuple[weakref.ref[Tensor], _ConvNd]] = {}
        self._running: nn.Module | None = None
        self._readers: dict[_ConvNd, set[nn.Module | None]] = defaultdict(set)
        self._inputs: dict[nn.Module, list[_ConvNd | None]] = defaultdict(list)
        self._weight_read: set[_ConvNd] = set()

    def _source(self, leaf: Any) -> _ConvNd | None:
        """Find the convolution that returned a tensor, if one did."""
        reference, conv = self._maps.get(id(leaf), (None, None))
        return conv if reference is not None and reference() is leaf else None

    def _note_reader(self, tensors: Any, reader: nn.Module | None) -> None:
        for leaf in tree_leaves(tensors):
            source = self._source(leaf)
            if source is not None:
                self._readers[source].add(reader)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._note_reader((args, kwargs), self._running)
        conv = self._by_weight.get(id(args[1])) if func is _CONVOLUTION else None
        if conv is not None and args[2] is conv.bias:
            result = func(*args, **kwargs)
            self._maps[id(result)] = (weakref.ref(result), conv)
            return result
        for leaf in tree_leaves((args, kwargs)):
            if id(leaf) in self._by_weight:
                self._weight_read.add(self._by_weight[id(leaf)])
        return func(*args, **kwargs)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what goes into the layers, and give every convolution a bias.

        A convolution that ignores its bias, or makes a weight of its own in each
        pass, is seen not to use what it was given.
        """
        bare = [conv for conv in self._by_weight.values() if conv.bias is None]
        with ExitStack() as stack:
            for norm in self._norms:
                stack.callback(norm.register_forward_pre_hook(self._enter).remove)
                stack.callback(norm.register_forward_hook(self._leave).remove)
            for conv in bare:
                stack.callback(setattr, conv, 'bias', None)
                zeros = conv.weight.new_zeros(conv.out_channels)
                conv.bias = nn.Parameter(zeros, requires_grad=False)
            yield

    def _enter(self, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._inputs[norm].append(self._source(inputs[0]))
        self._running = norm

    def _leave(self, norm: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._running = None

    def pairs(self, outputs: Any) -> Pairs:
        """Judge every layer.

        Args:
            outputs: Of the module; a map that it returns is read by somebody.
        """
        self._note_reader(outputs, None)
        found = Pairs()
        for norm in self._norms:
            convs = list(dict.fromkeys(self._inputs[norm]))
            problem = self._problem(norm, convs)
            if problem is not None:
                found.problems[norm] = problem
            else:
                found.convs[norm] = [conv for conv in convs if conv is not None]
        return found

    def _problem(self, norm: nn.Module, convs: Sequence[_ConvNd | None]) -> str | None:
        if not convs:
            return 'the pass did not reach it'
        if None in convs:
            return 'what it normalises is not the result of a foldable convolution'
        readers = {r for conv in convs if conv for r in self._readers[conv]}
        if readers - {norm, None}:
            return 'its convolution is followed by other normalisation layers too'
        if None in readers:
            return 'something else uses the result of its convolution too'
        if self._weight_read.intersection(convs):
            return 'something else uses the weight of its convolution too'
        return None


def _foldable(conv: _ConvNd) -> bool:
    grouped = conv.transposed and conv.groups > 1
    return not (grouped or has_own_hooks(conv))
