"""Refuse a pickle that would take more than its size before it is unpickled.

``torch.load(weights_only=True)`` runs no code of a file, but makes what the file asks
for: ``bytearray(1 << 40)``, a dict key that holds itself twice on forty floors, a
storage of more bytes than the file has. Here the operations of a pickle are gone
through without making anything; what no weights need is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import torch

from ...errors import CheckpointError, DamagedFileError, printable

# A net of 50,000 tensors with the state of its optimizer has about half of them.
_MOST_OPERATIONS = 2_000_000
_DEEPEST = 10_000
# An empty set takes about eight times what an empty dict does.
_OPERATIONS_OF_A_SET = 8
_LARGEST_INT = 1 << 60
_LEAVES_OF_ALL_KEYS = 10_000
_MOST_SIDES = 64
_ENCODINGS = ('latin1', 'latin-1', 'ascii', 'utf-8', 'utf8')
_DTYPE = re.compile(r'[<>|=]?(?:[biufcSU][1-9]\d{0,2}|[?befdgFDGhHilqBIQLp])')
_OBJECTS = re.compile(r'[<>|=]?O\d*')

_SIZES = {
    name: torch.empty(0, dtype=dtype).element_size()
    for name, dtype in (
        ('Double', torch.float64), ('Float', torch.float32), ('Half', torch.float16),
        ('BFloat16', torch.bfloat16), ('Long', torch.int64), ('Int', torch.int32),
        ('Short', torch.int16), ('Char', torch.int8), ('Byte', torch.uint8),
        ('Bool', torch.bool), ('ComplexDouble', torch.complex128),
        ('ComplexFloat', torch.complex64),
    )
} | {'QUInt8': 1, 'QInt8': 1, 'QInt32': 4, 'QUInt4x2': 1, 'QUInt2x4': 1}  # fmt: skip
# By operation: how many bytes follow that say a number, and whether it is signed.
_INTS = {0x4A: (4, True), 0x4B: (1, False), 0x4D: (2, False)}


class _Made:
    """Stands for what the pickle makes: what it is, and how much it holds."""

    __slots__ = ('count', 'kind')

    def __init__(self, kind: str, count: int = 0) -> None:
        self.kind = kind
        self.count = count


class _Name(str):
    """A class or a function."""

    __slots__ = ()


class _UnknownOperationError(Exception):
    """An operation that torch refuses; everything up to it is in order."""


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
    machine = _Machine(bytes(pickle), source, size, storages)
    try:
        for _ in range(pickles):
            machine.run()
    except _UnknownOperationError:
        pass
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # What is not even a pickle torch cannot read either.
        raise DamagedFileError(
            f"'{source}' cannot be read as a checkpoint (its pickle is damaged: "
            f'{type(error).__name__}) and is not opened. Is the file complete? '
            'Download it again'
        ) from error


class _Machine:
    """Goes through operations; the stack holds numbers, text, tuples and stand-ins."""

    def __init__(
        self,
        data: bytes,
        source: str,
        size: int,
        storages: Mapping[str, int] | None,
    ) -> None:
        self.data = data
        self.place = 0
        self.source = source
        self.size = size
        self.storages = storages
        self.claimed: dict[str, int] = {}
        self.all_claimed = 0
        self.work = 0
        # Copies of what is there already may take as much as was read, a few times.
        self.most_copied = 8 * len(data) + (1 << 20)
        self.copied = 0
        self.key_leaves = 0

    # A function for each operation would take twice the time.
    def run(self) -> None:  # noqa: C901
        """Go to the end of one pickle.

        Raises:
            _UnknownOperationError: At what torch refuses by itself.
        """
        data, place, work = self.data, self.place, self.work
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[int, Any] = {}
        while True:
            op = data[place]
            place += 1
            work += 1
            if op == 0x71:  # BINPUT
                memo[data[place]] = stack[-1]
                place += 1
            elif op == 0x72:  # LONG_BINPUT
                memo[int.from_bytes(data[place : place + 4], 'little')] = stack[-1]
                place += 4
            elif op == 0x68:  # BINGET
                stack.append(memo[data[place]])
                place += 1
            elif op == 0x6A:  # LONG_BINGET
                stack.append(memo[int.from_bytes(data[place : place + 4], 'little')])
                place += 4
            elif op in _INTS:
                count, signed = _INTS[op]
                part = data[place : place + count]
                stack.append(int.from_bytes(part, 'little', signed=signed))
                place += count
            elif op == 0x28:  # MARK
                marks.append(stack)
                stack = []
                if len(marks) > _DEEPEST:
                    raise ValueError
            elif op == 0x74:  # TUPLE
                items, stack = tuple(stack), marks.pop()
                stack.append(items)
            elif op == 0x58:  # BINUNICODE
                count = int.from_bytes(data[place : place + 4], 'little')
                place += 4 + count
                if place > len(data):
                    raise IndexError
                text = data[place - count : place]
                stack.append(text.decode('utf-8', 'surrogatepass'))
            elif op == 0x51:  # BINPERSID
                stack.append(self.storage(stack.pop()))
            elif op == 0x52:  # REDUCE
                args, what = stack.pop(), stack.pop()
                stack.append(self.call(what, args))
            elif op == 0x29:  # EMPTY_TUPLE
                stack.append(())
            elif op in (0x85, 0x86, 0x87):  # TUPLE1 to TUPLE3
                count = op - 0x84
                items = tuple(stack[-count:])
                if len(items) != count:
                    raise IndexError
                stack[-count:] = [items]
            elif op in (0x88, 0x89):  # NEWTRUE, NEWFALSE
                stack.append(op == 0x88)
            elif op == 0x4E:  # NONE
                stack.append(None)
            elif op == 0x7D:  # EMPTY_DICT
                stack.append(_Made('dict'))
            elif op == 0x5D:  # EMPTY_LIST
                stack.append([])
            elif op == 0x8F:  # EMPTY_SET
                work += _OPERATIONS_OF_A_SET
                stack.append(_Made('set'))
            elif op == 0x47:  # BINFLOAT
                stack.append(0.5)
                place += 8
            elif op == 0x75:  # SETITEMS
                items, stack = stack, marks.pop()
                self.fill(stack[-1], items)
            elif op == 0x73:  # SETITEM
                value, key = stack.pop(), stack.pop()
                self.fill(stack[-1], [key, value])
            elif op == 0x65:  # APPENDS
                items, stack = stack, marks.pop()
                self.extend(stack[-1], items)
            elif op == 0x61:  # APPEND
                item = stack.pop()
                self.extend(stack[-1], [item])
            elif op == 0x63:  # GLOBAL
                module_end = data.index(b'\n', place)
                end = data.index(b'\n', module_end + 1)
                name = data[place:end].decode().replace('\n', '.')
                place = end + 1
                stack.append(_Name(name))
            elif op == 0x8A:  # LONG1
                count = data[place]
                part = data[place + 1 : place + 1 + count]
                stack.append(int.from_bytes(part, 'little', signed=True))
                place += 1 + count
            elif op == 0x55:  # SHORT_BINSTRING
                count = data[place]
                stack.append(data[place + 1 : place + 1 + count])
                place += 1 + count
            elif op == 0x81:  # NEWOBJ
                args, what = stack.pop(), stack.pop()
                stack.append(self.call(what, args))
            elif op == 0x62:  # BUILD
                state = stack.pop()
                self.build(stack[-1], state)
            elif op == 0x80:  # PROTO
                place += 1
            elif op == 0x2E:  # STOP
                self.place, self.work = place, work
                return
            else:
                raise _UnknownOperationError
            if work > _MOST_OPERATIONS:
                raise CheckpointError(
                    f"'{self.source}' is not opened: it is made of more than "
                    f'{_MOST_OPERATIONS} parts, which no weights are'
                )

    def storage(self, given: Any) -> _Made:
        """Take the name of a storage, which must be in the file."""
        if not isinstance(given, tuple) or len(given) < 5 or given[0] not in _STORAGE:
            raise TypeError
        kind, key, count = given[1], given[2], given[4]
        if not isinstance(kind, _Name) or type(count) is not int or count < 0:
            raise TypeError
        if type(key) not in (str, int, bytes):
            raise TypeError
        name = kind.rpartition('.')[2].removesuffix('Storage')
        need = count * _SIZES.get(name, 1)
        key = key.decode() if isinstance(key, bytes) else str(key)
        more = need - self.claimed.get(key, 0)
        if more > 0:
            self.claimed[key] = need
            self.all_claimed += more
        have = self.size if self.storages is None else self.storages.get(key, 0)
        if need > have or self.all_claimed > self.size:
            need = max(need, self.all_claimed)
            self.damaged(f'storages of {need} bytes where the file has {have}')
        return _Made('storage', count)

    def call(self, what: Any, args: Any) -> Any:
        """Take a call, or the making of an object."""
        if not isinstance(what, _Name) or not isinstance(args, tuple):
            raise TypeError
        rule = _RULES.get(what)
        if rule is None:
            rule = _trusted(what)
        if rule is None:
            self.refuse(what)
        return rule(self, what, args)

    def build(self, inst: Any, state: Any) -> None:
        """Take the state that an object is given."""
        if isinstance(state, _Made):
            self.copy(state.count)
        if not isinstance(inst, _Made):
            raise TypeError
        if inst.kind == 'dtype':
            if isinstance(state, tuple) and any(
                type(part) is int and not -1 <= part < 1 << 16 for part in state
            ):
                self.refuse('numpy.dtype')
            return
        if inst.kind == 'legacy tensor':
            self.tensor('torch.Tensor', state[:4] if isinstance(state, tuple) else ())
            return
        plain = inst.kind in ('dict', 'object') and isinstance(state, _Made)
        array = inst.kind == 'array' and isinstance(state, tuple)
        if not plain and not array and inst.kind != 'trusted':
            self.refuse(f'the state of a {inst.kind}')

    def fill(self, target: Any, items: list[Any]) -> None:
        """Take what a dict is given."""
        if not isinstance(target, _Made) or len(items) % 2:
            raise TypeError
        for key in items[::2]:
            if type(key) is not str:
                self.key(key)
        target.count += len(items) // 2

    def extend(self, target: Any, items: list[Any]) -> None:
        """Take what a list is given."""
        if not isinstance(target, list):
            raise TypeError
        # Only few functions of a pickle look into a list.
        target.extend(items)

    def key(self, key: Any) -> None:
        """Take what is going to be hashed: nothing of which many are alike or large."""
        waiting = [key]
        while waiting:
            part = waiting.pop()
            if isinstance(part, tuple):
                self.key_leaves += 1 + len(part)
                if self.key_leaves > _LEAVES_OF_ALL_KEYS:
                    self.refuse('keys of tuples within tuples')
                waiting += part
            elif type(part) is int and abs(part) >= _LARGEST_INT:
                self.refuse('a key that is a number of more than 60 bits')

    def tensor(self, what: str, args: tuple[Any, ...]) -> _Made:
        """Take storage, offset, shape and strides of a tensor."""
        storage, offset, shape, strides = args[:4]
        if not isinstance(storage, _Made) or storage.kind != 'storage':
            raise TypeError
        if len(shape) > _MOST_SIDES:
            self.refuse(f'a tensor of {len(shape)} dimensions')
        count, last = 1, offset
        for side, stride in zip(shape, strides, strict=True):
            if (
                type(side) is not int
                or type(stride) is not int
                or min(side, stride) < 0
            ):
                raise TypeError
            count *= side
            last += (side - 1) * stride
        if type(offset) is not int or offset < 0 or (count and last >= storage.count):
            self.damaged(
                f'a tensor of {count} numbers that ends behind the {storage.count} of '
                'its storage'
            )
        return _Made('tensor', count)

    def quantised(self, what: str, args: tuple[Any, ...]) -> _Made:
        """Take a tensor that is made new, not laid over its storage."""
        made = self.tensor(what, args)
        if made.count > args[0].count:
            self.refuse(what)
        return made

    def copy(self, count: int) -> None:
        """Take that something is made of what is there already."""
        self.copied += count
        if self.copied > self.most_copied:
            raise CheckpointError(
                f"'{self.source}' is not opened: it copies parts of itself over and "
                'over, which no weights do'
            )

    def refuse(self, what: str) -> NoReturn:
        raise more_than_weights(self.source, what)

    def damaged(self, what: str) -> NoReturn:
        raise DamagedFileError(
            f"'{self.source}' is not opened: it names {what}. Is the file complete? "
            'Download it again'
        )


def more_than_weights(source: str, what: str) -> CheckpointError:
    """Say that a pickle names what is no part of weights."""
    return CheckpointError(
        f"'{source}' holds more than weights and is not opened: it names "
        f'{printable(what)}, and making such an object could run any code or '
        'take any amount of memory. If you trust it, load it where it was made and '
        'save only its tensors: torch.save(model.state_dict(), path)'
    )


_Rule = Callable[[_Machine, str, tuple[Any, ...]], Any]


def _trusted(what: str) -> _Rule | None:
    """Let pass what the user's own code has declared safe."""
    for known in torch.serialization.get_safe_globals():
        name = known[1] if isinstance(known, tuple) else _full_name(known)
        if name == what:
            return lambda *_: _Made('trusted')
    return None


