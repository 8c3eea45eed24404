"""Take the parts out of a net of another library that none of its outputs needs.

Its class runs the whole chain of layers whatever is asked of it. Where the chain is a
list, the list is cut; where it is written out, what nobody needs is replaced by
something without parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..shapes.structure import has_part, part_of

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
    cut_lists(net, unused)
    for attribute, value in list(vars(net).items()):
        if isinstance(value, list) and (names := _strings(value) & set(unused)):
            setattr(net, attribute, [v for v in value if v not in names])
            for child in names:
                delattr(net, child)
        elif attribute in ('num_stages', 'num_stage') and value == total:
            setattr(net, attribute, kept)
    pass_on(net, unused)


def cut_lists(net: nn.Module, unused: Sequence[str]) -> None:
    """Cut lists of modules behind the last one that is used.

    Args:
        net: Changed in place.
        unused: Names of its parts that no output depends on.
    """
    leaves: dict[nn.Module, list[str]] = {}
    for name in unused:
        if in_list(net, name):
            leaves.setdefault(parent_of(net, name), []).append(name.rpartition('.')[2])
    for parent, names in leaves.items():
        _cut(parent, names)


def parent_of(net: nn.Module, name: str) -> nn.Module:
    """Return the module that holds a part."""
    return net.get_submodule(name.rpartition('.')[0])


def in_list(net: nn.Module, name: str) -> bool:
    """Tell whether a part is a member of a list of modules."""
    return isinstance(parent_of(net, name), _LISTS)


def pass_on(net: nn.Module, unused: Sequence[str], *_: int) -> None:
    """Replace unused modules by such that return what they are given."""
    _replace(net, unused, 'pass on')


def add_nothing(net: nn.Module, unused: Sequence[str], *_: int) -> None:
    """Replace unused modules by such that return zero."""
    _replace(net, unused, 'nothing')


# In the order in which they are tried, see :mod:`.mmpretrain.prepare`.
STRATEGIES = (shorten, pass_on, add_nothing)


# What can stand in the place of a part: nothing at all, where a class asks whether the
# part is there, or one of the modules above.
WAYS = ('none', 'pass on', 'nothing')
_MODULES = {'pass on': PassOn, 'nothing': Nothing}


def replace_by(net: nn.Module, name: str, way: str) -> None:
    """Put something without parameters in the place of a part.

    Args:
        net: Changed in place.
        name: Of a module or a parameter, which becomes a buffer that is not saved.
        way: One of :data:`WAYS`.
    """
    part, parent, leaf = (
        part_of(net, name),
        parent_of(net, name),
        name.rpartition('.')[2],
    )
    if way == 'none':
        setattr(parent, leaf, None)
    elif isinstance(part, nn.Parameter):
        # The class still reads it.
        delattr(parent, leaf)
        parent.register_buffer(leaf, part.detach(), persistent=False)
    elif isinstance(part, nn.ModuleList):
        for number in range(len(part)):
            part[number] = _MODULES[way]()
    else:
        setattr(parent, leaf, _MODULES[way]())


def _replace(net: nn.Module, unused: Sequence[str], way: str) -> None:
    for name in unused:
        if has_part(net, name):
            replace_by(net, name, way)


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


def _is_bare(container: nn.Module, name: str) -> bool:
    return not any(True for _ in container.get_submodule(name).parameters())
