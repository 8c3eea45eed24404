"""The images that a detector trains on, as its pipeline makes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .tree import Part, datasets_in, type_name, walk

# Shape of a photograph, the longer side over the shorter one.
_PHOTO = 4 / 3
# Of a transform of the pipeline that fixes the size of images, the later ones first.
_SIZES = ('crop_size', 'scale', 'size', 'scales', 'img_scale')
_TRANSFORMS = (
    *('Resize', 'FixScaleResize', 'FixShapeResize', 'RandomResize', 'RandomCrop'),
    *('RandomChoiceResize', 'Pad', 'Mosaic', 'CachedMosaic'),
)


def image_size(config: Part) -> tuple[int, int] | None:
    """Height and width of a usual image of the training, padded as it will be.

    Args:
        config: All of it.

    Returns:
        None if the pipeline does not say.
    """
    found = [*_augmented(config)] or [*_piped(config)]
    if not found:
        return None
    given = config['model'].get('data_preprocessor') or {}
    divisor = given.get('pad_size_divisor', 1)
    height, width = found[-1]
    return _up(height, divisor), _up(width, divisor)


def _up(side: float, divisor: int) -> int:
    return math.ceil(side / divisor) * divisor


def _augmented(config: Part) -> Iterator[tuple[int, int]]:
    """Sizes that whole batches are brought to."""
    given = config['model'].get('data_preprocessor') or {}
    for augment in given.get('batch_augments') or ():
        if type_name(augment) == 'BatchFixedSizePad':
            yield tuple(augment['size'])  # type: ignore[misc]
        elif type_name(augment) == 'BatchSyncRandomResize':
            side = min(augment['random_size_range'])
            side = _up(side, augment.get('size_divisor', 32))
            yield side, side


def _piped(config: Part) -> Iterator[tuple[int, int]]:
    """Sizes in the order in which images get them."""
    # What is inside a data set that mixes images comes first.
    for _, dataset in reversed([*datasets_in(config.get('train_dataloader'))]):
        for _, transform in walk(dataset.get('pipeline') or ()):
            if type_name(transform) not in _TRANSFORMS:
                continue
            size = next(
                (s for k in _SIZES if (s := _pair(transform.get(k))) is not None), None
            )
            if size is not None:
                yield _seen(transform, size)


def _pair(value: Any) -> tuple[int, int] | None:
    """A width and a height; of several the smallest."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (int(value), int(value)) if value > 2 else None
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return None
    if all(isinstance(one, Sequence) for one in value):
        return min((p for one in value if (p := _pair(one))), default=None, key=min)
    numbers = all(isinstance(one, (int, float)) and one > 2 for one in value)
    return (int(value[0]), int(value[1])) if numbers and len(value) == 2 else None


def _seen(transform: Mapping[str, Any], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a photograph behind a transform."""
    kind = type_name(transform)
    if 'Resize' in kind and transform.get('keep_ratio', kind != 'Resize'):
        # Two bounds: of the shorter side and of the longer one.
        short, long = min(size), max(size)
        return (short, round(min(long, short * _PHOTO)))
    if kind == 'RandomCrop':
        return size  # height comes first there
    return size[1], size[0]
