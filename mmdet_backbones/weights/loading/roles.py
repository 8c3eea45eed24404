"""What every tensor of a net is for, and which roles a file leaves empty.

A role is the name of a tensor with the numbers of blocks replaced by ``*``. Layer
scales, position tables and tokens are a thousandth of the parameters of a net and
decide what its features are, so that a share of the parameters says nothing of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from ..names.dialect import is_computed
from ..names.libraries import without_root

if TYPE_CHECKING:
    from .target import Target

# A part of a name that counts blocks: a number, or a word for one with its number, as
# `layer4`, `stages_0` of timm's extractors, `s1` and `b2` of RegNet, `block1-0`.
_COUNTED = re.compile(
    r'\d+|[sb]\d+|\w*?(?:layer|stage|block|level|feature|transition|dark|res)s?_?\d+'
    r'(?:-\d+)?'
)


class Role(NamedTuple):
    """One role that is not filled.

    Attributes:
        name: As :func:`role_of` gives it.
        keys: Of the net, which the file does not fill.
        total: Of all tensors of this role in the net.
    """

    name: str
    keys: tuple[str, ...]
    total: int

    @property
    def is_empty(self) -> bool:
        """Whether the file fills none of its tensors."""
        return len(self.keys) == self.total

    def __str__(self) -> str:
        part = '' if self.is_empty else f'{len(self.keys)} of '
        return f'{self.name} ({part}{self.total} tensor{"s" * (self.total > 1)})'


def is_counted(part: str) -> bool:
    """Tell whether a part of a name, between two dots, counts blocks."""
    return _COUNTED.fullmatch(part) is not None


def role_of(key: str) -> str:
    """Replace the numbers of blocks in a name; what our classes put before it goes."""
    parts = without_root(key).split('.')
    owners = [re.sub(r'\d+', '*', p) if is_counted(p) else p for p in parts[:-1]]
    return '.'.join([*owners, parts[-1]])


def permitted(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Choose the names that are a pattern's, or whose role is.

    Args:
        names: Of tensors, of a net or of a file.
        patterns: As ``fnmatch`` takes them.
    """
    return {
        name
        for name in names
        for text in (name, without_root(name), role_of(name))
        if any(fnmatchcase(text, pattern) for pattern in patterns)
    }


def useless(names: Collection[str], patterns: Sequence[str]) -> list[str]:
    """Name the patterns that permit none of the names."""
    return [pattern for pattern in patterns if not permitted(names, (pattern,))]


def unfilled(backbone: Target, filled: Collection[str]) -> list[Role]:
    """Name the roles that a file leaves empty, wholly or in part.

    Args:
        backbone: That takes the weights.
        filled: Its keys that the file has in a form that fits.

    Returns:
        The roles in the order of the net, without what it computes by itself and what
        its arguments added to the net of the file, see :attr:`.Target.additions`.
    """
    keys = [key for key in backbone.state_dict() if not is_computed(key)]
    added = _added(backbone.additions, keys, filled)
    roles: dict[str, list[str]] = {}
    for key in keys:
        if key not in added:
            roles.setdefault(role_of(key), []).append(key)
    found = [
        Role(name, tuple(key for key in members if key not in filled), len(members))
        for name, members in roles.items()
    ]
    return [role for role in found if role.keys]


def _added(
    patterns: Sequence[str], keys: Sequence[str], filled: Collection[str]
) -> set[str]:
    """Choose the modules that no file of the plain net has.

    A file that has some of them, other than the last, which may stand at the end of a
    classifier, is one of such a net and has to have all.
    """
    added: set[str] = set()
    for pattern in patterns:
        modules: dict[str, list[str]] = {}
        for key in keys:
            if fnmatchcase(key, pattern):
                modules.setdefault(key.rpartition('.')[0], []).append(key)
        there = {
            module
            for module, members in modules.items()
            if any(key in filled for key in members)
        }
        if there <= set(list(modules)[-1:]):
            added.update(
                key
                for m, members in modules.items()
                if m not in there
                for key in members
            )
    return added
