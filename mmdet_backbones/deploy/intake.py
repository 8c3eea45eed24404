"""How a detector's images come to it: its test pipeline and preprocessor, read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from ..detector_config.resizing import resize
from ..detector_config.tree import type_name
from ..errors import UserError
from ..pictures.photograph import read_pipeline
from .graph import ImageRules

Size = tuple[int, int]
_HARMLESS = ('LoadImageFromFile', 'LoadImageFromNDArray', 'PackDetInputs')
_KNOWN = ('Resize', 'Pad', 'RandomCenterCropPad')
_DIVISOR = 32


@dataclass(frozen=True)
class Intake:
    """What happens to an image before the net, in the graph and before it.

    Attributes:
        rules: For the graph.
        scale: Height and width in pixels that images are brought to or into.
        keep_ratio: Whether they are brought into it.
        interpolation: Such as ``'bilinear'``.
        pad: Whether every image is padded to ``scale``.
        divisor: Of the sides of the padded image, in pixels.
        canvas: Height and width of the padded image where the graph takes one size.
        pad_value: Of the padding, raw where the pipeline pads, or else normalised.
    """

    rules: ImageRules
    scale: Size
    keep_ratio: bool
    interpolation: str
    pad: bool
    divisor: int
    canvas: Size
    pad_value: list[float]


def set_size(config: Config, size: Size | None) -> None:
    """Bring the images of a config to another size.

    Args:
        config: All of it, changed in place.
        size: Height and width in pixels; None changes nothing.

    Raises:
        UserError: If a part of the detector is made for one size.
    """
    if size is None:
        return
    steps = _steps(config)
    if not any(type_name(step) == 'Resize' for step in steps):
        first = next(
            (i for i, s in enumerate(steps) if type_name(s).startswith('LoadImage')), 0
        )
        resizing = dict(type='Resize', scale=(size[1], size[0]), keep_ratio=True)
        steps.insert(first + 1, resizing)
        for step in steps:
            if _forgets_factor(step):
                step['meta_keys'] = (*step['meta_keys'], 'scale_factor')
        return
    resize(config, size)


def _forgets_factor(step: Mapping[str, Any]) -> bool:
    """Whether boxes stay in pixels of the resized image."""
    keys = step.get('meta_keys')
    return keys is not None and 'scale_factor' not in keys


def _steps(config: Config) -> list[Any]:
    from ..detector_config.tree import dataset_of

    split = 'test' if config.get('test_dataloader') else 'val'
    return dataset_of(config, split).pipeline


def read_intake(config: Config, preprocessor: Any) -> Intake:
    """Read the test pipeline of a config and what follows it.

    Args:
        config: All of it.
        preprocessor: ``data_preprocessor`` of the detector.

    Raises:
        UserError: With everything that an exported detector has no counterpart of.
    """
    steps = [dict(step) for step in read_pipeline(config)]
    problems = [*_unknown(steps), *_odd_preprocessor(preprocessor)]
    resizes = [step for step in steps if type_name(step) == 'Resize']
    pads = [step for step in steps if type_name(step) == 'Pad']
    if not problems:
        problems += [*_odd_resize(resizes), *_odd_pad(pads)]
    if problems:
        raise UserError(
            'the images of this detector are prepared in a way that an exported one '
            'has no counterpart of:\n' + '\n'.join(f'  {p}' for p in problems)
        )
    centred = any(type_name(step) == 'RandomCenterCropPad' for step in steps)
    return _intake(resizes[0], pads, preprocessor, centred)


def _unknown(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for step in steps:
        name = type_name(step)
        if _forgets_factor(step):
            keys = (*step['meta_keys'], 'scale_factor')
            yield (
                f"'{name}' in the test pipeline forgets by how much images were "
                'resized, and mmdet then gives boxes in pixels of the resized ones: '
                f'write meta_keys={keys}'
            )
        if name in _HARMLESS or 'Annotations' in name:
            continue
        if name not in _KNOWN:
            yield (
                f"'{name}' in the test pipeline: known are {', '.join(_KNOWN)}; take "
                'it out'
            )
        elif name == 'RandomCenterCropPad' and not step.get('test_mode'):
            yield "'RandomCenterCropPad' in the test pipeline: write test_mode=True"


def _odd_resize(resizes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(resizes) != 1:
        yield (
            f'{len(resizes)} Resize in the test pipeline: write one, after '
            "LoadImageFromFile, dict(type='Resize', scale=(640, 640), keep_ratio=True)"
            ', or --size 640 640'
        )
        return
    (step,) = resizes
    if _pair(step.get('scale')) is None:
        yield f'Resize with scale={step.get("scale")}: write scale=(640, 640)'
    if step.get('backend', 'cv2') != 'cv2':
        yield f"Resize with backend='{step['backend']}': write backend='cv2'"


def _odd_pad(pads: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(pads) > 1:
        yield f'{len(pads)} Pad in the test pipeline: leave one'
    for step in pads:
        if step.get('padding_mode', 'constant') != 'constant':
            yield f"Pad with padding_mode='{step['padding_mode']}': leave it out"
        if not (step.get('size') or step.get('pad_to_square')):
            yield (
                'Pad with size_divisor: take it out, and write it as '
                'model.data_preprocessor.pad_size_divisor'
            )


def _odd_preprocessor(preprocessor: Any) -> Iterator[str]:
    from mmdet.models import DetDataPreprocessor

    if not isinstance(preprocessor, DetDataPreprocessor):
        yield (
            f"data_preprocessor of type '{type(preprocessor).__name__}': write "
            "type='DetDataPreprocessor'"
        )
    elif type(preprocessor).forward is not DetDataPreprocessor.forward:
        yield (
            f"data_preprocessor of type '{type(preprocessor).__name__}', which does "
            "more than normalise and pad: write type='DetDataPreprocessor'"
        )
    elif preprocessor._enable_normalize and preprocessor.mean.numel() != 3:
        yield 'images of other than three channels'


def _pair(value: Any) -> Size | None:
    """Width and height as transforms name them."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return tuple(value) if all(type(v) is int for v in value) else None  # type: ignore[return-value]
    return None


