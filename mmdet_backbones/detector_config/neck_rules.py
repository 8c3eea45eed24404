"""What the parts of a detector expect of the levels of a backbone: one table.

One entry per neck, and per part that reads the backbone without a neck. Swap and
config check read the same entries; :func:`register_neck_rule` adds one for a neck of
your own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .neck_strides import (
    Part,
    Strides,
    deconvolved,
    deepest,
    extended,
    from_finest,
    pyramid,
    pyramid_from_second,
    same,
    ssd_outputs,
    vit_outputs,
)

FPN_STRIDES = (4, 8, 16, 32)
DENSE_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class NeckRule:
    """How one class takes the levels of a backbone and what it makes of them.

    Attributes:
        strides: Of the levels that it usually gets, shallow to deep.
        outputs: Maps its config and the strides of its inputs to those of its outputs.
        count: Number of levels that it takes as configured, or None for any number.
        single: Whether ``in_channels`` is an integer and the deepest level is read.
        deep_first: Whether ``in_channels`` names the deepest level first.
        reads_channels: False for a part without ``in_channels`` of its own to fill:
            what stands before it decides.
        start_level: Its default of the first level that is used.
        takes_start: Whether it has an argument ``start_level``.
        doubles: Whether each map has to be exactly twice as large as the next one, so
            that images are padded to multiples of the deepest stride.
        pyramid: Whether it makes a pyramid of equal channels, for which the pyramid
            from one map can stand in.
        fixed: Whether other parts are made for the configured strides, so that a
            backbone has to have them.
        follow: Further keys that depend on the levels: maps the config and the new
            channels, shallow to deep, to their values.
        refusal: Why no other backbone can stand before it, or None.
    """

    strides: tuple[int, ...]
    outputs: Callable[[Part, Strides], Strides]
    count: Callable[[Part], int | None] = lambda part: None
    single: bool = False
    deep_first: bool = False
    reads_channels: bool = True
    start_level: int = 0
    takes_start: bool = False
    doubles: bool = False
    pyramid: bool = False
    fixed: bool = False
    follow: Callable[[Part, Sequence[int]], dict[str, Any]] = lambda part, c: {}
    refusal: str | None = None

    def first_used(self, part: Part) -> int:
        """Position of the first level that it uses."""
        return int(part.get('start_level', self.start_level)) if self.takes_start else 0

    def channels(self, part: Part) -> list[int] | None:
        """Channels that it is configured for, shallow to deep; None if it says none."""
        given = part.get('in_channels')
        if given is None or not self.reads_channels:
            return None
        found = [given] if isinstance(given, int) else list(given)
        return found[::-1] if self.deep_first else found

    def settings(self, part: Part, channels: Sequence[int]) -> dict[str, Any]:
        """Keys to write for a backbone of these channels, shallow to deep."""
        if not self.reads_channels:
            return {}
        ordered = list(channels)[::-1] if self.deep_first else list(channels)
        value = channels[-1] if self.single else ordered
        return {'in_channels': value, **self.follow(part, channels)}


def _ssd_follow(part: Part, channels: Sequence[int]) -> dict[str, Any]:
    kept = list(part['out_channels'])[len(part['in_channels']) :]
    return {'out_channels': [*channels, *kept]}


def _configured(part: Part) -> int:
    return len(part['in_channels'])


def _scales(part: Part) -> int:
    return int(part['num_scales'])


def _three_used(default_start: int) -> Callable[[Part], int]:
    return lambda part: 3 + int(part.get('start_level', default_start))


def _fpn(**changes: Any) -> NeckRule:
    base: dict[str, Any] = dict(takes_start=True, pyramid=True)
    return NeckRule(FPN_STRIDES, pyramid, **{**base, **changes})


def _passes_on(strides: tuple[int, ...] = FPN_STRIDES) -> NeckRule:
    return NeckRule(strides, same, reads_channels=False)


_ONE: dict[str, Any] = dict(count=lambda part: 1, single=True)
_RFP = (
    'RFP runs copies of DetectoRS_ResNet of its own and wants the image among their '
    'inputs: take a config with FPN, such as '
    'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'
)
NECK_RULES: dict[str, NeckRule] = {
    'FPN': _fpn(),
    'PAFPN': _fpn(),
    'FPN_CARAFE': _fpn(doubles=True),
    'FPN_DropBlock': _fpn(),
    'FPG': _fpn(),
    # Of onedl's mmdet, for lanes.
    'CLRFPN': _fpn(),
    # Their cells name the maps 3 to 7.
    'NASFPN': _fpn(count=_three_used(0)),
    'NASFCOS_FPN': NeckRule(
        FPN_STRIDES,
        pyramid_from_second,
        count=_three_used(1),
        start_level=1,
        takes_start=True,
        pyramid=True,
    ),
    'HRFPN': NeckRule(FPN_STRIDES, from_finest, doubles=True, pyramid=True),
    'RFP': _fpn(refusal=_RFP),
    'YOLOV3Neck': NeckRule(
        DENSE_STRIDES, same, count=_scales, deep_first=True, doubles=True
    ),
    'YOLOXPAFPN': NeckRule(DENSE_STRIDES, same, doubles=True),
    'CSPNeXtPAFPN': NeckRule(DENSE_STRIDES, same, doubles=True),
    'ChannelMapper': NeckRule(DENSE_STRIDES, extended),
    'SSH': NeckRule(DENSE_STRIDES, same, count=_scales),
    'SSDNeck': NeckRule(
        (8, 16), ssd_outputs, count=_configured, fixed=True, follow=_ssd_follow
    ),
    'DilatedEncoder': NeckRule((32,), deepest, **_ONE),
    'CTResNetNeck': NeckRule((32,), deconvolved, **_ONE),
    'SimpleFeaturePyramid': NeckRule((16,), vit_outputs, **_ONE),
    'SingleLevel': NeckRule((16,), deepest),
    # They refine what the neck before them gives.
    'BFP': _passes_on(),
    'DyHead': _passes_on(DENSE_STRIDES),
}
# Parts that read the backbone where a detector has no neck, by their key in ``model``.
HEAD_RULES: dict[str, NeckRule] = {
    # Faster R-CNN C4 and DC5, RPN C4.
    'rpn_head': NeckRule((16,), same, **_ONE),
    # MaskFormer and Mask2Former.
    'panoptic_head': NeckRule(FPN_STRIDES, same, count=_configured),
}
REFUSED_DETECTORS: dict[str, str] = {
    'CornerNet': 'its heads read the two stacked maps of an hourglass net',
    'TridentFasterRCNN': 'its head reads the three branches of TridentResNet',
}


def register_neck_rule(name: str, rule: NeckRule) -> None:
    """Add the rule of a neck of your own.

    Args:
        name: Of its class, as ``type`` names it, without a scope.
        rule: Read by the swap and by the config check.

    Raises:
        ValueError: If there is a rule of that name.

    Example:
        >>> register_neck_rule('MyNeck', NeckRule((8, 16, 32), lambda part, s: s))
    """
    if name in NECK_RULES:
        raise ValueError(f'there is a rule for the neck {name!r} already')
    NECK_RULES[name] = rule


def type_name(part: Part) -> str:
    """Name of the class of a part of a config, without a scope."""
    given = part['type']
    return (given if isinstance(given, str) else given.__name__).rpartition('.')[2]


def rule_of(neck: Part) -> NeckRule:
    """Return the rule of a neck.

    Raises:
        UserError: A ``ValueError`` that lists the known rules.
    """
    name = type_name(neck)
    if name not in NECK_RULES:
        raise UserError(
            f'there is no rule for the neck {name!r}. There are rules for '
            f'{", ".join(NECK_RULES)}. For a neck of your own, add one with '
            'mmdet_backbones.detector_config.neck_rules.register_neck_rule'
        )
    return NECK_RULES[name]


def necks_of(model: Part) -> list[Part]:
    """All necks of a detector's config in the order in which they run."""
    neck = model.get('neck')
    if not neck:
        return []
    return list(neck) if isinstance(neck, (list, tuple)) else [neck]