def _full_name(known: Any) -> str:
    return f'{known.__module__}.{known.__qualname__}'


def _plain(kind: str, most: int = 0) -> _Rule:
    """A rule for what is made of a few numbers or texts."""

    def rule(machine: _Machine, what: str, args: tuple[Any, ...]) -> _Made:
        few = len(args) <= most and not any(type(part) is tuple for part in args)
        if not few or any(isinstance(part, list) for part in args):
            machine.refuse(what)
        return _Made(kind)

    return rule


def _collection(machine: _Machine, what: str, args: tuple[Any, ...]) -> _Made:
    """OrderedDict, Counter, set and Size, empty or of what is there."""
    if not args:
        return _Made('dict')
    made = _Made('dict')
    for part in args:
        if isinstance(part, _Made) and part.kind == 'dict':
            made.count += part.count
        elif isinstance(part, (list, tuple)):
            made.count += len(part)
            machine.copy(len(part))
            _check_items(machine, what, part)
        else:
            machine.refuse(what)
    machine.copy(made.count)
    machine.work += _OPERATIONS_OF_A_SET
    return made


def _check_items(machine: _Machine, what: str, items: Iterable[Any]) -> None:
    for item in items:
        pair = what == 'collections.OrderedDict'
        if pair and not (isinstance(item, (list, tuple)) and len(item) == 2):
            raise TypeError
        key = item[0] if pair else item
        if type(key) is not str:
            machine.key(key)


