"""Whether a training shows its backbone the same images in every epoch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..detector_config.tree import Place, dotted, plain, type_name, walk

_STEADY = (
    *('LoadImageFromFile', 'LoadImageFromNDArray', 'LoadAnnotations'),
    *('LoadEmptyAnnotations', 'LoadPanopticAnnotations', 'LoadProposals'),
    *('FilterAnnotations', 'Resize', 'FixScaleResize', 'FixShapeResize'),
    *('ResizeShortestEdge', 'Pad', 'Normalize', 'CenterCrop', 'Color', 'ToTensor'),
    *('ImageToTensor', 'PackDetInputs', 'Transpose', 'BatchFixedSizePad'),
)
_OF_ONE_SIZE = ('FixShapeResize', 'BatchFixedSizePad')
_SIZES = ('scale', 'scales', 'img_scale')
_STEP = 32


class Unsteady(NamedTuple):
    """A setting by which an image is another one in each epoch.

    Attributes:
        key: Place in the config, dotted.
        problem: Why.
        value: What to write there.
    """

    key: str
    problem: str
    value: Any


def unsteady_images(
    config: Mapping[str, Any], steady: Collection[str] = ()
) -> list[Unsteady]:
    """Find what changes the images of a training from epoch to epoch.

    Args:
        config: All of it.
        steady: Names of further transforms that give the same image each time.

    Returns:
        One entry for each pipeline that does; none if an image stays as it is.
    """
    known = {*_STEADY, *(name.rpartition('.')[2] for name in steady)}
    found, left = [], []
    for place, steps in _pipelines(config):
        kept = [s for s in map(_settled, steps) if s and _is_steady(s, known)]
        left += kept
        wrong = [s for s in steps if not _is_steady(s, known)]
        if wrong:
            names = ', '.join(dict.fromkeys(map(type_name, wrong)))
            problem = f'{names} may give another image each time'
            found.append(Unsteady(dotted(*place), problem, [*map(plain, kept)]))
    if not any(map(_is_of_one_size, left)):
        found += _unsteady_padding(config, left, _augments(config, known))
    # The last word on a place holds those before it.
    return [*{entry.key: entry for entry in found}.values()]


def _pipelines(config: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    for name in ('train_dataloader', 'custom_hooks'):
        for place, part in walk(config.get(name), (name,)):
            for key in ('pipeline', 'switch_pipeline'):
                if isinstance(part.get(key), (list, tuple)):
                    yield (*place, key), part[key]
    given = (config.get('model') or {}).get('data_preprocessor') or {}
    augments = given.get('batch_augments')
    if augments:
        yield ('model', 'data_preprocessor', 'batch_augments'), augments


def _is_steady(step: Any, known: Collection[str]) -> bool:
    # A transform that never takes place is none.
    return type_name(step) in known or step.get('prob', step.get('p')) == 0


def _settled(step: Any) -> Any:
    """The same resizing to one size; None for what has no counterpart."""
    kind = type_name(step)
    if kind not in ('RandomResize', 'RandomChoiceResize'):
        return step
    size: Any = next((step[key] for key in _SIZES if step.get(key)), None)
    while isinstance(size, (list, tuple)) and isinstance(size[0], (list, tuple)):
        size = size[0]
    if not isinstance(size, (list, tuple)):
        return None
    return dict(type='Resize', scale=tuple(size), keep_ratio=True)


def _augments(config: Mapping[str, Any], known: Collection[str]) -> list[Any]:
    given = (config.get('model') or {}).get('data_preprocessor') or {}
    return [s for s in given.get('batch_augments') or () if _is_steady(s, known)]


def _is_of_one_size(step: Any) -> bool:
    kind = type_name(step)
    return (
        kind in _OF_ONE_SIZE
        or (kind == 'Resize' and not step.get('keep_ratio', False))
        or (kind == 'Pad' and bool(step.get('size') or step.get('pad_to_square')))
    )


def _unsteady_padding(
    config: Mapping[str, Any], steps: Sequence[Any], augments: Sequence[Any]
) -> Iterator[Unsteady]:
    """Images of other sizes in the same batch, which change from epoch to epoch."""
    if (config.get('train_dataloader') or {}).get('batch_size', 1) == 1:
        return
    sizes = [s['scale'] for s in steps if isinstance(s.get('scale'), (list, tuple))]
    longest = max((side for size in sizes for side in size), default=1333)
    side = _STEP * math.ceil(longest / _STEP)
    given = (config.get('model') or {}).get('data_preprocessor') or {}
    masks = bool(given.get('pad_mask', False))
    pad = dict(type='BatchFixedSizePad', size=(side, side), pad_mask=masks)
    yield Unsteady(
        'model.data_preprocessor.batch_augments',
        'images are padded to the largest of their batch, which is another one in each '
        'epoch',
        [*map(plain, augments), pad],
    )
