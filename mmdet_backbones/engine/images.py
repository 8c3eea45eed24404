"""Images that cannot be read in the middle of a run: told by name, or left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import get_worker_info

from ..errors import UserError

# Left out one after the other, which are not a few that broke.
_MOST_IN_A_ROW = 50
# One place for each process that loads, so that none waits for another.
_PROCESSES = 256


class ImageGuard:
    """Load images; say which file cannot be read, or leave it out and count.

    Args:
        load: Transform that loads them.
        skip: Whether one that cannot be read is left out; another comes in its place.
        advice: What to do where it is not.
    """

    def __init__(
        self, load: Callable[[dict], dict | None], skip: bool, advice: str
    ) -> None:
        self.load = load
        self.skip = skip
        self.advice = advice
        self.skipped = torch.zeros(_PROCESSES, dtype=torch.int64).share_memory_()
        self._row = 0

    def __call__(self, results: dict) -> dict | None:
        """Load one image; None if it is left out."""
        try:
            loaded = self.load(results)
        except Exception as error:  # whatever decoders raise
            self._leave_out(str(results.get('img_path')), error)
            return None
        self._row = 0
        return loaded

    def _leave_out(self, path: str, error: Exception) -> None:
        self._row += 1
        text = str(error).splitlines() or [type(error).__name__]
        what = f"the image '{path}' cannot be read: {text[0]}"
        if not self.skip:
            raise UserError(f'{what}. {self.advice}') from error
        if self._row >= _MOST_IN_A_ROW:
            raise UserError(
                f'{_MOST_IN_A_ROW} images in a row cannot be read, the last: {what}. '
                'Is the folder of the data set still there?'
            ) from error
        worker = get_worker_info()
        self.skipped[(worker.id if worker else 0) % _PROCESSES] += 1
        print_log(f'left out: {what}', 'current')


class _SkippedImages(Hook):
    """Tell how often images were left out."""

    def __init__(self, guards: list[ImageGuard]) -> None:
        self._guards = guards

    def _tell(self, runner: Runner) -> None:
        count = sum(int(guard.skipped.sum()) for guard in self._guards)
        if count:
            runner.logger.warning(
                'Images that cannot be read were left out %d times', count
            )

    after_train_epoch = after_train = _tell


def guard_images(runner: Runner, split: str) -> None:
    """Watch over the loading of images of a data set that is built.

    Those of a training are left out where ``skip_broken_images=True`` stands in the
    config; a measurement without some images would be another one, and stops.

    Args:
        runner: With its loops.
        split: ``'train'``, ``'val'`` or ``'test'``.
    """
    loop = getattr(runner, f'{split}_loop')
    loader = getattr(loop, 'dataloader', None)
    skip = split == 'train' and bool(runner.cfg.get('skip_broken_images'))
    advice = 'Put it back, or take it out of the annotations'
    if split == 'train':
        advice += ', or train with --skip-broken-images, which leaves such images out'
    guards = [
        guard
        for dataset in parts_of(getattr(loader, 'dataset', None))
        for guard in _put_in(dataset, skip, advice)
    ]
    if skip:
        runner.register_hook(_SkippedImages(guards))


def _put_in(dataset: Any, skip: bool, advice: str) -> Iterator[ImageGuard]:
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    for index, transform in enumerate(transforms):
        if type(transform).__name__.startswith('LoadImage'):
            transforms[index] = ImageGuard(transform, skip, advice)
            yield transforms[index]


def parts_of(dataset: Any) -> Iterator[Any]:
    """Yield a data set and those that it repeats, joins or mixes."""
    if dataset is not None:
        yield dataset
        inner = getattr(dataset, 'datasets', [getattr(dataset, 'dataset', None)])
        for part in inner:
            yield from parts_of(part)