def _intake(
    resizing: Mapping[str, Any],
    pads: Sequence[Mapping[str, Any]],
    preprocessor: Any,
    centred: bool,
) -> Intake:
    pair = _pair(resizing['scale'])
    assert pair is not None
    scale = (pair[1], pair[0])
    divisor = _DIVISOR if centred else int(preprocessor.pad_size_divisor)
    outer = scale
    for step in pads:
        size = _pair(step.get('size'))
        outer = (max(scale),) * 2 if size is None else (size[1], size[0])
    canvas = tuple(-(-side // divisor) * divisor for side in outer)
    if pads and canvas != outer:
        raise UserError(
            f'images are padded to {outer[0]} x {outer[1]} pixels, and then to '
            f'multiples of {divisor} with another value: write --size {canvas[0]} '
            f'{canvas[1]}'
        )
    rules, pad_value = _rules(preprocessor, pads, centred)
    return Intake(
        rules=rules,
        scale=scale,
        keep_ratio=bool(resizing.get('keep_ratio', False)),
        interpolation=resizing.get('interpolation', 'bilinear'),
        pad=bool(pads),
        divisor=divisor,
        canvas=canvas,  # type: ignore[arg-type]
        pad_value=pad_value,
    )


def _rules(
    preprocessor: Any, pads: Sequence[Mapping[str, Any]], centred: bool
) -> tuple[ImageRules, list[float]]:
    mean, std = [0.0] * 3, [1.0] * 3
    if preprocessor._enable_normalize:
        # As it was written, where float32 has 123.67500305.
        mean = [float(f'{v:.7g}') for v in preprocessor.mean.flatten().tolist()]
        std = [float(f'{v:.7g}') for v in preprocessor.std.flatten().tolist()]
    order = 'RGB' if preprocessor._channel_conversion else 'BGR'
    raw = pads or centred
    value = _pad_value(pads[0]) if pads else [0.0] * 3
    if order == 'RGB':
        value = value[::-1]  # the pipeline pads what is loaded as BGR
    fill = [float(preprocessor.pad_value)] * 3
    if raw:
        fill = [(v - m) / s for v, m, s in zip(value, mean, std, strict=True)]
    rules = ImageRules(
        mean=tuple(mean),
        std=tuple(std),
        order=order,
        fill=tuple(fill),
        clip_to_canvas=bool(pads),
        centred=centred,
    )
    return rules, value if raw else fill


def _pad_value(step: Mapping[str, Any]) -> list[float]:
    value = step.get('pad_val', 0)
    if isinstance(value, Mapping):
        value = value.get('img', 0)
    if isinstance(value, (int, float)):
        return [float(value)] * 3
    return [float(v) for v in value]
