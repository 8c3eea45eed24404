"""Refuse a pickle that would take more than its size before it is unpickled.

``torch.load(weights_only=True)`` runs no code of a file, but makes what the file asks
for: ``bytearray(1 << 40)``, a dict key that holds itself twice on forty floors, a
storage of more bytes than the file has. Here the operations of a pickle are gone
through without making anything; what no weights need is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ...errors import DamagedFileError
from .pickle_machine import (
    MOST_SIDES,
    OPERATIONS_OF_A_SET,
    Machine,
    Made,
    Name,
    Rule,
    UnknownOperationError,
)

_DTYPE = re.compile(r'[<>|=]?(?:[biufcSU][1-9]\d{0,2}|[?befdgFDGhHilqBIQLp])')
_OBJECTS = re.compile(r'[<>|=]?O\d*')
_ENCODINGS = ('latin1', 'latin-1', 'ascii', 'utf-8', 'utf8')


def vet(
    pickle: bytes | memoryview,
    source: str,
    size: int,
    storages: Mapping[str, int] | None = None,
    pickles: int = 1,
) -> None:
    """Go through the operations of a pickle of weights.

    Args:
        pickle: All of it; bytes behind its end do not matter.
        source: Of the file, for messages.
        size: Of the file, which all storages together must not exceed.
        storages: Bytes of each storage that the file has, by its key; None if the
            file does not list them.
        pickles: How many follow each other.

    Raises:
        CheckpointError: If it makes what no weights need, or far more than the file
            has.
        DamagedFileError: If it claims a storage or a tensor that the file has not.
    """
    machine = Machine(bytes(pickle), source, size, storages, _rule_of)
    try:
        for _ in range(pickles):
            machine.run()
    except UnknownOperationError:
        pass
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # What is not even a pickle torch cannot read either.
        raise DamagedFileError(
            f"'{source}' cannot be read as a checkpoint (its pickle is damaged: "
            f'{type(error).__name__}) and is not opened. Is the file complete? '
            'Download it again'
        ) from error


def _rule_of(what: str) -> Rule | None:
    """Find what is asked of a call; None if there is none that it may meet."""
    return _RULES.get(what) or _trusted(what)


def _trusted(what: str) -> Rule | None:
    """Let pass what the user's own code has declared safe."""
    for known in torch.serialization.get_safe_globals():
        name = known[1] if isinstance(known, tuple) else _full_name(known)
        if name == what:
            return lambda *_: Made('trusted')
    return None


def _full_name(known: Any) -> str:
    return f'{known.__module__}.{known.__qualname__}'


def _plain(kind: str, most: int = 0) -> Rule:
    """A rule for what is made of a few numbers or texts."""

    def rule(machine: Machine, what: str, args: tuple[Any, ...]) -> Made:
        few = len(args) <= most and not any(type(part) is tuple for part in args)
        if not few or any(isinstance(part, list) for part in args):
            machine.refuse(what)
        return Made(kind)

    return rule


def _collection(machine: Machine, what: str, args: tuple[Any, ...]) -> Made:
    """OrderedDict, Counter, set and Size, empty or of what is there."""
    if not args:
        return Made('dict')
    made = Made('dict')
    for part in args:
        if isinstance(part, Made) and part.kind == 'dict':
            made.count += part.count
        elif isinstance(part, (list, tuple)):
            made.count += len(part)
            machine.copy(len(part))
            _check_items(machine, what, part)
        else:
            machine.refuse(what)
    machine.copy(made.count)
    machine.work += OPERATIONS_OF_A_SET
    return made


def _check_items(machine: Machine, what: str, items: Iterable[Any]) -> None:
    for item in items:
        pair = what == 'collections.OrderedDict'
        if pair and not (isinstance(item, (list, tuple)) and len(item) == 2):
            raise TypeError
        key = item[0] if pair else item
        if type(key) is not str:
            machine.key(key)


def _encoded(machine: Machine, what: str, args: tuple[Any, ...]) -> bytes | str:
    """Bytes of a text; a number would ask for that many bytes."""
    if not args:
        return b''
    content, *coding = args
    if not isinstance(content, (str, bytes)) or any(
        code not in _ENCODINGS for code in coding
    ):
        machine.refuse(what)
    machine.copy(len(content))
    return content


