"""What is wrong with an environment, and the commands that cure it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from mmdet_backbones.compat.doctor.rules import ERROR, EnvironmentFinding, fits, judge
from mmdet_backbones.compat.doctor.snapshot import (
    DISTRIBUTIONS,
    Snapshot,
    read_snapshot,
    run_trials,
)

__all__ = ['Diagnosis', 'EnvironmentFinding', 'diagnose', 'explain']


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        versions: Python and every distribution that matters -> version, None where
            it is not installed.
        operators: Where the operators of mmcv come from.
        notes: What is unusual here and taken care of.
        findings: What is wrong, errors first.
    """

    versions: dict[str, str | None]
    operators: str
    notes: tuple[str, ...]
    findings: tuple[EnvironmentFinding, ...]

    @property
    def healthy(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != ERROR for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and lists, for JSON."""
        return {'healthy': self.healthy, **asdict(self)}


def diagnose(timeout: float = 60.0) -> Diagnosis:
    """Examine the environment of this interpreter, however broken it is.

    Nothing of it is imported into this process: what only trying can tell is tried
    in subprocesses.

    Args:
        timeout: Seconds that the import of one library may take.

    Returns:
        Versions and findings.
    """
    snapshot = read_snapshot()
    return explain(replace(snapshot, trials=run_trials(snapshot.sources(), timeout)))


def explain(snapshot: Snapshot) -> Diagnosis:
    """Turn a snapshot whose trials have run into a diagnosis."""
    return Diagnosis(
        versions={
            'python': snapshot.python,
            **{name: snapshot.version(name) for name in DISTRIBUTIONS},
        },
        operators=_operators(snapshot),
        notes=tuple(_notes(snapshot)),
        findings=tuple(judge(snapshot)),
    )


def _operators(snapshot: Snapshot) -> str:
    if snapshot.extension is not None:
        works = snapshot.works('extension')
        return 'compiled' if works else 'compiled, but they do not work'
    if snapshot.works('mmcv.ops'):
        return 'served by mmdet_backbones (torchvision and torch)'
    return 'none'


def _notes(snapshot: Snapshot) -> list[str]:
    notes = []
    torch = snapshot.versions.get('torch', '0')
    upstream = snapshot.has('mmengine') and not snapshot.onedl()
    if upstream and fits(torch, '>=2.6') and snapshot.works('mmdet_backbones'):
        notes.append(
            f'torch {torch} refuses the training checkpoints of mmengine '
            f'{snapshot.versions["mmengine"]}; mmdet_backbones names the classes in '
            'them, so they load, resume and test.'
        )
    if not snapshot.has('mmdet_backbones'):
        notes.append(
            'mmdet_backbones is not installed: only the tools of this clone find it '
            '(pip install --no-deps -e . makes it known everywhere).'
        )
    return notes
