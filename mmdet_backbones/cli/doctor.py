"""Show the versions found here, what is wrong, and the cure."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from typing import TYPE_CHECKING

from .output import print_json

if TYPE_CHECKING:
    from ..compat.doctor import Diagnosis

EXAMPLES = ('mmdet-backbones doctor',)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes, which is nothing."""


def run(args: Namespace) -> int:
    """Print what was found; exit status 1 where something is wrong."""
    from ..compat.doctor import diagnose

    diagnosis = diagnose()
    if args.json:
        print_json(diagnosis.to_dict())
        return 0 if diagnosis.healthy else 1
    try:
        _print_table(diagnosis)
    except Exception:  # a broken environment may have a broken rich
        _print_plain(diagnosis)
    _print_findings(diagnosis)
    return 0 if diagnosis.healthy else 1


def _print_plain(diagnosis: Diagnosis) -> None:
    for name, version in diagnosis.versions.items():
        print(f'{name:<24}{version or "-"}')
    print(f'{"operators of mmcv":<24}{diagnosis.operators}')


def _print_table(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table('package', 'found')
    for name, version in diagnosis.versions.items():
        table.add_row(name, version or '-')
    table.add_row('operators of mmcv', diagnosis.operators)
    Console().print(table)


def _print_findings(diagnosis: Diagnosis) -> None:
    for note in diagnosis.notes:
        print(f'\nnote: {note}')
    for finding in diagnosis.findings:
        print(f'\n{finding.severity}: {finding.id}\n  {finding.problem}')
        # Unwrapped, so that a cure can be copied as one line.
        print('  cure:', '\n    or: '.join(finding.cure))
    counts = Counter(finding.severity for finding in diagnosis.findings)
    print(f'\n{counts["error"]} errors, {counts["warning"]} warnings')
