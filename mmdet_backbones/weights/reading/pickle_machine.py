"""Goes through the operations of a pickle without making anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch

from ...errors import CheckpointError, DamagedFileError, printable

# A net of 50,000 tensors with the state of its optimizer has about half of them.
_MOST_OPERATIONS = 2_000_000
_DEEPEST = 10_000
# An empty set takes about eight times what an empty dict does.
OPERATIONS_OF_A_SET = 8
_LARGEST_INT = 1 << 60
_LEAVES_OF_ALL_KEYS = 10_000
MOST_SIDES = 64

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
_STORAGE = ('storage', b'storage')


class Made:
    """Stands for what the pickle makes: what it is, and how much it holds."""

    __slots__ = ('count', 'kind')

    def __init__(self, kind: str, count: int = 0) -> None:
        self.kind = kind
        self.count = count


class Name(str):
    """A class or a function."""

    __slots__ = ()


class UnknownOperationError(Exception):
    """An operation that torch refuses; everything up to it is in order."""


Rule = Callable[['Machine', str, tuple[Any, ...]], Any]


class Machine:
    """Goes through operations; the stack holds numbers, text, tuples and stand-ins."""

    def __init__(
        self,
        data: bytes,
        source: str,
        size: int,
        storages: Mapping[str, int] | None,
        rule_of: Callable[[str], Rule | None],
    ) -> None:
        self.data = data
        self.place = 0
        self.source = source
        self.size = size
        self.storages = storages
        self.rule_of = rule_of
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
            UnknownOperationError: At what torch refuses by itself.
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
                made = tuple(stack)
                stack = marks.pop()
                stack.append(made)
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
                made = tuple(stack[-count:])
                if len(made) != count:
                    raise IndexError
                stack[-count:] = [made]
            elif op in (0x88, 0x89):  # NEWTRUE, NEWFALSE
                stack.append(op == 0x88)
            elif op == 0x4E:  # NONE
                stack.append(None)
            elif op == 0x7D:  # EMPTY_DICT
                stack.append(Made('dict'))
            elif op == 0x5D:  # EMPTY_LIST
                stack.append([])
            elif op == 0x8F:  # EMPTY_SET
                work += OPERATIONS_OF_A_SET
                stack.append(Made('set'))
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
                stack.append(Name(name))
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
                raise UnknownOperationError
            if work > _MOST_OPERATIONS:
                raise CheckpointError(
                    f"'{self.source}' is not opened: it is made of more than "
                    f'{_MOST_OPERATIONS} parts, which no weights are'
                )

    def storage(self, given: Any) -> Made:
        """Take the name of a storage, which must be in the file."""
        if not isinstance(given, tuple) or len(given) < 5 or given[0] not in _STORAGE:
            raise TypeError
        kind, key, count = given[1], given[2], given[4]
        if not isinstance(kind, Name) or type(count) is not int or count < 0:
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
        return Made('storage', count)

    def call(self, what: Any, args: Any) -> Any:
        """Take a call, or the making of an object."""
        if not isinstance(what, Name) or not isinstance(args, tuple):
            raise TypeError
        rule = self.rule_of(what)
        if rule is None:
            self.refuse(what)
        return rule(self, what, args)

    def build(self, inst: Any, state: Any) -> None:
        """Take the state that an object is given."""
        if isinstance(state, Made):
            self.copy(state.count)
        if not isinstance(inst, Made):
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
        plain = inst.kind in ('dict', 'object') and isinstance(state, Made)
        array = inst.kind == 'array' and isinstance(state, tuple)
        if not plain and not array and inst.kind != 'trusted':
            self.refuse(f'the state of a {inst.kind}')

    def fill(self, target: Any, items: list[Any]) -> None:
        """Take what a dict is given."""
        if not isinstance(target, Made) or len(items) % 2:
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

    def tensor(self, what: str, args: tuple[Any, ...]) -> Made:
        """Take storage, offset, shape and strides of a tensor."""
        storage, offset, shape, strides = args[:4]
        if not isinstance(storage, Made) or storage.kind != 'storage':
            raise TypeError
        if len(shape) > MOST_SIDES:
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
        return Made('tensor', count)

    def quantised(self, what: str, args: tuple[Any, ...]) -> Made:
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
