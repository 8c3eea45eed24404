"""Backbone, neck and heads of a detector: compiled, in half precision, as graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from ..errors import ArgumentError

MODES = (False, True, 'reduce-overhead', 'cuda-graph')
DTYPES = (None, torch.float16, torch.bfloat16)
# The parts of a detector whose forward pass has neither boxes nor samples in it.
_PARTS = ('backbone', 'neck', 'bbox_head', 'rpn_head', 'mask_head')
_OF_REGIONS = 'roi_head'
# Layers that autocast runs in half precision, whose weights it would cast each time.
_CAST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
# Graphs of one part: each holds its maps.
_MOST_GRAPHS = 4
_WARM_UP = 2
_DEVICE = 'cuda'

Forward = Callable[..., Any]


def check_modes(module: nn.Module, compile: Any, dtype: Any) -> None:
    """Make sure that :func:`make_fast` can do what it is asked for.

    Raises:
        ArgumentError: With all that is wrong.
    """
    problems = []
    # None is how others spell that nothing is compiled.
    if compile is not None and compile not in MODES:
        problems.append(f'compile is one of {MODES}, got {compile!r}')
    if dtype not in DTYPES:
        problems.append(
            f'dtype is None, torch.float16 or torch.bfloat16, got {dtype!r}'
        )
    if compile == 'cuda-graph' and _device_of(module) != _DEVICE:
        problems.append(
            "compile='cuda-graph' captures what a GPU does, and "
            f'{type(module).__name__} is on the {_device_of(module).upper()}: move it '
            'first, module.cuda(), or write compile=True'
        )
    if problems:
        raise ArgumentError('; '.join(problems))


def make_fast(module: nn.Module, compile: Any, dtype: torch.dtype | None) -> None:
    """Set precision and compilation of the parts of a detector, or of a net."""
    parts = dict(_parts_of(module))
    if dtype is not None:
        _lower(module, parts, dtype)
    for name, part in parts.items():
        sizes_are_few = not name.startswith(_OF_REGIONS)
        if compile == 'cuda-graph':
            if sizes_are_few and not _has_queries(part):
                _replace(part, GraphedForward(part, _forward_of(part), name))
        elif compile == 'reduce-overhead' and sizes_are_few:
            _replace(part, CompiledForward(_forward_of(part)))
        elif compile:
            part.compile()


def _parts_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    found = []
    if hasattr(module, 'data_preprocessor'):
        for name, part in module.named_children():
            if name in _PARTS and _takes_maps(part):
                found.append((name, part))
            elif name == _OF_REGIONS:
                children = part.named_children()
                found += [(f'{name}.{n}', p) for n, p in children if n in _PARTS]
    for name, part in found or [(type(module).__name__, module)]:
        if isinstance(part, nn.ModuleList):
            yield from ((f'{name}.{n}', p) for n, p in part.named_children())
        else:
            yield name, part


def _takes_maps(part: nn.Module) -> bool:
    return 'data_samples' not in _arguments(part)


def _has_queries(part: nn.Module) -> bool:
    # The decoder uses layers of such a head too.
    return 'hidden_states' in _arguments(part)


def _arguments(part: nn.Module) -> Sequence[str]:
    forward: Any = type(part).forward
    return getattr(forward, '__code__', _takes_maps.__code__).co_varnames


def _device_of(module: nn.Module) -> str:
    tensor = next((t for t in (*module.parameters(), *module.buffers())), None)
    return 'cpu' if tensor is None else tensor.device.type


def _forward_of(part: nn.Module) -> Forward:
    # A partial of a function of a class can be copied and pickled with the part.
    return vars(part).get('forward') or partial(type(part).forward, part)


def _replace(part: nn.Module, forward: Forward) -> None:
    part.forward = forward  # type: ignore[method-assign]


def _lower(module: nn.Module, parts: dict[str, nn.Module], dtype: torch.dtype) -> None:
    """Run parts under autocast, with weights that need no cast any more."""
    lowered = {n: p for n, p in parts.items() if not _has_queries(p)}
    children = {name for name, _ in module.named_children()} - {'data_preprocessor'}
    within = {'backbone'} if 'neck' in lowered else set()
    if children <= lowered.keys():
        # Nobody reads its maps who does not run under autocast.
        within.add('neck')
    for name, part in lowered.items():
        for layer in part.modules():
            # Of a subclass nobody knows what it does with its weight.
            if type(layer) in _CAST:
                layer.to(dtype)
        wide = part is not module and name not in within
        _replace(part, partial(_autocast, _forward_of(part), dtype, wide))


def _autocast(
    forward: Forward, dtype: torch.dtype, wide: bool, *args: Any, **kwargs: Any
) -> Any:
    tensors = (t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
    device = next((t.device.type for t in tensors), _DEVICE)
    with torch.autocast(device, dtype):
        outputs = forward(*args, **kwargs)
    return tree_map(_widened, outputs) if wide else outputs


def _widened(leaf: Any) -> Any:
    is_half = isinstance(leaf, Tensor) and leaf.dtype in DTYPES
    return leaf.float() if is_half else leaf


class CompiledForward:
    """A forward pass compiled with CUDA graphs by torch, whose results may be kept.

    Args:
        forward: What is compiled, at the first call.
    """

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self._compiled: Forward | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what only this process has."""
        return dict(vars(self), _compiled=None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it."""
        if self._compiled is None:
            self._compiled = torch.compile(self.forward, mode='reduce-overhead')
        # Else torch takes the maps that one part hands to the next for its own.
        torch.compiler.cudagraph_mark_step_begin()
        return _copied(self._compiled(*args, **kwargs))


class GraphedForward:
    """A forward pass that is replayed as a CUDA graph where it was captured.

    Inputs of a shape are captured when they come for the second time, for a few shapes;
    others run as they always did, which is told once. So does what cannot be captured.

    Args:
        part: Whose forward pass it is.
        forward: The pass.
        name: Of the part, for messages.
    """

    def __init__(self, part: nn.Module, forward: Forward, name: str) -> None:
        self.part = part
        self.forward = forward
        self.name = name
        self._forget()

    def _forget(self) -> None:
        self._graphs: list[Graph] = []
        self._seen: list[Any] = []
        self._fails = False
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graphs, which hold addresses of this process and this net."""
        return dict(part=self.part, forward=self.forward, name=self.name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`__getstate__` gave."""
        vars(self).update(state)
        self._forget()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it."""
        leaves, spec = tree_flatten((args, kwargs))
        if self._fails or not _capturable(leaves):
            return self.forward(*args, **kwargs)
        # Whoever moves or loads the net anew gives its weights another address.
        weight = next(self.part.parameters(), torch.empty(0)).data_ptr()
        state = (torch.is_autocast_enabled(_DEVICE), torch.get_autocast_dtype(_DEVICE))
        key = (spec, [_kind(leaf) for leaf in leaves], weight, state)
        graph = next((g for g in self._graphs if g.key == key), None)
        if graph is None:
            graph = self._captured(key, leaves)
        return self.forward(*args, **kwargs) if graph is None else graph.run(leaves)

    def _captured(self, key: Any, leaves: Sequence[Any]) -> Graph | None:
        if key not in self._seen:
            self._seen.append(key)
            return None
        if len(self._graphs) == _MOST_GRAPHS:
            shapes = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]
            self._tell(
                f'has CUDA graphs for {_MOST_GRAPHS} sizes of its inputs; {shapes[0]} '
                'and all others run without one: fewer sizes would be faster'
            )
            return None
        try:
            graph = Graph(self.part, self.forward, key, leaves)
        except RuntimeError as error:
            self._fails = True
            what = str(error).splitlines()[0]
            self._tell(f'cannot be captured as a CUDA graph and runs without: {what}')
            return None
        self._graphs.append(graph)
        return graph

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            print_log(f'{self.name} {what}', 'current', logging.WARNING)


class Graph:
    """One captured pass.

    Args:
        part: Whose weights it reads.
        forward: The pass.
        key: What inputs must have in common with those that it was captured with.
        leaves: Those inputs: tensors, and plain values.

    Raises:
        RuntimeError: If the pass waits for the GPU.
    """

    def __init__(
        self, part: nn.Module, forward: Forward, key: Any, leaves: Sequence[Any]
    ) -> None:
        self.key = key
        # As long as these live, no other weight gets their address.
        self._weights = [p.detach() for p in (*part.parameters(), *part.buffers())]
        # Tensors of inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            held = [
                torch.empty_like(leaf) if isinstance(leaf, Tensor) else leaf
                for leaf in leaves
            ]
            self._inputs = [leaf for leaf in held if isinstance(leaf, Tensor)]
            args, kwargs = tree_unflatten(held, key[0])
            with torch.cuda.device_of(self._inputs[0]):
                self._fill(leaves)
                self._outputs, self._replay = capture(lambda: forward(*args, **kwargs))

    def _fill(self, leaves: Sequence[Any]) -> None:
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        torch._foreach_copy_(self._inputs, given)

    def run(self, leaves: Sequence[Any]) -> Any:
        """Run it with other inputs; the results are the caller's."""
        with torch.no_grad():
            self._fill(leaves)
            self._replay()
            return _copied(self._outputs)