def _encoded(machine: _Machine, what: str, args: tuple[Any, ...]) -> bytes | str:
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


def _array(machine: _Machine, what: str, args: tuple[Any, ...]) -> _Made:
    """An array of numpy, made empty and filled by what follows."""
    is_array = isinstance(args[0], _Name) and args[0] == 'numpy.ndarray'
    if not is_array or args[1] != (0,):
        machine.refuse(what)
    return _Made('array')


def _array_type(machine: _Machine, what: str, args: tuple[Any, ...]) -> _Made:
    code = args[0] if args else ''
    code = code.decode('latin1') if isinstance(code, bytes) else code
    if isinstance(code, str) and _OBJECTS.fullmatch(code):
        machine.refuse('numpy.dtypes.ObjectDType')
    if not isinstance(code, str) or not _DTYPE.fullmatch(code):
        machine.refuse(what)
    return _Made('dtype')


def _scalar(machine: _Machine, what: str, args: tuple[Any, ...]) -> _Made:
    """One number of numpy; without its bytes it would be made of zeros."""
    if len(args) != 2 or not isinstance(args[1], (str, bytes)):
        machine.refuse(what)
    return _Made('number')


def _subclass(machine: _Machine, what: str, args: tuple[Any, ...]) -> Any:
    """A tensor of some class: the call of a function that makes it."""
    function, _, given = args[:3]
    known = isinstance(function, _Name) and function.startswith('torch._utils.')
    if not known:
        machine.refuse(what)
    return machine.call(function, given)


