"""The size that a detector's images are brought to, in all of its pipelines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmengine.config import Config

from ..errors import UserError
from .tree import Part, datasets_in, type_name, walk

Size = tuple[int, int]
# Transforms whose argument is the width and height of the images that they make, those
# first that decide the size that the detector sees.
_WHOLE = {
    'Mosaic': 'img_scale',
    'CachedMosaic': 'img_scale',
    'Pad': 'size',
    'RandomCrop': 'crop_size',
    'RandomCenterCropPad': 'crop_size',
    'MixUp': 'img_scale',
    'CachedMixUp': 'img_scale',
}
# Those that bring images to a size, or into one if they keep their ratio.
_RESIZES = {
    'Resize': 'scale',
    'FixScaleResize': 'scale',
    'RandomResize': 'scale',
    'RandomChoiceResize': 'scales',
}
_RELATIVE_CROPS = ('relative', 'relative_range')


def resize(config: Config, size: Size) -> None:
    """Let a detector train and test on images of another size.

    Every transform that names a size keeps its share of it: the canvas of a mosaic, the
    sizes that are drawn at random, those of test-time augmentation.

    Args:
        config: All of it, changed in place.
        size: Height and width. Where images keep their ratio they fit into it.

    Raises:
        UserError: If a pipeline has no transform that is known to set the size, or a
            part of the model is made for one size.
    """
    height, width = size
    fixed = [p['input_size'] for _, p in walk(config.model) if p.get('input_size')]
    if fixed:
        raise UserError(
            f'--size: parts of the base are made for images of {fixed[0]} pixels '
            '(input_size): take a base that is made for the size'
        )
    test = _pipelines(config, ('val', 'test'))
    train = _pipelines(config, ('train',))
    hooks = [h['switch_pipeline'] for h in config.get('custom_hooks') or ()
             if h.get('switch_pipeline')]  # fmt: skip
    for split, pipelines, more in (
        ('train', train, [*hooks, _augments(config)]),
        ('test', test, [config.get('tta_pipeline')]),
    ):
        if not pipelines:
            continue
        old = _reference(pipelines)
        if old is None:
            raise UserError(_unknown(split, height, width))
        for pipeline in (*pipelines, *more):
            _scale(pipeline, old, (width, height))


def _pipelines(config: Config, splits: Sequence[str]) -> list[Any]:
    """Pipelines of the data sets of some loaders, outer ones first, each once."""
    found = {
        id(part['pipeline']): part['pipeline']
        for split in splits
        for _, part in datasets_in(config.get(f'{split}_dataloader'))
        if part.get('pipeline')
    }
    return list(found.values())


def _augments(config: Config) -> Any:
    return (config.model.get('data_preprocessor') or {}).get('batch_augments')


def _reference(pipelines: Sequence[Any]) -> Size | None:
    """Width and height that pipelines bring images to; None if they do not say."""
    steps = [part for _, part in walk(list(pipelines))]
    for name, key in _WHOLE.items():
        for step in steps:
            # Of a range the crops are enlarged once more.
            whole = step.get('crop_type', 'absolute') == 'absolute'
            if type_name(step) == name and whole and _pairs(step, key):
                return _pairs(step, key)[0]
    sizes = [
        pair
        for step in steps
        if type_name(step) in _RESIZES
        for pair in _pairs(step, _RESIZES[type_name(step)])
    ]
    # Some are drawn for a crop out of images without an upper bound of width.
    return max(sizes, key=lambda pair: (min(pair), -max(pair)), default=None)


def _pairs(step: Part, key: str) -> list[Size]:
    """Sizes in pixels that an argument names."""
    value = step.get(key)
    if not value or step.get('crop_type') in _RELATIVE_CROPS:
        return []
    if isinstance(value, (int, float)):
        return [(int(value), int(value))]
    if isinstance(value[0], (list, tuple)):
        return [tuple(pair) for pair in value]
    return [tuple(value)]


def _scale(pipeline: Any, old: Size, new: Size) -> None:
    for _, step in walk(pipeline):
        name = type_name(step)
        if name in _WHOLE and _pairs(step, _WHOLE[name]):
            _set(step, _WHOLE[name], lambda pair: _by_side(pair, old, new))
        elif name in _RESIZES and _pairs(step, _RESIZES[name]):
            kept = step.get('keep_ratio', name == 'FixScaleResize')
            kept = kept or (step.get('resize_cfg') or {}).get('keep_ratio', False)
            way = _by_length if kept else _by_side
            _set(step, _RESIZES[name], lambda pair, way=way: way(pair, old, new))
        elif name == 'RandomAffine' and step.get('border'):
            _set(step, 'border', lambda pair: _by_side(pair, old, new))
        elif name == 'BatchSyncRandomResize':
            unit = step.get('size_divisor', 32)
            step['random_size_range'] = tuple(
                max(round(side * new[1] / old[1] / unit), 1) * unit
                for side in step['random_size_range']
            )
        elif name == 'BatchFixedSizePad' and step.get('size'):
            # This one has the height first.
            both = _by_side(tuple(step['size'])[::-1], old, new)
            step['size'] = both[::-1]


def _set(step: Any, key: str, change: Callable[[Size], Size]) -> None:
    pairs = [change(pair) for pair in _pairs(step, key)]
    several = not isinstance(step[key], (int, float)) and isinstance(
        step[key][0], (list, tuple)
    )
    step[key] = pairs if several else pairs[0]


def _by_side(pair: Size, old: Size, new: Size) -> Size:
    """Width by width and height by height."""
    return round(pair[0] * new[0] / old[0]), round(pair[1] * new[1] / old[1])


def _by_length(pair: Size, old: Size, new: Size) -> Size:
    """The longer side by the longer ones, as images that keep their ratio have them."""
    longer = max(pair) * max(new) / max(old)
    shorter = min(pair) * min(new) / min(old)
    both = round(longer), round(shorter)
    return (
        both
        if pair[0] > pair[1] or (pair[0] == pair[1] and new[0] >= new[1])
        else (both[::-1])
    )


def _unknown(split: str, height: int, width: int) -> str:
    known = ', '.join((*_RESIZES, *list(_WHOLE)[:4]))
    step = f"dict(type='Resize', scale=({width}, {height}), keep_ratio=True)"
    return (
        f'--size: the pipeline of {split}_dataloader has no transform that sets a size '
        f'here (known: {known}): write {step} into its pipeline, after '
        'LoadImageFromFile'
    )