def capture(run: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    """Capture what a function does on the GPU.

    Args:
        run: Reads and writes the same memory each time.

    Returns:
        What it returns, and what writes that anew.

    Raises:
        RuntimeError: If it waits for the GPU.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    mode = torch.cuda.get_sync_debug_mode()
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            run()
        # A capture that fails leaves the device in a state that others trip over.
        torch.cuda.set_sync_debug_mode('error')
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Threads that load images use the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode='thread_local'):
        outputs = run()
    return outputs, graph.replay


def _capturable(leaves: Sequence[Any]) -> bool:
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    plain = (bool, int, float, str, torch.dtype, type(None))
    return (
        bool(tensors)
        and all(t.device.type == _DEVICE for t in tensors)
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
        and all(isinstance(leaf, (Tensor, *plain)) for leaf in leaves)
        and not torch.compiler.is_compiling()
        # By somebody else, of which this is a part then.
        and not (tensors[0].is_cuda and torch.cuda.is_current_stream_capturing())
    )


def _kind(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return type(leaf), leaf


def _copied(outputs: Any) -> Any:
    """Copies of all tensors, in one launch where their types allow."""
    leaves, spec = tree_flatten(outputs)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    copies = [torch.empty_like(tensor) for tensor in tensors]
    if tensors:
        torch._foreach_copy_(copies, tensors)
    rest = iter(copies)
    return tree_unflatten(
        [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec
    )
