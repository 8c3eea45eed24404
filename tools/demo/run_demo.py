"""Train YOLOX on tree crowns with a swapped, pretrained backbone; show the result.

The commands are those that a user would type, timed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmdet_backbones.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/yolox/yolox_efficientnet-lite0_trees.py'
_TIMINGS = 'timings.json'


class DemoStoppedError(RuntimeError):
    """A part of the demo failed; it has told why itself.

    Attributes:
        status: Exit status of the part.
    """

    def __init__(self, part: str, status: int) -> None:
        super().__init__(f'the demo stopped: {part} ended with exit status {status}')
        self.status = status


def run_demo(root: Path, scratch: bool = False, setup_seconds: float = 0.0) -> None:
    """Prepare, train, test and report; what an earlier run finished is kept.

    Args:
        root: The clone, where the commands run.
        scratch: Whether to train without the pretrained weights.
        setup_seconds: What the set-up took, for the report.

    Raises:
        DemoStoppedError: If a part fails.
    """
    work_dir = Path('work_dirs/demo-scratch' if scratch else 'work_dirs/demo')
    log = root / work_dir / _TIMINGS
    timings = json.loads(log.read_text()) if log.is_file() else {}
    timings['set-up'] = setup_seconds

    def run(part: str, command: Sequence[str]) -> None:
        timings[part] = _run(root, part, command)
        write_atomically(log, json.dumps(timings, indent=2))

    run('data and weights', ['tools/demo/prepare_demo.py'])
    # From the second start on the training goes on where the first one stopped.
    train = ['tools/train.py', CONFIG, '--work-dir', str(work_dir), '--resume']
    if scratch:
        # Random features must not be frozen.
        train += ['--cfg-options', 'model.backbone.init_cfg=None']
        train += ['model.backbone.frozen_stages=-1']
    if 'training' in timings and _best(root / work_dir):
        print_log(f'trained before; remove {work_dir} to train again', 'current')
    else:
        run('training', train)
    best = _best(root / work_dir)
    if best is None:
        print_log(f'no checkpoint in {work_dir} found a tree', 'current', logging.ERROR)
        raise DemoStoppedError('training', 1)
    results = f'test_evaluator.outfile_prefix={work_dir}/test'
    test = ['tools/test.py', CONFIG, str(work_dir / best.name)]
    test += ['--work-dir', f'{work_dir}/test', '--cfg-options', results]
    run('testing', test)
    _run(root, 'report', ['tools/demo/report_demo.py', str(work_dir)])


def _run(root: Path, part: str, command: Sequence[str]) -> float:
    print_log(f'{part}: python {shlex.join(command)}', 'current')
    start = time.monotonic()
    # Threads that wait by spinning slow the loader and each other down several times
    # over on a small machine.
    environment = {'OMP_WAIT_POLICY': 'PASSIVE', **os.environ}
    done = subprocess.run(
        [sys.executable, *command], cwd=root, env=environment, check=False
    )
    if done.returncode:
        raise DemoStoppedError(part, done.returncode)
    return round(time.monotonic() - start, 1)


def _best(work_dir: Path) -> Path | None:
    found = sorted(work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--scratch', action='store_true', help='train without pretrained weights'
    )
    parser.add_argument(
        '--setup-seconds', type=float, default=0.0, help='reported with the other parts'
    )
    args = parser.parse_args()
    try:
        run_demo(ROOT, args.scratch, args.setup_seconds)
    except DemoStoppedError as stop:
        return stop.status
    except KeyboardInterrupt:
        sys.stderr.write('stopped; the same command goes on from here\n')
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
