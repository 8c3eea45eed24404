"""Time of saving and of resuming a checkpoint: mmengine's hook, and the safe one.

  python benchmarks/checkpoints.py [--rounds 15] [-o benchmarks/checkpoints.md]

Both save the same training of one layer with SGD and momentum, in the folder given by
--folder (the disk matters), one after the other in every round, the last one kept.
`without fsync` is the safe hook where the disk is not waited for: what remains is the
other name and the renaming. Before each save all earlier writes are brought to the
disk. Resuming is what happens before the first iteration: mmengine loads what
`last_checkpoint` names; the safe way finds the newest checkpoint, compares its check
sums, names, shapes and values first, and then loads it the same way.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import nn

import mmdet_backbones  # noqa: F401
from mmdet_backbones.engine import launch, resuming

_SIDE = 3500


@MODELS.register_module()
class OneLayer(BaseModel):
    """As many parameters as fill 50 MB, and as much momentum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(_SIDE, _SIDE)

    def forward(self, inputs: list, mode: str = 'tensor') -> dict:
        return dict(loss=self.layer(torch.stack(inputs)).pow(2).mean())


@DATASETS.register_module()
class OnePoint(BaseDataset):
    """The same point again and again."""

    def load_data_list(self) -> list[dict]:
        return [{}]

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.ones(_SIDE))


def make(folder: Path, safe: bool, resume: bool = False) -> Runner:
    """Build a Runner for one epoch."""
    cfg = Config(
        dict(
            default_scope='mmengine',
            model=dict(type='OneLayer'),
            work_dir=str(folder),
            launcher='none',
            train_dataloader=dict(
                batch_size=1,
                num_workers=0,
                dataset=dict(type='OnePoint'),
                sampler=dict(type='DefaultSampler', shuffle=False),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            resume=resume,
            log_level='ERROR',
            experiment_name=f'{time.monotonic_ns()}',
        )
    )
    with mock.patch.object(
        launch, 'use_safe_checkpoints', launch.use_safe_checkpoints if safe else id
    ):
        return launch.build_runner(cfg)


def timed(step: Callable[[], object]) -> float:
    """Run it once; milliseconds."""
    os.sync()
    start = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - start)


def saving(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """The ways to save, by name."""
    for name, safe in (('mmengine', False), ('ours', True), ('without fsync', True)):
        runner = make(folder / name, safe)
        resuming.train(runner)
        hook = next(h for h in runner.hooks if hasattr(h, '_save_checkpoint'))

        def save(runner: Runner = runner, hook: object = hook) -> None:
            hook._save_checkpoint(runner)

        def quickly(save: Callable[[], object] = save) -> None:
            with mock.patch('os.fsync'):
                save()

        yield name, quickly if name == 'without fsync' else save


def resume_time(folder: Path, safe: bool) -> float:
    """Time from a Runner that is built to one that has loaded all."""
    from mmdet_backbones.weights.reading import file_formats

    runner = make(folder / ('ours' if safe else 'mmengine'), safe, resume=True)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    file_formats._sound.clear()  # as in a new process

    def resume() -> None:
        if safe:
            resuming.settle_start(runner)
        runner.load_or_resume()

    return timed(resume)


def measure(folder: Path, rounds: int) -> str:
    """Measure all, in turn, and write it as Markdown."""
    times: dict[str, list[float]] = {}
    ways = dict(saving(folder))
    for number in range(rounds):
        order = list(ways) if number % 2 else list(ways)[::-1]
        for name in order:
            times.setdefault(f'save, {name}', []).append(timed(ways[name]))
        for safe in (True, False) if number % 2 else (False, True):
            key = f'resume, {"ours" if safe else "mmengine"}'
            times.setdefault(key, []).append(resume_time(folder, safe))
    size = next((folder / 'ours').glob('epoch_*.pth')).stat().st_size / 1e6
    lines = [
        '# Saving and resuming checkpoints',
        '',
        f'A checkpoint of {size:.0f} MB; medians of {rounds} rounds with the smallest '
        f'and largest, in ms; torch {torch.__version__}, Python '
        f'{platform.python_version()}, {os.cpu_count()} cores, load average meanwhile '
        f'{os.getloadavg()[1]:.1f}. Written by `benchmarks/checkpoints.py`, which says '
        'what is measured.',
        '',
        '| | time (ms) | against mmengine in the same round |',
        '|---|---|---|',
    ]
    for name in sorted(times, reverse=True):
        values, what = times[name], name.partition(',')[0]
        ratio = statistics.median(values) / statistics.median(
            times[f'{what}, mmengine']
        )
        lines.append(
            f'| {name} | {statistics.median(values):.0f} ({min(values):.0f} to '
            f'{max(values):.0f}) | {ratio:.2f} |'
        )
    return '\n'.join(lines) + '\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--folder', type=Path, help='on the disk to measure')
    parser.add_argument('-o', '--out', type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        text = measure(Path(folder), args.rounds)
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == '__main__':
    main()
