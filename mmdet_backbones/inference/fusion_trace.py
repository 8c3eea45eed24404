"""Which convolution each normalisation follows, seen in one pass over the net."""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
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
            yield partial(_run, module, size)


def _run(net: nn.Module, size: tuple[int, int]) -> Any:
    convs = [layer for layer in net.modules() if isinstance(layer, _ConvNd)]
    like = next(tensor for tensor in (*net.parameters(), *net.buffers()))
    channels = convs[0].in_channels if convs else 3
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


class _Result:
    """What a convolution returned, and how often it was used.

    Attributes:
        conv: That returned it.
        uses: By operators, and as a result of the module.
        within: Those of the uses that a normalisation layer made.
    """

    def __init__(self, conv: _ConvNd) -> None:
        self.conv = conv
        self.uses = self.within = 0


class _Record(TorchDispatchMode):
    """Counts who uses every result of a convolution, operator by operator.

    Functions and slices between two layers are operators, which hooks on modules
    would not see.
    """

    def __init__(self, module: nn.Module, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self._norms = norms
        self._convs = {
            id(layer.weight): layer
            for layer in module.modules()
            if isinstance(layer, _ConvNd) and _foldable(layer)
        }
        self._results: list[_Result] = []
        # By the number of the tensor; not the tensor, which would keep every map of
        # the net in memory. A number is given anew once its tensor is gone.
        self._alive: dict[int, tuple[weakref.ref[Tensor], _Result]] = {}
        self._calls: Counter[_ConvNd] = Counter()
        self._weight_uses: Counter[int] = Counter()
        self._inputs: dict[nn.Module, list[_Result | None]] = defaultdict(list)
        self._users: dict[_ConvNd, set[nn.Module]] = defaultdict(set)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        used = {id(leaf): leaf for leaf in tree_leaves((args, kwargs))}
        for number, leaf in used.items():
            known = self._result(leaf)
            if known is not None:
                known.uses += 1
            if number in self._convs:
                self._weight_uses[number] += 1
        result = func(*args, **kwargs)
        if func is _CONVOLUTION:
            conv = self._convs.get(id(args[1]))
            if conv is not None and args[2] is conv.bias:
                self._results.append(_Result(conv))
                self._alive[id(result)] = (weakref.ref(result), self._results[-1])
                self._calls[conv] += 1
        return result

    def _result(self, leaf: Any) -> _Result | None:
        """Look up a tensor among the results of convolutions."""
        reference, result = self._alive.get(id(leaf), (None, None))
        return result if reference is not None and reference() is leaf else None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what goes into the layers, and give every convolution a bias.

        A convolution that ignores its bias, or makes a weight of its own in each
        pass, is seen not to use what it was given.
        """
        bare = [conv for conv in self._convs.values() if conv.bias is None]
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
        result = self._result(inputs[0])
        self._inputs[norm].append(result)
        if result is not None:
            result.within -= result.uses

    def _leave(self, norm: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        result = self._result(inputs[0])
        if result is not None:
            result.within += result.uses
            self._users[result.conv].add(norm)

    def pairs(self, outputs: Any) -> Pairs:
        """Judge every layer.

        Args:
            outputs: Of the module; a map that it returns is used by somebody.
        """
        for leaf in tree_leaves(outputs):
            result = self._result(leaf)
            if result is not None:
                result.uses += 1
        found = Pairs()
        for norm in self._norms:
            problem = self._problem(norm)
            if problem is not None:
                found.problems[norm] = problem
                continue
            found.convs[norm] = list(dict.fromkeys(self._convs_before(norm)))
        return found

    def _convs_before(self, norm: nn.Module) -> list[_ConvNd]:
        return [result.conv for result in self._inputs[norm] if result is not None]

    def _problem(self, norm: nn.Module) -> str | None:
        inputs = self._inputs[norm]
        if not inputs:
            return 'the pass did not reach it'
        if None in inputs:
            return 'what it normalises is not the result of a foldable convolution'
        convs = set(self._convs_before(norm))
        own = [result for result in self._results if result.conv in convs]
        if any(self._users[conv] != {norm} for conv in convs):
            return 'its convolution is followed by other normalisation layers too'
        if any(result.uses != result.within for result in own):
            return 'something else uses the result of its convolution too'
        if any(self._weight_uses[id(c.weight)] != self._calls[c] for c in convs):
            return 'something else uses the weight of its convolution too'
        return None


def _foldable(conv: _ConvNd) -> bool:
    grouped = conv.transposed and conv.groups > 1
    return not (grouped or has_own_hooks(conv))
