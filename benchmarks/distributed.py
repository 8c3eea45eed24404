"""Compare training in several processes, or in parts, with training in one go.

    python benchmarks/distributed.py [NAME ...]

Pairs of runs through the tools on the synthetic squares of
tests/helpers/dist_runs.py, on CPUs with gloo. Prints a row of
benchmarks/distributed.md for each pair.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests' / 'helpers'))

import dist_runs as runs


def shipped_sampling(data: Path, batch: int) -> dict[str, Any]:
    """Cascade R-CNN with thresholds and samplers of the shipped config."""
    config = runs.cascade(data, batch)
    settings = config['model']['train_cfg']
    shipped = runs.read_shipped(runs.CASCADE)['model']['train_cfg']
    settings['rpn'], settings['rcnn'] = shipped['rpn'], shipped['rcnn']
    return config


def trained_norm(data: Path, batch: int) -> dict[str, Any]:
    """YOLOX whose batch normalisation trains, as shipped."""
    config = runs.yolox(data, batch)
    model, shipped = config['model'], runs.read_shipped(runs.YOLOX)['model']
    for part in ('neck', 'bbox_head'):
        model[part]['norm_cfg'] = shipped[part]['norm_cfg']
    model['backbone']['norm_eval'] = False
    return config


# Detector; then iterations, images, processes and accumulated iterations of two runs.
PAIRS = {
    'cascade': (runs.cascade, (10, 4, 1, 1), (10, 2, 2, 1)),
    'cascade-shipped-sampling': (shipped_sampling, (10, 4, 1, 1), (10, 2, 2, 1)),
    'yolox': (runs.yolox, (10, 4, 1, 1), (10, 2, 2, 1)),
    'yolox-trained-norm': (trained_norm, (10, 4, 1, 1), (10, 2, 2, 1)),
    'cascade-accumulated': (runs.cascade, (5, 16, 1, 1), (20, 4, 1, 4)),
    'yolox-accumulated': (runs.yolox, (5, 16, 1, 1), (20, 4, 1, 4)),
}


def train(make: Any, plan: tuple[int, ...], data: Path, folder: Path) -> dict:
    iterations, images, processes, accumulated = plan
    folder.mkdir(parents=True)
    config = runs.for_iterations(make(data, images), iterations, accumulated)
    path = runs.write(config, folder / 'config.py')
    done = runs.train(path, folder / 'work', processes)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return torch.load(folder / 'work' / 'record.pth')


def steps(record: dict, accumulated: int) -> list[float]:
    """Mean loss of each step of the optimiser."""
    losses = [entry['loss'] for entry in record['losses']]
    return [
        sum(losses[i : i + accumulated]) / accumulated
        for i in range(0, len(losses), accumulated)
    ]


def spell(plan: tuple[int, ...]) -> str:
    _, images, processes, accumulated = plan
    parts = [f'{processes} x {images}']
    return ' '.join([*parts, *([f'x {accumulated}'] if accumulated > 1 else [])])


def compare(name: str, data: Path, folder: Path) -> str:
    """Train twice; a row with rates, losses and the largest differences."""
    make, *plans = PAIRS[name]
    first, second = (
        train(make, plan, data, folder / f'{name}{number}')
        for number, plan in enumerate(plans)
    )
    losses = [steps(r, p[3]) for r, p in zip((first, second), plans, strict=True)]
    relative = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
    ours, theirs = first['parameters'], second['parameters']
    absolute = max((ours[k] - theirs[k]).abs().max().item() for k in ours)
    return (
        f'| {name} | {spell(plans[0])} | {spell(plans[1])} | {first["lr"]:g}, '
        f'{second["lr"]:g} | {losses[0][0]:.6g} to {losses[0][-1]:.6g} | '
        f'{relative:.2g} | {absolute:.2g} |'
    )


def main() -> None:
    names = sys.argv[1:] or list(PAIRS)
    with tempfile.TemporaryDirectory() as folder:
        data = runs.make_squares(Path(folder) / 'squares')
        for name in names:
            print(compare(name, data, Path(folder)), flush=True)


if __name__ == '__main__':
    main()
