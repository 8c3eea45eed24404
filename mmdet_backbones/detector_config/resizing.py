"""The size that a detector's images are brought to, in all of its pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mmengine.config import Config

from ..errors import UserError
from .tree import Part, datasets_in, type_name, walk
from .values import is_number

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
        found = _reference(pipelines)
        if found is None:
            raise UserError(_unknown(split, height, width))
        change = _Change(found[0], (width, height), found[1])
        for pipeline in (*pipelines, *more):
            _scale(pipeline, change)


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


class _Change(NamedTuple):
    """From the width and height of images to others.

    Attributes:
        old: Those that pipelines bring images to now.
        new: Those that they shall.
        kept: Whether images keep their ratio, and either side may be the longer one.
    """

    old: Size
    new: Size
    kept: bool

    def of(self, pair: Size, kept: bool) -> Size:
        """Apply to a size in pixels: width by width, or longer side by longer side."""
        if not (kept or self.kept):
            sides = zip(pair, self.old, self.new, strict=True)
            return tuple(round(p * n / o) for p, o, n in sides)  # type: ignore[return-value]
        longer = round(max(pair) * max(self.new) / max(self.old))
        shorter = round(min(pair) * min(self.new) / min(self.old))
        square = abs(pair[0]) == abs(pair[1])
        lies = self.new[0] >= self.new[1] if square else pair[0] > pair[1]
        return (longer, shorter) if lies else (shorter, longer)


def _reference(pipelines: Sequence[Any]) -> tuple[Size, bool] | None:
    """Width and height that pipelines bring images to, and whether by their ratio."""
    steps = [part for _, part in walk(list(pipelines))]
    for name, key in _WHOLE.items():
        for step in steps:
            # Of a range the crops are enlarged once more.
            whole = step.get('crop_type', 'absolute') == 'absolute'
            if type_name(step) == name and whole and _pairs(step, key):
                return _pairs(step, key)[0], False
    sizes = [
        (pair, _keeps_ratio(step))
        for step in steps
        if type_name(step) in _RESIZES
        for pair in _pairs(step, _RESIZES[type_name(step)])
    ]
    # Some are drawn for a crop out of images without an upper bound of width.
    return max(sizes, key=lambda s: (min(s[0]), -max(s[0])), default=None)


def _keeps_ratio(step: Part) -> bool:
    return bool(step.get('keep_ratio', type_name(step) == 'FixScaleResize'))


def _pairs(step: Part, key: str) -> list[Size]:
    """Sizes in pixels that an argument names; none if it is something else."""
    value = step.get(key)
    if step.get('crop_type') in _RELATIVE_CROPS:
        return []
    if is_number(value):
        value = (value, value)
    if not isinstance(value, (list, tuple)):
        return []
    given = [value] if _is_size(value) else list(value)
    found = [tuple(pair) for pair in given if _is_size(pair)]
    return found if len(found) == len(given) else []


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        # RandomAffine counts from the border inwards.
        and all(is_number(side) and side for side in value)
    )


def _scale(pipeline: Any, change: _Change) -> None:
    for _, step in walk(pipeline):
        name = type_name(step)
        key = _WHOLE.get(name) or _RESIZES.get(name)
        if key and _pairs(step, key):
            kept = name in _RESIZES and _keeps_ratio(step)
            pairs = [change.of(pair, kept) for pair in _pairs(step, key)]
            single = is_number(step[key]) or _is_size(step[key])
            step[key] = pairs[0] if single else pairs
        elif name == 'RandomAffine' and _is_size(step.get('border')):
            step['border'] = change.of(tuple(step['border']), False)
        elif name == 'BatchSyncRandomResize' and _is_size(
            step.get('random_size_range')
        ):
            unit = step.get('size_divisor', 32)
            share = change.new[1] / change.old[1] / unit
            step['random_size_range'] = tuple(
                max(round(side * share), 1) * unit for side in step['random_size_range']
            )
        elif name == 'BatchFixedSizePad' and _is_size(step.get('size')):
            # This one has the height first.
            step['size'] = change.of(tuple(step['size'])[::-1], False)[::-1]


def _unknown(split: str, height: int, width: int) -> str:
    known = ', '.join((*_RESIZES, *list(_WHOLE)[:4]))
    step = f"dict(type='Resize', scale=({width}, {height}), keep_ratio=True)"
    return (
        f'--size: the pipeline of {split}_dataloader has no transform that sets a size '
        f'here (known: {known}): write {step} into its pipeline, after '
        'LoadImageFromFile'
    )
