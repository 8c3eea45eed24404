"""One photograph, prepared for a detector as its test pipeline does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image
from torch import Tensor

from ..detector_config.tree import dataset_of, plain, type_name
from ..errors import UserError, explain
from ..files import not_there
from ..shapes.build import fixed_size

# Maps of most necks only fit together if this divides the sides of the image.
_DIVISOR = 32
_RESIZES = ('Resize', 'FixScaleResize', 'FixShapeResize', 'RandomResize')


@dataclass(frozen=True)
class Photograph:
    """An image and what the detector gets of it.

    Attributes:
        inputs: Normalised and padded, of shape (1, C, H, W).
        picture: What can be seen, without the padding, of shape (h, w, 3), RGB,
            0 to 255.
    """

    inputs: Tensor
    picture: np.ndarray


def check_image(path: Path) -> str | None:
    """Return why an image cannot be used, None if it can."""
    if (problem := not_there(path, 'image')) is not None:
        return problem
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"the image '{path}' cannot be read: {error}"
    return None


def prepare(cfg: Config, detector: Any, path: Path, longest: int) -> Photograph:
    """Prepare an image with the test pipeline and the preprocessor of a config.

    The size of the test is kept where no side of it is above ``longest``. Where it is
    not, or the pipeline pads to one shape, the image is padded to a multiple of 32.

    Args:
        cfg: The whole config.
        detector: Built from it; its preprocessor normalises.
        path: Of the image.
        longest: Longest side, in pixels.

    Raises:
        UserError: If the pipeline or the preprocessor does not take the image.
    """
    from mmdet.structures import DetDataSample

    steps = pipeline_steps(cfg, longest, fixed_size(detector.backbone))
    try:
        image, picture = _transform(steps, path)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        shape = image.shape[:2]
        meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape)
        batch = {'inputs': [pixels], 'data_samples': [DetDataSample(metainfo=meta)]}
        inputs = detector.data_preprocessor(batch, False)['inputs']
    except (KeyError, ValueError, TypeError, AssertionError, RuntimeError) as error:
        raise UserError(
            f"the test pipeline of the config does not take '{path}': {explain(error)}"
        ) from error
    if not isinstance(inputs, Tensor):  # of a detector without a preprocessor
        inputs = torch.stack(list(inputs))
    device = next(detector.backbone.parameters()).device
    return Photograph(inputs.float().to(device), picture)


def _transform(steps: list[dict], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Give the image as the preprocessor takes it, and as a person sees it."""
    sample: Any = {'img_path': str(path), 'img_id': 0, 'instances': []}
    seen = None
    for step, transform in zip(steps, Compose(steps).transforms, strict=True):
        if type_name(step) == 'Pad':
            seen = sample['img']
        sample = transform(sample)
        if sample is None:
            raise UserError(f"{type_name(step)} of the test pipeline drops '{path}'")
    image = np.atleast_3d(sample['img'])
    seen = image if seen is None else np.atleast_3d(seen)
    # Loaded as BGR; a grey image has one channel.
    rgb = np.broadcast_to(seen[..., ::-1], (*seen.shape[:2], 3))
    return image, rgb.clip(0, 255).astype(np.uint8)


def pipeline_steps(
    cfg: Config, longest: int, fixed: tuple[int, int] | None = None
) -> list[dict[str, Any]]:
    """Give the steps of the test pipeline that load, resize and pad an image.

    Args:
        cfg: The whole config; without a test pipeline the image is only resized.
        longest: Longest side, in pixels.
        fixed: The one height and width that the backbone takes, None if it takes any.
    """
    steps: list[dict[str, Any]] = []
    padding: dict[str, Any] = dict(type='Pad', size_divisor=_DIVISOR)
    pads = False
    for step in read_pipeline(cfg):
        name = type_name(step)
        if name == 'Pad':
            padding |= {k: v for k, v in step.items() if k == 'pad_val'}
            pads = True
        elif name in _RESIZES:
            steps.append(_limited(step, longest))
            pads = pads or steps[-1] != step
        elif not name.startswith('Pack') and 'Annotations' not in name:
            steps.append(step)
    if not any(type_name(step).startswith('Load') for step in steps):
        steps.insert(0, dict(type='LoadImageFromFile'))
    if fixed is not None:
        steps = [step for step in steps if type_name(step) not in _RESIZES]
        shape = (fixed[1], fixed[0])
        return [*steps, dict(type='Resize', scale=shape, keep_ratio=False)]
    if not any(type_name(step) in _RESIZES for step in steps):
        steps.append(dict(type='Resize', scale=(longest, longest), keep_ratio=True))
        pads = True
    return [*steps, padding] if pads else steps


def read_pipeline(cfg: Config) -> list[dict[str, Any]]:
    """Give the transforms of the test pipeline, or that of the validation, if any."""
    dataset = dataset_of(cfg, 'test' if cfg.get('test_dataloader') else 'val')
    return plain(list(dataset.get('pipeline') or []))


def _limited(step: dict[str, Any], longest: int) -> dict[str, Any]:
    scale = step.get('scale')
    if isinstance(scale, int):
        scale = (scale, scale)
    if not isinstance(scale, (tuple, list)) or not all(type(s) is int for s in scale):
        return dict(type='Resize', scale=(longest, longest), keep_ratio=True)
    if max(scale) <= longest:
        return step
    factor = longest / max(scale)
    width, height = (max(1, round(side * factor)) for side in scale)
    keep = bool(step.get('keep_ratio', False))
    return dict(type='Resize', scale=(width, height), keep_ratio=keep)
