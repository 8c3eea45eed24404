"""Conditions that listed backbones meet, and what to say if none meets them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..commands import command
from .figures import Figures

# Those with texts of their own may allow it too, on conditions that have to be read.
COMMERCIAL = ('apache-2.0', 'bsd-3-clause', 'cc-by-4.0', 'mit')


@dataclass(frozen=True)
class Condition:
    """One thing that a backbone has to be.

    Attributes:
        flag: As a command line says it.
        holds: Tells whether figures meet it.
        there_is: Says what some figures have instead.
    """

    flag: str
    holds: Callable[[Figures], bool]
    there_is: Callable[[Sequence[Figures]], str]


def conditions_of(
    strides: Collection[int], max_parameters: int | None, licence: str | None
) -> list[Condition]:
    """Make conditions of what a user asks for; what is left out makes none."""
    conditions = []
    if strides:
        flag = f'--stride {" ".join(map(str, strides))}'
        conditions.append(
            Condition(
                flag, lambda known: set(strides) <= _strides(known), _strides_there
            )
        )
    if max_parameters is not None:
        conditions.append(
            Condition(
                f'--max-params {max_parameters / 1e6:g}M',
                lambda known: known.parameters <= max_parameters,
                lambda all_: (
                    f'the smallest has {min(map(_parameters, all_)) / 1e6:.2f}M'
                ),
            )
        )
    if licence is not None:
        conditions.append(
            Condition(
                f'--licence {licence}',
                lambda known: fits_licence(known.licence, licence),
                _licences_there,
            )
        )
    return conditions


def fits_licence(licence: str | None, wanted: str) -> bool:
    """Tell whether weights are of a licence.

    Args:
        licence: Of the weights, None if there are none, which is no licence.
        wanted: Its name, a glob (``'cc-by-*'``), or ``'commercial'``, the same as
            ``'permissive'``, for one of :data:`COMMERCIAL`. Capitals and small letters
            are the same.
    """
    if licence is None:
        return False
    if wanted.lower() in ('commercial', 'permissive'):
        return licence in COMMERCIAL
    return fnmatchcase(licence.lower(), wanted.lower())


def nothing_left(
    what: str,
    conditions: Sequence[Condition],
    measured: Sequence[Figures],
    refused: Mapping[str, str],
    left_out: Sequence[str],
) -> str:
    """Say why no backbone is left.

    Args:
        what: The backbones that were looked at, after "the 12 backbones".
        conditions: That none meets.
        measured: Figures of those that can be used.
        refused: The others, and why.
        left_out: Those without figures.
    """
    if measured:
        return f'of the {len(measured)} backbones {what} {_unmet(conditions, measured)}'
    if left_out:
        return (
            f'the {len(left_out)} backbones {what} have no figures: '
            f'{command("inspect")} {left_out[0]} inspects one'
        )
    name, reason = next(iter(refused.items()))
    return f'the {len(refused)} backbones {what} cannot be used: {name}: {reason}'


def _unmet(conditions: Sequence[Condition], known: Sequence[Figures]) -> str:
    parts = []
    for condition in conditions:
        count = sum(map(condition.holds, known))
        there = '' if count else f' ({condition.there_is(known)})'
        parts.append(f'{count or "none"} with {condition.flag}{there}')
    together = ', none with all of it' if len(parts) > 1 else ''
    return f'there are {", ".join(parts)}{together}'


def _parameters(known: Figures) -> int:
    return known.parameters


def _strides(known: Figures) -> set[int]:
    return {level.stride for level in known.levels}


def _strides_there(all_: Sequence[Figures]) -> str:
    found = sorted(set().union(*map(_strides, all_)))
    return f'there are {", ".join(map(str, found))}'


def _licences_there(all_: Sequence[Figures]) -> str:
    found = Counter(known.licence or 'without weights' for known in all_)
    return 'there are ' + ', '.join(f'{k} ({n})' for k, n in found.most_common())
