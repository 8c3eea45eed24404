"""Configs that are no configs, and what odd values do to one that is."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
INHERITED = f'_base_ = {RETINANET!r}\n'

# The file's text, and words of the message.
TOLD: dict[str, tuple[str | bytes, str]] = {
    'a value error': ('a = 1\nraise ValueError("x")\n', 'ValueError: x (line 2 of'),
    'a division': ('a = 1 / 0\n', 'ZeroDivisionError'),
    'an attribute': (f'{INHERITED}a = _base_.nothing\n', "no attribute 'nothing'"),
    'an index': ('a = [][3]\n', 'IndexError'),
    'an assertion': ('assert False\n', 'AssertionError (line 1 of'),
    'any exception': ('raise BaseException("x")\n', 'BaseException: x'),
    'sys.exit': ('import sys\nsys.exit(0)\n', 'it ends the program (line 2 of'),
    'exit': ('exit()\n', 'it ends the program'),
    'recursion': ('def f():\n    return f()\nf()\n', 'nested too deep, or refers to'),
    'nesting': ('a = {}\nfor _ in range(70):\n    a = dict(a=a)\n', 'than 50 deep'),
    'deep nesting': ('a = {}\nfor _ in range(9999):\n    a = dict(a=a)\n', 'too deep'),
    'itself as a base': ("_base_ = './odd.py'\n", 'it inherits from itself: '),
    'no base there': ("_base_ = './nope.py'\n", 'nope.py'),
    'a base in no package': ("_base_ = 'nope::x/y.py'\n", 'nope'),
    'a folder as base': ("_base_ = './'\n", 'does not exist'),
    'a number as base': ('_base_ = 3\n', 'TypeError'),
    'syntax': ('model = dict(\n', "SyntaxError: '(' was never closed"),
    'a null byte': (b'a = 1\0\n', 'null bytes'),
    'latin-1': (b'# caf\xe9\n', 'is not in UTF-8: save it as UTF-8'),
    'UTF-16': ('a = 1\n'.encode('utf-16'), 'is not in UTF-8'),
    'a mark of UTF-8': (b'\xef\xbb\xbfa = 1\n', 'without a mark (BOM)'),
    'no module': (
        "custom_imports = dict(imports=['nope_x'], allow_failed_imports=False)\n",
        'Failed to import custom modules',
    ),
    'imports of nothing': ("custom_imports = 'x'\n", 'TypeError'),
    'a class': ('class A:\n    pass\n', 'write its name as text'),
    'a function within': ('a = dict(b=[lambda: 1])\n', 'a.b.0 is <function'),
    'a reserved name': ("filename = 'x'\n", 'reserved'),
    'no variable': ("a = '{{$NOPE_X:}}'\n", 'NOPE_X'),
    'a class that is not there': ('from mmdet.models import Nope\n', 'Nope'),
    'a circle of imports': (
        'from mmengine.config import read_base\n'
        'with read_base():\n    from .odd import *\n',
        'refers to itself',
    ),
}  # fmt: skip

# A detector in the new style, on the smallest net.
NEW_STYLE = """
from mmengine.config import read_base
from mmengine.optim import OptimWrapper
from torch.optim import SGD

from mmdet.models import FPN, DetDataPreprocessor, ResNet, RetinaHead, RetinaNet
from mmdet.models.losses import FocalLoss, L1Loss
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
import mmdet.models.task_modules as tasks

default_scope = 'mmdet'
model = dict(
    type=RetinaNet,
    data_preprocessor=dict(
        type=DetDataPreprocessor, mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type=ResNet, depth=18, base_channels=8, norm_eval=False),
    neck=dict(type=FPN, in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5,
              start_level=1, add_extra_convs='on_input'),
    bbox_head=dict(
        type=RetinaHead, num_classes=3, in_channels=16, feat_channels=16,
        stacked_convs=1,
        anchor_generator=dict(
            type=AnchorGenerator, octave_base_scale=4, scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=FocalLoss, loss_weight=1.0),
        loss_bbox=dict(type=L1Loss, loss_weight=1.0)),
    train_cfg=dict(
        assigner=dict(type=tasks.MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.4),
        allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.05,
                  nms=dict(type='nms', iou_threshold=0.5), max_per_img=10))
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01))
"""

ODD = (
    None, True, 0, -1, 3, 10**30, -0.5, 0.1, math.nan, math.inf, '', 'x', '3', '1e-4',
    'ResNet', 'mmdet.FPN', [], [1], [None], ['a'], [[1, 2], [3]], {}, {'a': 1}, b'x',
    {'type': 'FPN'}, {'type': 3}, {'type': None}, 1j, '\n', '\0', '\ud800', {1: 2},
    [{}], {'_delete_': True}, [math.nan],
)  # fmt: skip


def places_in(node: Any, place: tuple = ()) -> Iterator[tuple]:
    """Every place of a config made of dicts and lists, outer ones first."""
    items: Any = ()
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    for key, value in items:
        yield (*place, key)
        yield from places_in(value, (*place, key))


def changed(content: Any, place: tuple, how: str, value: Any) -> Any:
    """A copy with one place replaced, dropped or renamed."""
    content = copy.deepcopy(content)
    node = content
    for step in place[:-1]:
        node = node[step]
    if how == 'replaced':
        node[place[-1]] = copy.deepcopy(value)
    elif how == 'renamed' and isinstance(node, dict):
        node[f'{place[-1]}x'] = node.pop(place[-1])
    else:
        del node[place[-1]]
    return content


def spelled(value: Any) -> str:
    """A value as Python."""
    if isinstance(value, dict):
        return f'{{{", ".join(f"{k!r}: {spelled(v)}" for k, v in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(spelled, value))}]'
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return ascii(value)


def text_of(content: dict[str, Any]) -> str:
    """A config that stands by itself."""
    return '\n'.join(f'{key} = {spelled(v)}' for key, v in content.items()) + '\n'
