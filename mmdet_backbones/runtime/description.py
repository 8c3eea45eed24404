"""What may stand in ``detector.json``, key by key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ..errors import printable

VERSION = 1
#: Format: the files that hold the net.
MODEL_FILES = {
    'onnx': ('model.onnx',),
    'openvino': ('model.xml', 'model.bin'),
    'torch': ('model.pt2',),
    'tensorrt': ('model.engine',),
}
OUTPUTS = ('boxes', 'scores', 'labels')
PRECISIONS = ('fp32', 'fp16', 'bf16', 'int8')
INTERPOLATIONS = ('bilinear', 'nearest', 'bicubic', 'area', 'lanczos')


@dataclass(frozen=True)
class _Allowed:
    """What one value may be, in words and as a test."""

    words: str
    fits: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _side(value: Any) -> bool:
    return type(value) is int and value > 0


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_number, value))


def _one_of(*values: Any) -> _Allowed:
    words = ' or '.join(repr(value) for value in values)
    # 1 is True for Python, but not for who reads the file.
    kinds = [(type(value), value) for value in values]
    return _Allowed(words, lambda value: (type(value), value) in kinds)


def _or_null(allowed: _Allowed) -> _Allowed:
    return _Allowed(
        f'{allowed.words}, or null', lambda value: value is None or allowed.fits(value)
    )


_TEXT = _Allowed('a text', lambda value: isinstance(value, str))
_SIDE = _Allowed('a whole number above 0', _side)
_SHARE = _Allowed('a number from 0 to 1', _share)
_FLAG = _Allowed('true or false', lambda value: isinstance(value, bool))
_THREE = _Allowed('a list of three numbers', _three)
_OBJECT = _Allowed('an object', lambda value: isinstance(value, dict))
_PADDING = _Allowed('a number or three', lambda value: _number(value) or _three(value))
_CLASSES = _Allowed('a list of names', lambda value: _texts(value) and bool(value))
_SCHEMA: dict[str, Any] = {
    'format_version': _one_of(VERSION),
    'format': _one_of(*MODEL_FILES),
    'precision': _one_of(*PRECISIONS),
    'files': _OBJECT,
    'classes': _CLASSES,
    'input': {
        'name': _one_of('images'),
        'batch': _or_null(_SIDE),
        'height': _or_null(_SIDE),
        'width': _or_null(_SIDE),
        'dtype': _one_of('uint8'),
        'layout': _one_of('NHWC'),
        'order': _one_of('RGB'),
    },
    'resize': {
        'height': _SIDE,
        'width': _SIDE,
        'keep_ratio': _FLAG,
        'interpolation': _one_of(*INTERPOLATIONS),
        'pad_value': _or_null(_PADDING),
        'pad': _FLAG,
        'size_divisor': _or_null(_SIDE),
    },
    'normalisation': {
        'mean': _or_null(_THREE),
        'std': _or_null(_THREE),
        'order': _one_of('RGB', 'BGR'),
    },
    'outputs': _Allowed(f'{list(OUTPUTS)}', lambda value: value == list(OUTPUTS)),
    'max_per_image': _SIDE,
    'thresholds': {'score': _SHARE, 'nms_iou': _or_null(_SHARE)},
    'detector': _TEXT,
    'backbone': _or_null(_TEXT),
    'weights_licence': _or_null(_TEXT),
    'versions': _OBJECT,
    'source': _OBJECT,
    'max_difference': _or_null(_OBJECT),
}
_FILE = {
    'sha256': _Allowed(
        '64 hexadecimal digits',
        lambda value: (
            isinstance(value, str)
            and len(value) == 64
            and set(value) <= set('0123456789abcdef')
        ),
    ),
    'bytes': _Allowed('a whole number', lambda value: type(value) is int),
}


def problems_in(description: Any) -> list[str]:
    """Find everything that is wrong with what a ``detector.json`` says.

    Args:
        description: As it was read.

    Returns:
        One line each; for a file of another version that alone.
    """
    if not isinstance(description, dict):
        return [f'it holds {_shown(description)}, not an object']
    version = description.get('format_version', VERSION)
    if type(version) is int and version > VERSION:
        return [
            f'format_version is {version}, and this mmdet_backbones reads {VERSION}: '
            'write\n  pip install --upgrade mmdet_backbones'
        ]
    found = list(_walk(_SCHEMA, description, ''))
    files = description.get('files')
    if isinstance(files, dict):
        for name, entry in files.items():
            found += _walk(_FILE, entry, f'files.{printable(name)}.')
        wanted = MODEL_FILES.get(str(description.get('format')), ())
        found += [f'files names no {name}' for name in wanted if name not in files]
    return found


def _walk(schema: Mapping[str, Any], value: Any, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f'{place.rstrip(".")} must be an object, got {_shown(value)}'
        return
    for key in value:
        if key not in schema:
            near = get_close_matches(key, schema, n=1)
            hint = f', nearest: {near[0]}' if near else ''
            yield f'{place}{printable(key)} is not known{hint}'
    for key, allowed in schema.items():
        if key not in value:
            yield f'{place}{key} is missing'
        elif isinstance(allowed, dict):
            yield from _walk(allowed, value[key], f'{place}{key}.')
        elif not allowed.fits(value[key]):
            yield f'{place}{key} must be {allowed.words}, got {_shown(value[key])}'


def _shown(value: Any) -> str:
    return printable(repr(value))
