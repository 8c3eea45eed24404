"""What loading pretrained weights did, as an object and as text."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHOWN = 10


class PretrainedWeightsError(RuntimeError):
    """Pretrained weights that do not cover the backbone; training must not start."""


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
        sha256: Of the file.
        dialect: Naming that the file was recognised to use.
        stages: Counts by part of the backbone, in the order of its parameters.
        missing: Names that the backbone has and the file does not.
        unexpected: Names in the file that nothing in the backbone takes.
        mismatched: Names in both with another shape: (name, here, in the file).
        heads: Number of tensors dropped because they belong to a classifier.
    """

    source: str
    sha256: str
    dialect: str
    stages: dict[str, StageCount] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    heads: int = 0

    @property
    def coverage(self) -> float:
        """Share of the backbone's parameters and statistics that were loaded."""
        expected = sum(s.parameters_expected for s in self.stages.values())
        loaded = sum(s.parameters for s in self.stages.values())
        return loaded / expected if expected else 1.0

    def __str__(self) -> str:
        """Render an aligned table and the first ten names of each list."""
        width = max((len(name) for name in self.stages), default=5)
        lines = [
            f'Pretrained weights: {self.coverage:.1%} of the backbone from '
            f'{self.source} (sha256 {self.sha256[:12]}, {self.dialect})',
            f'  {"stage":<{width}}  {"tensors":>11}  {"parameters":>23}',
        ]
        for name, s in self.stages.items():
            tensors = f'{s.tensors}/{s.tensors_expected}'
            parameters = f'{s.parameters:,}/{s.parameters_expected:,}'
            lines.append(f'  {name:<{width}}  {tensors:>11}  {parameters:>23}')
        if self.heads:
            lines.append(f'  {self.heads} tensors of the classifier left out')
        lines += _listing('missing in the file', self.missing)
        lines += _listing('unexpected in the file', self.unexpected)
        shapes = [f'{n}: {have} here, {got} there' for n, have, got in self.mismatched]
        lines += _listing('of another shape', shapes)
        return '\n'.join(lines)


def _listing(title: str, names: tuple[str, ...] | list[str]) -> list[str]:
    if not names:
        return []
    rest = len(names) - _SHOWN
    more = [f'    ... and {rest} more'] if rest > 0 else []
    return [f'  {len(names)} {title}:', *(f'    {n}' for n in names[:_SHOWN]), *more]
