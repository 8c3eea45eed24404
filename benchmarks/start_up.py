"""Time until a training trains: our tools/train.py against mmdet's, and imports.

    python benchmarks/start_up.py [--rounds 5] [-o start_up.md]

The same config for both tools: YOLOX-tiny on ShuffleNetV2, the synthetic squares of
tests/helpers/dist_runs.py. A training is timed from the start of its process to the
line that logs its first iteration; ours with its check of the config and without. All
take turns, processes of their own, one thread each.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests' / 'helpers'))

import dist_runs as runs

FIRST = '(train)'
IMPORTS = {
    'import torch': 'import torch',
    'import torch, mmdet_backbones': 'import torch, mmdet_backbones',
    'import torch, mmengine.runner, mmdet.models': (
        'import torch, mmdet_backbones, mmengine.runner, mmdet.models'
    ),
}


def until_trained(command: list[str]) -> float:
    """Seconds from the start of a training to its first logged iteration."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=runs.ROOT,
        env=runs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if FIRST in line:
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
    raise SystemExit(''.join(said[-20:]))


def until_imported(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, '-c', code], check=True, env=runs.environment())
    return time.perf_counter() - start


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    import mmdet

    data = runs.make_squares(folder / 'data')
    config = runs.write(runs.learning_yolox(data, 2), folder / 'config.py')
    host = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    work = ['--work-dir', str(folder / 'work')]
    trainings = {
        "mmdet's tools/train.py": [str(host), str(config), *work],
        'ours, --no-check': ['tools/train.py', str(config), *work, '--no-check'],
        'ours': ['tools/train.py', str(config), *work],
    }
    times: dict[str, list[float]] = {name: [] for name in (*IMPORTS, *trainings)}
    for _ in range(rounds):
        for name, code in IMPORTS.items():
            times[name].append(until_imported(code))
        for name, command in trainings.items():
            times[name].append(until_trained(command))
    return times


def table(times: dict[str, list[float]], first: str, names: list[str]) -> list[str]:
    lines = ['| what | s | more than the first, s |', '|---|---|---|']
    for name in names:
        more = statistics.median(
            b - a for a, b in zip(times[first], times[name], strict=True)
        )
        lines.append(f'| {name} | {statistics.median(times[name]):.2f} | {more:.2f} |')
    return [*lines, '']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('-o', '--out', type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measure(Path(folder), args.rounds)
    trainings = [name for name in times if name not in IMPORTS]
    text = '\n'.join(
        [
            '# Start-up',
            '',
            f'torch {version("torch")}, Python {platform.python_version()}, medians of '
            f'{args.rounds} rounds. Written by `benchmarks/start_up.py`, which says '
            'what is measured.',
            '',
            *table(times, 'import torch', list(IMPORTS)),
            'To the first iteration of a training:',
            '',
            *table(times, trainings[0], trainings),
        ]
    )
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == '__main__':
    main()