def _of_tensor(machine: _Machine, what: str, args: tuple[Any, ...]) -> Any:
    """A parameter around a tensor."""
    if not args:
        return _Made('legacy tensor')
    if not isinstance(args[0], _Made) or len(args) > 4:
        machine.refuse(what)
    return args[0]


def _empty(machine: _Machine, what: str, args: tuple[Any, ...]) -> _Made:
    """A tensor of the first versions of torch, filled by what follows."""
    if args:
        machine.refuse(what)
    return _Made('legacy tensor')


def _without_data(machine: _Machine, what: str, args: tuple[Any, ...]) -> _Made:
    """A sparse tensor, of tensors that were looked at, or one of the meta device."""
    within = [part for arg in args if isinstance(arg, tuple) for part in arg]
    if any(
        isinstance(p, (tuple, list)) and len(p) > _MOST_SIDES
        for p in args + tuple(within)
    ):
        machine.refuse(what)
    return _Made('tensor')


_STORAGE = ('storage', b'storage')
_RULES: dict[str, _Rule] = {
    'torch._utils._rebuild_tensor': _Machine.tensor,
    'torch._utils._rebuild_tensor_v2': _Machine.tensor,
    'torch._utils._rebuild_tensor_v3': _Machine.tensor,
    'torch._utils._rebuild_qtensor': _Machine.quantised,
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
