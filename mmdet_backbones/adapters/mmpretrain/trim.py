"""Take the parts out of a net of mmpretrain that none of its outputs needs.

A class of mmpretrain runs its whole chain of layers whatever is asked of it. Where the
chain is a list, the list is cut; where it is written out, what nobody needs is replaced
by something without parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...shapes.structure import has_part, part_of, replace_part

_LISTS = (nn.Sequential, nn.ModuleList)


class PassOn(nn.Module):
    """Stands where a part was whose result nobody needs: returns its arguments."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the argument, or the tuple of them."""
        return args[0] if len(args) == 1 else args


class Nothing(nn.Module):
    """Stands where the result of a part was added to something nobody needs."""

    def forward(self, x: Tensor) -> int:
        """Return 0, which can be added to any shape."""
        return 0


def shorten(net: nn.Module, unused: Sequence[str], kept: int, total: int) -> None:
    """Cut lists of modules and of their names, and pass on where there is no list.

    Args:
        net: Changed in place.
        unused: Names of parts that no output depends on; those that the net does not
            have are left out.
        kept: Number of levels up to the deepest one that is returned.
        total: Number of levels that there are.
    """
    unused = [name for name in unused if has_part(net, name)]
    for name in {name.rpartition('.')[0] for name in unused}:
        if isinstance(parent := net.get_submodule(name), _LISTS):
            _cut(parent, [u.rpartition('.')[2] for u in unused if _inside(u, name)])
    for attribute, value in list(vars(net).items()):
        if isinstance(value, list) and (names := _strings(value) & set(unused)):
            setattr(net, attribute, [v for v in value if v not in names])
            for child in names:
                delattr(net, child)
        elif attribute in ('num_stages', 'num_stage') and value == total:
            setattr(net, attribute, kept)
    pass_on(net, unused)


def pass_on(net: nn.Module, unused: Sequence[str], *_: int) -> None:
    """Replace unused modules by such that return what they are given."""
    _replace(net, unused, PassOn)


def add_nothing(net: nn.Module, unused: Sequence[str], *_: int) -> None:
    """Replace unused modules by such that return zero."""
    _replace(net, unused, Nothing)


# In the order in which they are tried, see :mod:`.prepare`.
STRATEGIES = (shorten, pass_on, add_nothing)


def _replace(net: nn.Module, unused: Sequence[str], by: type[nn.Module]) -> None:
    for name in unused:
        if not has_part(net, name):
            continue
        part = part_of(net, name)
        if isinstance(part, nn.Parameter):
            # The class still reads it.
            parent_name, _, leaf = name.rpartition('.')
            parent = net.get_submodule(parent_name)
            delattr(parent, leaf)
            parent.register_buffer(leaf, part.detach(), persistent=False)
        elif isinstance(part, nn.ModuleList):
            for number in range(len(part)):
                part[number] = by()
        else:
            replace_part(net, name, by())


def _cut(container: nn.Module, unused: Sequence[str]) -> None:
    names = list(container._modules)
    end = len(names)
    while end and (names[end - 1] in unused or _is_bare(container, names[end - 1])):
        end -= 1
    while end < len(names) and names[end] not in unused:
        end += 1
    for name in names[end:]:
        delattr(container, name)


def _strings(values: Sequence[Any]) -> set[str]:
    return {value for value in values if isinstance(value, str)}


def _inside(name: str, parent: str) -> bool:
    return name.rpartition('.')[0] == parent


def _is_bare(container: nn.Module, name: str) -> bool:
    return not any(True for _ in container.get_submodule(name).parameters())