def _array(machine: Machine, what: str, args: tuple[Any, ...]) -> Made:
    """An array of numpy, made empty and filled by what follows."""
    is_array = isinstance(args[0], Name) and args[0] == 'numpy.ndarray'
    if not is_array or args[1] != (0,):
        machine.refuse(what)
    return Made('array')


def _array_type(machine: Machine, what: str, args: tuple[Any, ...]) -> Made:
    code = args[0] if args else ''
    code = code.decode('latin1') if isinstance(code, bytes) else code
    if isinstance(code, str) and _OBJECTS.fullmatch(code):
        machine.refuse('numpy.dtypes.ObjectDType')
    if not isinstance(code, str) or not _DTYPE.fullmatch(code):
        machine.refuse(what)
    return Made('dtype')


def _scalar(machine: Machine, what: str, args: tuple[Any, ...]) -> Made:
    """One number of numpy; without its bytes it would be made of zeros."""
    if len(args) != 2 or not isinstance(args[1], (str, bytes)):
        machine.refuse(what)
    return Made('number')


def _subclass(machine: Machine, what: str, args: tuple[Any, ...]) -> Any:
    """A tensor of some class: the call of a function that makes it."""
    function, _, given = args[:3]
    known = isinstance(function, Name) and function.startswith('torch._utils.')
    if not known:
        machine.refuse(what)
    return machine.call(function, given)


def _of_tensor(machine: Machine, what: str, args: tuple[Any, ...]) -> Any:
    """A parameter around a tensor."""
    if not args:
        return Made('legacy tensor')
    if not isinstance(args[0], Made) or len(args) > 4:
        machine.refuse(what)
    return args[0]


def _empty(machine: Machine, what: str, args: tuple[Any, ...]) -> Made:
    """A tensor of the first versions of torch, filled by what follows."""
    if args:
        machine.refuse(what)
    return Made('legacy tensor')


def _without_data(machine: Machine, what: str, args: tuple[Any, ...]) -> Made:
    """A sparse tensor, of tensors that were looked at, or one of the meta device."""
    within = [part for arg in args if isinstance(arg, tuple) for part in arg]
    if any(
        isinstance(p, (tuple, list)) and len(p) > MOST_SIDES
        for p in args + tuple(within)
    ):
        machine.refuse(what)
    return Made('tensor')


_RULES: dict[str, Rule] = {
    'torch._utils._rebuild_tensor': Machine.tensor,
    'torch._utils._rebuild_tensor_v2': Machine.tensor,
    'torch._utils._rebuild_tensor_v3': Machine.tensor,
    'torch._utils._rebuild_qtensor': Machine.quantised,
    'torch._utils._rebuild_parameter': _of_tensor,
    'torch._utils._rebuild_parameter_with_state': _of_tensor,
    'torch._utils._rebuild_sparse_tensor': _without_data,
    'torch._utils._rebuild_meta_tensor_no_storage': _without_data,
    'torch._utils._rebuild_device_tensor_from_cpu_tensor': _of_tensor,
    'torch._utils._rebuild_device_tensor_from_numpy': _of_tensor,
    'torch._tensor._rebuild_from_type_v2': _subclass,
    'torch.nn.parameter.Parameter': _of_tensor,
    'torch.serialization._get_layout': _plain('number', 1),
    'torch.device': _plain('number', 2),
    'torch.Size': _collection,
    'collections.OrderedDict': _collection,
    'collections.Counter': _collection,
    'collections.defaultdict': _collection,
    'builtins.set': _collection,
    '__builtin__.set': _collection,
    'builtins.complex': _plain('number', 2),
    '__builtin__.complex': _plain('number', 2),
    'builtins.slice': _plain('number', 3),
    '__builtin__.slice': _plain('number', 3),
    'builtins.getattr': _plain('number', 2),
    '__builtin__.getattr': _plain('number', 2),
    'builtins.bytearray': _encoded,
    '__builtin__.bytearray': _encoded,
    '_codecs.encode': _encoded,
    'argparse.Namespace': _plain('object'),
    'mmengine.logging.history_buffer.HistoryBuffer': _plain('object'),
    'numpy.dtype': _array_type,
    **{f'numpy.{core}.multiarray._reconstruct': _array for core in ('core', '_core')},
    **{f'numpy.{core}.multiarray.scalar': _scalar for core in ('core', '_core')},
    'torch.Tensor': _empty,
    'torch.FloatTensor': _empty,
}
