"""Write the stored results of the compiled operators.

Run it where mmcv was compiled with its operators:

    python tests/compat/ops/make_references.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ops.case import Case, compiled_mmcv
from ops.cases import COMPILED_CASES

FOLDER = Path(__file__).parent / 'reference'


def results_of(cases: list[Case]) -> dict[str, np.ndarray]:
    """Results of all cases under '<case>/<result>', with checksums of the inputs."""
    arrays: dict[str, np.ndarray] = {}
    for case in cases:
        arrays[f'{case.name}/inputs'] = np.asarray(case.fingerprint())
        for key, value in case.run().items():
            arrays[f'{case.name}/{key}'] = value
    return arrays


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write through a temporary file: an interrupted run leaves the old one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        np.savez_compressed(file, **arrays)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def main() -> int:
    if not compiled_mmcv():
        print(
            'The references come from compiled operators, and the mmcv installed '
            'here has none: run this where MMCV_WITH_OPS=1 built mmcv.',
            file=sys.stderr,
        )
        return 1
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    stored = [case for case in COMPILED_CASES if case.stored]
    by_operator = sorted(stored, key=lambda case: case.operator)
    for operator, cases in groupby(by_operator, key=lambda case: case.operator):
        path = FOLDER / f'{operator}.npz'
        arrays = results_of(list(cases))
        write(path, arrays)
        print(f'{path.name}: {len(arrays)} arrays, {path.stat().st_size} bytes')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
