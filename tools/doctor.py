"""Show the versions found here, known-bad combinations of them, and the cure."""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.compat.doctor import Diagnosis, diagnose


def print_plain(diagnosis: Diagnosis) -> None:
    for name, version in diagnosis.versions.items():
        print(f'{name:<24}{version or "-"}')
    print(f'{"operators of mmcv":<24}{diagnosis.operators}')


def print_table(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table('package', 'found')
    for name, version in diagnosis.versions.items():
        table.add_row(name, version or '-')
    table.add_row('operators of mmcv', diagnosis.operators)
    Console().print(table)


def print_findings(diagnosis: Diagnosis) -> None:
    for note in diagnosis.notes:
        print(f'\nnote: {note}')
    for finding in diagnosis.findings:
        print(f'\n{finding.severity}: {finding.id}\n  {finding.problem}')
        # Unwrapped, so that a cure can be copied as one line.
        print('  cure:', '\n    or: '.join(finding.cure))
    counts = Counter(finding.severity for finding in diagnosis.findings)
    print(f'\n{counts["error"]} errors, {counts["warning"]} warnings')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', action='store_true', help='print JSON, no table')
    args = parser.parse_args()
    diagnosis = diagnose()
    if args.json:
        print(json.dumps(diagnosis.to_dict(), indent=2))
        return 0 if diagnosis.healthy else 1
    try:
        print_table(diagnosis)
    except Exception:  # a broken environment may have a broken rich
        print_plain(diagnosis)
    print_findings(diagnosis)
    return 0 if diagnosis.healthy else 1


if __name__ == '__main__':
    sys.exit(main())
