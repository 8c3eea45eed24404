"""What loading pretrained weights did, as an object and as text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

_SHOWN = 10
_NAMED = 5


def percent(share: float) -> str:
    """Write a share with one digit; 100 % only of the whole."""
    text = f'{share:.1%}'
    return '99.9%' if share < 1 and text == '100.0%' else text


def some(names: Collection[str], what: str = 'tensors') -> str:
    """List the first few names, and how many there are."""
    shown = list(names)[:_NAMED]
    more = f', ... ({len(names)} {what})' if len(names) > _NAMED else ''
    return f'{", ".join(shown)}{more}'


class Mismatch(NamedTuple):
    """A tensor that both sides have, with another shape and no right way to fit it.

    Attributes:
        name: In the backbone.
        here: Its shape in the backbone.
        there: Its shape in the file.
    """

    name: str
    here: tuple[int, ...]
    there: tuple[int, ...]


class Adapted(NamedTuple):
    """A tensor that was made to fit.

    Attributes:
        name: In the backbone.
        source: Its shape in the file.
        target: Its shape in the backbone.
        how: What was done, in words.
    """

    name: str
    source: tuple[int, ...]
    target: tuple[int, ...]
    how: str


@dataclass(frozen=True)
class StageCount:
    """Tensors and parameters of one part of a backbone that were loaded."""

    tensors: int = 0
    tensors_expected: int = 0
    parameters: int = 0
    parameters_expected: int = 0


@dataclass(frozen=True)
class LoadReport:
    """Result of one loading of pretrained weights.

    Attributes:
        source: What ``checkpoint`` said.
        sha256: Of the file; empty as long as nothing was loaded from it.
        dialect: Naming that the file was recognised to use.
        prefix: Under which the weights stand in the file, ``''`` for none.
        stages: Counts by part of the backbone, in the order of its parameters.
        missing: Names that the backbone has and the file does not.
        unexpected: Names in the file, without the prefix, that nothing takes.
        mismatched: Tensors of another shape, which were left out.
        adapted: Tensors of another shape, which were made to fit.
        heads: Number of tensors dropped because they belong to a classifier.
        outside: Number of tensors of the file that do not stand under the prefix.
    """

    source: str
    sha256: str
    dialect: str
    prefix: str = ''
    stages: dict[str, StageCount] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    adapted: tuple[Adapted, ...] = ()
    heads: int = 0
    outside: int = 0

    @property
    def coverage(self) -> float:
        """Share of the backbone's parameters and statistics that were loaded."""
        expected = sum(s.parameters_expected for s in self.stages.values())
        loaded = sum(s.parameters for s in self.stages.values())
        return loaded / expected if expected else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the report as JSON can hold it."""
        lists = ('mismatched', 'adapted')
        return {
            'coverage': self.coverage,
            **asdict(self),
            **{name: [e._asdict() for e in getattr(self, name)] for name in lists},
        }

    def __str__(self) -> str:
        """Render an aligned table and the first ten names of each list."""
        under = f", under '{self.prefix}'" if self.prefix else ''
        lines = [
            f'Pretrained weights: {percent(self.coverage)} of the backbone from '
            f'{self.source} (sha256 {self.sha256[:12]}, {self.dialect}{under})',
            *self._table(),
        ]
        if self.heads:
            lines.append(f'  {self.heads} tensors of the classifier left out')
        if self.outside:
            lines.append(f'  {self.outside} tensors of other parts left out')
        fitted = [f'{a.name}: {a.source} to {a.target}, {a.how}' for a in self.adapted]
        lines += _listing('made to fit', fitted)
        lines += _listing('missing in the file', self.missing)
        lines += _listing('unexpected in the file', self.unexpected)
        shapes = [f'{n}: {have} here, {got} there' for n, have, got in self.mismatched]
        lines += _listing('of another shape', shapes)
        return '\n'.join(lines)

    def _table(self) -> list[str]:
        rows = [('stage', 'tensors', 'parameters')]
        rows += [
            (
                name,
                f'{s.tensors}/{s.tensors_expected}',
                f'{s.parameters:,}/{s.parameters_expected:,}',
            )
            for name, s in self.stages.items()
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            f'  {name:<{widths[0]}}  {tensors:>{widths[1]}}  {parameters:>{widths[2]}}'
            for name, tensors, parameters in rows
        ]


def _listing(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    rest = len(names) - _SHOWN
    more = [f'    ... and {rest} more'] if rest > 0 else []
    return [f'  {len(names)} {title}:', *(f'    {n}' for n in names[:_SHOWN]), *more]
