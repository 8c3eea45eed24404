"""What a check of a config finds, as objects, as a table and as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ..detector_config.detector import DetectorConfig
from ..detector_config.read import merged_with
from ..errors import settings_of, shown

SEVERITIES = ('error', 'warning', 'note')


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a config.

    Attributes:
        rule: What kind of mistake it is, in a word or two.
        key: Place in the config, dotted as in ``--cfg-options``.
        problem: What is wrong, with what is expected and what was given.
        cure: Lines to write, each ``key = value`` of the whole config; empty where
            there is no one line that mends it.
        remove: Settings to take out of the file where they were written, as keys of
            the whole config.
        severity: ``'error'`` if training would fail or be worthless, ``'warning'`` if
            it would be worse than it has to be, ``'note'`` for what the config asks
            for and a reader may not expect.
    """

    rule: str
    key: str
    problem: str
    cure: tuple[str, ...] = ()
    severity: str = 'error'
    remove: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.severity in SEVERITIES, self.severity
        # What it quotes may come from a file.
        object.__setattr__(self, 'problem', shown(self.problem))

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return asdict(self)

    def __str__(self) -> str:
        """Render the finding in a few lines."""
        lines = [f'[{self.severity}] {self.rule}: {self.key}', f'  {self.problem}']
        lines += [f'  write  {line}' for line in self.cure]
        return '\n'.join(lines + [f'  remove  {key}' for key in self.remove])


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return errors before warnings before notes, each finding once."""
    once = list(dict.fromkeys(findings))
    return sorted(once, key=lambda finding: SEVERITIES.index(finding.severity))


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that forbid a training."""
    return [finding for finding in findings if finding.severity == 'error']


def describe(findings: Sequence[Finding]) -> str:
    """Render all findings as text: what they come to, then each, errors first."""
    return '\n'.join([summary(findings), *map(str, in_order(findings))])


def summary(findings: Sequence[Finding]) -> str:
    """Say in a line whether a config can be trained, and how much was found."""
    kinds = [finding.severity for finding in findings]
    counted = [(kinds.count(kind), kind) for kind in SEVERITIES if kind in kinds]
    counts = ', '.join(f'{n} {kind}{"s" * (n > 1)}' for n, kind in counted)
    if 'error' in kinds:
        return f'{counts}: will not train as it is meant to'
    return f'sound: {counts or "nothing is wrong"}'


def cure_of(detector: DetectorConfig, error: Exception) -> tuple[str, ...]:
    """Lines that an exception of the backbone names, see :class:`ArgumentError`."""
    key = f'{detector.key}.backbone'
    return tuple(line(f'{key}.{n}', value) for n, value in settings_of(error).items())


class Cure(NamedTuple):
    """What to do about a finding, see :class:`Finding`."""

    lines: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


def our_class(detector: DetectorConfig) -> Cure:
    """Put our class in the place of the host's class of the same name, if there is."""
    if detector.twin_type is None:
        return Cure()
    key = f'{detector.key}.backbone'
    return Cure(
        (line(f'{key}.type', detector.twin_type),),
        tuple(f'{key}.{name}' for name in detector.twin_refuses),
    )


def instead(detector: DetectorConfig, key: str, value: Mapping[str, Any]) -> str:
    """Spell a dict that takes the place of what stands there, as a line of a config.

    ``_delete_`` goes only where something is inherited, anywhere else it would stay.
    """
    *place, last = key.split('.')
    inherited = any(last in old for old in merged_with(detector.config, tuple(place)))
    return line(key, {**({'_delete_': True} if inherited else {}), **value})


def line(key: str, value: Any) -> str:
    """Spell a setting as a line of a config."""
    return f'{key} = {value!r}'