def reader_of(model: Part) -> tuple[tuple[str | int, ...], Part, NeckRule]:
    """Find the part of a detector that reads the levels of the backbone.

    Args:
        model: ``model`` of a config.

    Returns:
        Its place in ``model``, its config and its rule.

    Raises:
        UserError: If there is no rule for it, or it takes no other backbone.
    """
    refusal = REFUSED_DETECTORS.get(type_name(model))
    if refusal is not None:
        raise UserError(f'{type_name(model)} takes no other backbone: {refusal}')
    necks = necks_of(model)
    if necks:
        chained = isinstance(model['neck'], (list, tuple))
        rule = rule_of(necks[0])
        if rule.refusal is not None:
            raise UserError(rule.refusal)
        return ('neck', 0) if chained else ('neck',), necks[0], rule
    for key, rule in HEAD_RULES.items():
        if model.get(key):
            return (key,), model[key], rule
    raise UserError(
        f'{type_name(model)} has no neck, and none of the parts '
        f'{", ".join(HEAD_RULES)} that would read a backbone'
    )


def output_strides(model: Part, strides: Sequence[float]) -> Strides:
    """Strides of the maps that the heads get.

    Args:
        model: ``model`` of a config.
        strides: Of the levels of its backbone, shallow to deep.

    Raises:
        UserError: As :func:`rule_of`.
    """
    found = tuple(strides)
    for neck in necks_of(model):
        found = rule_of(neck).outputs(neck, found)
    return tuple(int(s) if float(s).is_integer() else s for s in found)
