"""Images that an exported detector is proven, measured and calibrated with."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..detector_config.text import Code
from ..engine.launch import require_data
from ..errors import UserError, explain
from ..own_data.for_config import data_settings, read_folder
from ..runtime.detections import Detections
from .intake import Size

_ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
# Enough to see a difference, of which a slow machine makes no hour.
_PROVEN = 16
_CALIBRATED = 100
Predict = Callable[[Sequence[np.ndarray]], list[Detections]]


@dataclass
class Images:
    """Where images come from.

    Attributes:
        config: With the data set, if there is one.
        files: Images without annotations, of a folder.
        what: Words for the report.
        annotated: Whether ``config`` has a test set that is on this machine.
        scope: Of names in the config.
        size: Height and width in pixels of synthetic images.
    """

    config: Config
    files: list[Path]
    what: str
    annotated: bool
    scope: str
    size: Size
    _built: dict[str, Any] = field(default_factory=dict)

    def to_prove(self, read: Callable[[Path], np.ndarray]) -> list[np.ndarray]:
        """Images that both detectors are to find the same in.

        Args:
            read: From a path to (H, W, 3) uint8, RGB.
        """
        if self.annotated:
            return [read(path) for path in self._paths('test')[:_PROVEN]]
        if self.files:
            return [read(path) for path in self.files[:_PROVEN]]
        height, width = self.size
        sizes = [
            (height, width),
            (height * 3 // 4, width * 5 // 4),
            (height * 5 // 4, width * 3 // 4),
        ]
        return [blocks(size, seed) for seed, size in enumerate(sizes)]

    def to_calibrate(self, read: Callable[[Path], np.ndarray]) -> list[np.ndarray]:
        """Images of the training that ranges of values are taken from.

        Raises:
            UserError: If they are not on this machine.
        """
        require_data(self.config, 'train')
        paths = self._paths('train')
        step = max(len(paths) // _CALIBRATED, 1)
        return [read(path) for path in paths[::step][:_CALIBRATED]]

    def average_precision(
        self, predict: Predict, read: Callable[[Path], np.ndarray]
    ) -> float:
        """Measure a detector on the test set, by the metric of the config.

        Args:
            predict: Finds boxes in (H, W, 3) uint8, RGB.
            read: As for :meth:`to_prove`.

        Returns:
            Its mAP, from 0 to 1.

        Raises:
            UserError: If the metric gives none.
        """
        found = (predict([image])[0] for image in self.to_measure(read))
        return self.judge(found)

    def to_measure(
        self, read: Callable[[Path], np.ndarray], places: Iterable[int] | None = None
    ) -> Iterator[np.ndarray]:
        """Images of the test set, one after another.

        Args:
            read: As for :meth:`to_prove`.
            places: Of those that are wanted; all if left out.
        """
        paths = self._paths('test')
        return map(read, paths if places is None else (paths[n] for n in places))

    def judge(self, found: Iterable[Detections]) -> float:
        """Measure what was found in the test set, as :meth:`average_precision`.

        Args:
            found: In each of its images.
        """
        from mmengine.evaluator import Evaluator

        dataset = self._dataset('test')
        with DefaultScope.overwrite_default_scope(self.scope), _quiet():
            evaluator = Evaluator(deepcopy(self.config.test_evaluator))
            evaluator.dataset_meta = dataset.metainfo
            for index, one in enumerate(found):
                sample = dataset[index]['data_samples']
                sample.pred_instances = _instances(one)
                evaluator.process([sample])
            metrics = evaluator.evaluate(len(dataset))
        for name, value in metrics.items():
            if name.endswith('mAP'):
                return float(value)
        raise UserError(
            'test_evaluator of the config measures no mAP, which lower precisions are '
            f'judged by; it gives {", ".join(metrics) or "nothing"}'
        )

    def _dataset(self, split: str) -> Any:
        from mmdet.registry import DATASETS

        if split not in self._built:
            given = deepcopy(self.config[f'{split}_dataloader'].dataset)
            try:
                with DefaultScope.overwrite_default_scope(self.scope), _quiet():
                    self._built[split] = DATASETS.build(given)
            except Exception as error:  # whatever a foreign data set raises
                raise UserError(
                    f'the data set of {split}_dataloader cannot be read: '
                    f'{explain(error)}'
                ) from error
        return self._built[split]

    def _paths(self, split: str) -> list[Path]:
        dataset = self._dataset(split)
        infos = (dataset.get_data_info(i) for i in range(len(dataset)))
        return [Path(info['img_path']) for info in infos]


def find_images(config: Config, data: str | None, classes: Sequence[str], size: Size
                ) -> Images:  # fmt: skip
    """Find images for a detector.

    Args:
        config: All of it; ``--data`` takes the place of its data sets.
        data: Folder of a data set or of images; None for what the config names.
        classes: Of the detector.
        size: Height and width of synthetic images, where there are no others.

    Raises:
        UserError: If the folder has none, or objects of other classes.
    """
    scope = config.get('default_scope') or 'mmdet'
    files: list[Path] = []
    if data is not None:
        files = _files(data)
        if not files:
            _set_data(config, data, classes)
    annotated = False
    if not files and config.get('test_dataloader') and config.get('test_evaluator'):
        try:
            require_data(config, 'test')
            annotated = True
        except UserError:
            if data is not None:
                raise
    what = 'synthetic images (noise), as no data set is here and no --data was given'
    if files:
        what = f"images of '{Path(data or '').name}'"
    elif annotated:
        what = 'images of the test set' if data is None else f"images of '{data}'"
    return Images(config, files, what, annotated, scope, size)


def _files(data: str) -> list[Path]:
    """Images that lie in a folder that is no data set."""
    folder = Path(data)
    if not folder.is_dir():
        raise UserError(f"--data: there is no folder '{data}'")
    found = (path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    return sorted(found)


def _set_data(config: Config, data: str, classes: Sequence[str]) -> None:
    folder = read_folder(data)
    if tuple(folder.classes) != tuple(classes):
        raise UserError(
            f"--data: '{data}' has the classes {', '.join(folder.classes)}, the "
            f'detector was trained for {", ".join(classes)}'
        )
    settings = data_settings(config, folder)
    if isinstance(settings['test_evaluator'], Code):
        settings['test_evaluator'] = deepcopy(settings['val_evaluator'])
    config.merge_from_dict(settings)


def _instances(found: Detections) -> Any:
    from mmengine.structures import InstanceData

    return InstanceData(
        bboxes=torch.from_numpy(np.array(found.boxes)),
        scores=torch.from_numpy(np.array(found.scores)),
        labels=torch.from_numpy(np.array(found.labels)),
    )


def blocks(size: Size, seed: int) -> np.ndarray:
    """Make an image of coloured blocks and grain, (H, W, 3) uint8 RGB: synthetic."""
    generator = np.random.default_rng(seed)
    height, width = size
    colours = generator.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3))
    image = np.kron(colours, np.ones((16, 16, 1)))[:height, :width]
    grain = generator.normal(0, 20, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the tables that evaluators print for each call."""
    import logging

    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
