"""A detector of mmdet's, built as ``test`` builds it, for images from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint

from ..check.start import require_loadable
from ..check.training import metainfo_of
from ..detector_config.detector import DetectorConfig
from ..detector_config.heads import class_counts
from ..detector_config.tree import dataset_of, type_name, walk
from ..errors import CheckpointError, UserError, explain
from ..inference.fusion import fastest
from ..pictures.detector import check_device
from ..pictures.photograph import read_pipeline
from ..runtime.detections import Detections
from ..weights.loading.init_cfg import drop_pretrained
from .locating import Trained

_LOADER = 'LoadImageFromFile'
_COLOURED = ('color', 'color_ignore_orientation')
# Of detectors that are asked in words.
_WORDS = ('language_model', 'lang_model_name')


class TorchDetector:
    """Finds boxes as the test of a config does.

    Args:
        trained: Config and checkpoint.
        device: To run on; CUDA if left out and there, else the CPU.
        fast: As for :meth:`.detector.Detector.load`.

    Attributes:
        names: Of all classes.
        device: It runs on.
        model: mmdet's detector, in eval mode.
        loader: First step of the test pipeline, which reads files.
        steps: The others.
        scope: Library that names without a scope belong to.

    Raises:
        UserError: If it cannot be built or is not for images alone, the checkpoint
            does not fill it, or there is no such device.
        CheckpointError: If the checkpoint cannot be read.
    """

    def __init__(
        self, trained: Trained, device: str | None = None, fast: bool = False
    ) -> None:
        from mmdet.utils import register_all_modules

        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        problem = check_device(self.device)
        if problem is not None:
            raise UserError(problem)
        register_all_modules(init_default_scope=False)
        config = trained.config
        self.scope = config.get('default_scope') or 'mmdet'
        _require_images_alone(config)
        require_loadable(config)
        with DefaultScope.overwrite_default_scope(self.scope):
            self.model = _build(config)
            meta = _fill(self.model, trained.checkpoint)
            self.names = _names(config, meta)
            self.loader, self.steps = _pipeline(config)
        # mmdet's own nets return None from eval().
        self.model.eval()
        self.model.to(self.device)
        if fast:
            self.model = fastest(self.model, inplace=True)

    def read(self, path: Path) -> np.ndarray:
        """Read an image as the test of the config reads it.

        Args:
            path: Of the file.

        Returns:
            (H, W, 3) uint8, RGB.

        Raises:
            Exception: Whatever the decoder raises.
        """
        loaded = self.loader(dict(img_path=str(path)))
        return np.ascontiguousarray(loaded['img'].astype(np.uint8)[..., ::-1])

    def predict(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find boxes in the images of one batch.

        Args:
            images: (H, W, 3) uint8, RGB.
        """
        with DefaultScope.overwrite_default_scope(self.scope), torch.no_grad():
            batch = pseudo_collate([self.prepare(image) for image in images])
            return [self.found_in(sample) for sample in self.model.test_step(batch)]

    def prepare(self, image: np.ndarray) -> Any:
        """Run the test pipeline on an image (H, W, 3) uint8, RGB."""
        pixels = np.ascontiguousarray(image[..., ::-1])
        if self.loader.to_float32:
            pixels = pixels.astype(np.float32)
        shape = pixels.shape[:2]
        sample: Any = dict(img=pixels, img_shape=shape, ori_shape=shape, img_path='',
                           height=shape[0], width=shape[1], img_id=0)  # fmt: skip
        for step in self.steps:
            sample = step(sample)
            if sample is None:
                raise UserError(
                    f'{type(step).__name__} of the test pipeline drops an image of '
                    f'{shape[1]} x {shape[0]} pixels'
                )
        return sample

    def found_in(self, sample: Any) -> Detections:
        """Take the boxes out of a sample that the detector gives, the best first."""
        from mmdet.structures.bbox import get_box_tensor

        if 'pred_instances' not in sample:
            raise UserError(
                f'{type(self.model).__name__} finds no boxes, only '
                f'{", ".join(sample.keys())}'
            )
        found = sample.pred_instances
        scores = found.scores.detach().float().cpu().numpy()
        boxes = get_box_tensor(found.bboxes).detach().float().cpu().numpy()
        labels = found.labels.detach().cpu().numpy().astype(np.int64)
        order = np.argsort(-scores, kind='stable')
        names = self.names
        # A head that does not say how many classes it has may find more.
        names += tuple(
            f'class {i}' for i in range(len(names), max(labels, default=0) + 1)
        )
        return Detections(
            boxes.reshape(-1, 4)[order], scores[order], labels[order], names
        )


def _require_images_alone(config: Config) -> None:
    for _, part in walk(config.model):
        if any(word in part for word in _WORDS):
            raise UserError(
                f'{type_name(config.model)} is asked in words for what it shall find, '
                'and this takes images alone'
            )


def _build(config: Config) -> Any:
    from mmdet.registry import MODELS

    model = deepcopy(config.model)
    for _, part in walk(model):
        # The checkpoint fills all of it.
        drop_pretrained(part)
    try:
        return revert_sync_batchnorm(MODELS.build(model))
    except (UserError, CheckpointError):
        raise
    except Exception as error:  # whatever the parts of a foreign detector raise
        raise UserError(f'the detector cannot be built: {explain(error)}') from error


def _fill(model: Any, checkpoint: str) -> Mapping[str, Any]:
    """Load the weights, which are known to fit; return what the file says besides."""
    content = load_checkpoint(model, checkpoint, map_location='cpu', logger='silent')
    meta = content.get('meta') if isinstance(content, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def _names(config: Config, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the classes: as the checkpoint was trained, or as the test names them."""
    detector = DetectorConfig(config)
    count = max(class_counts(detector.model).values(), default=0)
    dataset = dataset_of(config, 'test' if config.get('test_dataloader') else 'val')
    own = metainfo_of(dataset, 'classes') if 'type' in dataset else None
    learned = meta.get('dataset_meta')
    learned = learned.get('classes') if isinstance(learned, Mapping) else None
    for given in (learned, meta.get('CLASSES'), own):
        classes = (given,) if isinstance(given, str) else tuple(given or ())
        if classes and len(classes) == (count or len(classes)):
            return tuple(map(str, classes))
    return tuple(f'class {number}' for number in range(count))


def _pipeline(config: Config) -> tuple[Any, list[Any]]:
    """Build the test pipeline: what loads an image, and what comes after."""
    steps = [s for s in read_pipeline(config) if 'Annotations' not in type_name(s)]
    names = [type_name(step) for step in steps]
    if not names or names[0] not in (_LOADER, 'LoadImageFromNDArray'):
        raise UserError(
            'the test pipeline of the config must begin with '
            f"dict(type='{_LOADER}'), it begins with {names[0] if names else 'nothing'}"
        )
    colour = steps[0].get('color_type', 'color')
    if colour not in _COLOURED:
        raise UserError(
            f'images are predicted in colour, and {_LOADER} of the test pipeline has '
            f"color_type={colour!r}: write color_type='color'"
        )
    try:
        first, *rest = Compose([dict(steps[0], type=_LOADER), *steps[1:]]).transforms
    except Exception as error:  # of transforms that nobody here wrote
        raise UserError(
            f'the test pipeline cannot be built: {explain(error)}'
        ) from error
    return first, rest
