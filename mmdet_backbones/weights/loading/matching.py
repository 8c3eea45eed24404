"""Find which tensor of a checkpoint belongs to which one of a backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..names.dialect import AVERAGED, OWN, PREFIXES, Dialect, is_computed, is_resized
from ..names.rewriting import Rewritten, rewritten


@dataclass(frozen=True)
class Found:
    """A tensor of a file in the place of one of a backbone.

    Attributes:
        names: In the file; several are stacked along the first dimension.
        shape: In the form of the backbone.
        make: Makes the tensor; it shares memory with the file's where it can.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


@dataclass(frozen=True)
class Match:
    """A checkpoint laid over a backbone.

    Attributes:
        dialect: In which the names of the file were understood.
        prefix: Under which the weights stand.
        found: Tensors by key of the backbone, whatever their shape.
        heads: Number of tensors of the classifier.
        unexpected: Other names, without the prefix, that nothing in the backbone has.
        outside: Number of tensors that do not stand under the prefix.
    """

    dialect: Dialect = OWN
    prefix: str = ''
    found: dict[str, Found] = field(default_factory=dict)
    heads: int = 0
    unexpected: tuple[str, ...] = ()
    outside: int = 0

    def coverage(self, expected: Mapping[str, Tensor]) -> float:
        """Share of the parameters and statistics whose names and shapes fit."""
        sizes = {k: v.numel() for k, v in expected.items() if not is_computed(k)}
        loaded = sum(
            size
            for key, size in sizes.items()
            if key in self.found and self.found[key].shape == tuple(expected[key].shape)
        )
        return loaded / max(sum(sizes.values()), 1)


def match(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    dialects: Sequence[Dialect],
    prefixes: Iterable[str] = PREFIXES,
) -> Match:
    """Choose the prefix and the dialect under which most tensors find their place.

    Args:
        state_dict: Of the file.
        expected: Of the backbone.
        dialects: Those of its class; its own names are tried in any case.
        prefixes: What may stand before the names.

    Returns:
        The best match; without any tensor if nothing fits.
    """
    readings = _readings(state_dict, expected, dialects, prefixes)
    # The first of those that fit alike.
    best = max(readings, key=lambda r: _score(r, expected), default=None)
    chosen = Match()
    if best is not None and best.names:
        found = {
            key: _found(
                tuple(best.in_file[name] for name in names),
                best.file,
                best.dialect.reader(key, names[0]),
                best.rewritten,
                best.prefix,
            )
            for key, names in best.names.items()
        }
        chosen = Match(best.dialect, best.prefix, found)
    averaged = _averaged(state_dict, expected, chosen)
    if averaged is not None:
        return _with_rest(averaged, state_dict, None)
    return _with_rest(chosen, state_dict, best.rewritten if best else None)


class _Reading(NamedTuple):
    """One way to understand the names of a file.

    Attributes:
        dialect: In which they are understood.
        prefix: Under which they stand.
        names: In the dialect, of what the file has of each tensor of the backbone.
        in_file: What stands in the file, by name in the dialect.
        file: Its tensors; of one that was rewritten, those without the prefix.
        rewritten: What they were before, if a function had to rewrite the file.
    """

    dialect: Dialect
    prefix: str
    names: dict[str, tuple[str, ...]]
    in_file: dict[str, str]
    file: Mapping[str, Tensor]
    rewritten: Rewritten | None = None


def _readings(
    state_dict: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    dialects: Sequence[Dialect],
    prefixes: Iterable[str],
) -> Iterator[_Reading]:
    spelled: dict[str, dict[str, tuple[str, ...]]] = {}
    for prefix in prefixes:
        cut = len(prefix)
        view = {key[cut:]: key for key in state_dict if key.startswith(prefix)}
        for dialect in (OWN, *(d for d in dialects if d.fits(view))) if view else ():
            file, changed = state_dict, None
            in_file = {new: view[old] for new, old in dialect.renew(view).items()}
            if dialect.rewrite is not None:
                given = {short: state_dict[key] for short, key in view.items()}
                changed = rewritten(dialect.rewrite, given)
                if changed is None:
                    continue
                file, in_file = changed.shapes, {key: key for key in changed.shapes}
            # A table over two sources depends on the file, any other is spelled once.
            if dialect.through is not None or dialect.name not in spelled:
                spelled[dialect.name] = dialect.names(expected, in_file)
            names = {
                key: parts
                for key, parts in spelled[dialect.name].items()
                if all(part in in_file for part in parts)
            }
            yield _Reading(dialect, prefix, names, in_file, file, changed)


def _score(reading: _Reading, expected: Mapping[str, Tensor]) -> tuple[int, int]:
    """Count the names that fit, then those whose size fits or can be made to fit."""
    sized = sum(
        is_resized(key)
        or expected[key].numel()
        == sum(reading.file[reading.in_file[name]].numel() for name in names)
        for key, names in reading.names.items()
    )
    return len(reading.names), sized


def _found(
    names: tuple[str, ...],
    file: Mapping[str, Tensor],
    change: Callable[[Tensor], Tensor] | None = None,
    changed: Rewritten | None = None,
    prefix: str = '',
) -> Found:
    def join(file: Mapping[str, Tensor]) -> Tensor:
        tensors = [file[name] for name in names]
        tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        return tensor if change is None else change(tensor)

    def make() -> Tensor:
        # Late, so that no more than one tensor is held twice.
        return join(file if changed is None else changed.tensors)

    if change is not None:
        shape = tuple(join(file).shape)
    elif len(names) > 1:
        shape = (sum(file[n].shape[0] for n in names), *file[names[0]].shape[1:])
    else:
        shape = tuple(file[names[0]].shape)
    if changed is not None:
        names_in_file = [old for name in names for old in changed.origins[name]]
        return Found(tuple(prefix + name for name in names_in_file), shape, make)
    return Found(names, shape, make)


def _averaged(
    state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor], best: Match
) -> Match | None:
    """Take mmcls' averaged copies if the file has nothing else under these names."""
    for prefix in (f'{AVERAGED}backbone_', AVERAGED):
        names = {key: prefix + key.replace('.', '_') for key in expected}
        found = {
            key: _found((name,), state_dict)
            for key, name in names.items()
            if name in state_dict
        }
        if len(found) > len(best.found):
            return Match(OWN, prefix, found)
    return None


def _with_rest(
    chosen: Match, state_dict: Mapping[str, Tensor], changed: Rewritten | None
) -> Match:
    """Say what becomes of the tensors that have no place."""
    used = {name for found in chosen.found.values() for name in found.names}
    dropped = set(changed.dropped) if changed is not None else set()
    became = changed.became if changed is not None else {}
    heads, outside, unexpected = 0, 0, []
    for key in state_dict:
        if key in used:
            continue
        short = key.removeprefix(chosen.prefix)
        if not key.startswith(chosen.prefix):
            outside += 1
        elif any(chosen.dialect.is_head(name) for name in became.get(short, (short,))):
            heads += 1
        elif short.startswith(AVERAGED) or short in dropped:
            outside += 1
        elif not is_computed(short):
            unexpected.append(short)
    return replace(chosen, heads=heads, unexpected=tuple(unexpected), outside=outside)


def all_prefixes(state_dict: Mapping[str, Any]) -> Iterator[str]:
    """Name everything that may be a prefix in a file, the shortest first."""
    found: dict[str, None] = {}
    for depth in range(1, 5):
        for key in state_dict:
            parts = key.split('.')
            if len(parts) > depth + 1:
                found['.'.join(parts[:depth]) + '.'] = None
    yield from list(found)[:400]
