"""What the parts of a detector expect of the levels of a backbone: one table.

One entry per neck, and per part that reads the backbone without a neck. Swap and
config check read the same entries; :func:`register_neck_rule` adds one for a neck of
your own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import UserError
from .tree import Part, Place, type_name

Strides = tuple[float, ...]
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
        widens: Whether its inner layers are as wide as the levels that it gets.
        pyramid: Whether it makes a pyramid of equal channels, for which the pyramid
            from one map can stand in.
        image: Whether the image comes before the levels, from a backbone with
            ``out_image``.
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
    widens: bool = False
    pyramid: bool = False
    image: bool = False
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


# Each of these takes the config of a neck and the strides of the levels before it,
# shallow to deep, and returns those of its outputs.


def same(part: Part, strides: Strides) -> Strides:
    """Every map keeps its stride."""
    return strides


def deepest(part: Part, strides: Strides) -> Strides:
    """The deepest input alone."""
    return strides[-1:]


def pyramid(part: Part, strides: Strides) -> Strides:
    """Outputs of FPN and its kin: the used inputs, then every second pixel."""
    return _up_to(_used(part, strides, 0), part.get('num_outs'))


def pyramid_from_second(part: Part, strides: Strides) -> Strides:
    """As :func:`pyramid`, without the first input by default."""
    return _up_to(_used(part, strides, 1), part.get('num_outs'))


def _used(part: Part, strides: Strides, default_start: int) -> Strides:
    start, end = part.get('start_level', default_start), part.get('end_level', -1)
    return strides[start:] if end == -1 else strides[start : end + 1]


def _up_to(strides: Strides, count: int | None) -> Strides:
    while strides and count is not None and len(strides) < count:
        strides = (*strides, 2 * strides[-1])
    return strides


def extended(part: Part, strides: Strides) -> Strides:
    """All inputs, then every second pixel."""
    return _up_to(strides, part.get('num_outs'))


def from_finest(part: Part, strides: Strides) -> Strides:
    """HRFPN: all from the finest input, each half the one before."""
    finest = strides[0] * part.get('stride', 1)
    return _up_to((finest,), part.get('num_outs', 5))


def deconvolved(part: Part, strides: Strides) -> Strides:
    """CTResNetNeck: the deepest input, doubled by each layer."""
    return (strides[-1] / 2 ** len(part['num_deconv_filters']),)


def ssd_outputs(part: Part, strides: Strides) -> Strides:
    """SSD: the inputs, then as its extra layers stride."""
    for stride in part['level_strides']:
        strides = (*strides, strides[-1] * stride)
    return strides


def vit_outputs(part: Part, strides: Strides) -> Strides:
    """The simple feature pyramid: one input, at several scales."""
    scales = part.get('scale_factors', (4, 2, 1, 0.5))
    made = tuple(strides[-1] / scale for scale in scales)
    return _up_to(made, part.get('num_outs', 5))


def adapter_outputs(part: Part, strides: Strides) -> Strides:
    """The spatial adapter: strides of its own, whatever those of its inputs."""
    made = tuple(part.get('strides', FPN_STRIDES))
    return _up_to(made, part.get('num_outs', 5))


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
    'YOLOXPAFPN': NeckRule(DENSE_STRIDES, same, doubles=True, widens=True),
    'CSPNeXtPAFPN': NeckRule(DENSE_STRIDES, same, doubles=True, widens=True),
    'ChannelMapper': NeckRule(DENSE_STRIDES, extended),
    # The decoder behind it is made for as many maps.
    'HybridEncoder': NeckRule(DENSE_STRIDES, same, count=_configured),
    'SSH': NeckRule(DENSE_STRIDES, same, count=_scales),
    'SSDNeck': NeckRule(
        (8, 16), ssd_outputs, count=_configured, fixed=True, follow=_ssd_follow
    ),
    'DilatedEncoder': NeckRule((32,), deepest, **_ONE),
    'CTResNetNeck': NeckRule((32,), deconvolved, **_ONE),
    'SimpleFeaturePyramid': NeckRule((16,), vit_outputs, **_ONE),
    'SpatialAdapter': NeckRule((1, 16), adapter_outputs, count=_configured, image=True),
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


class Reader(NamedTuple):
    """The part of a detector that reads the levels of its backbone.

    Attributes:
        place: In ``model``.
        part: Its config.
        rule: How it takes levels.
    """

    place: Place
    part: Part
    rule: NeckRule


def reader_of(model: Part) -> Reader:
    """Find the part of a detector that reads the levels of the backbone.

    Args:
        model: ``model`` of a config.

    Returns:
        Its place, its config and its rule.

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
        return Reader(('neck', 0) if chained else ('neck',), necks[0], rule)
    for key, rule in HEAD_RULES.items():
        if model.get(key):
            return Reader((key,), model[key], rule)
    raise UserError(
        f'{type_name(model)} has no neck, and none of the parts '
        f'{", ".join(HEAD_RULES)} that would read a backbone'
    )


def output_strides(model: Part, strides: Strides) -> Strides:
    """Strides of the maps that the heads get.

    Args:
        model: ``model`` of a config, of which only the necks are read.
        strides: Of the levels of its backbone, shallow to deep.

    Raises:
        UserError: As :func:`rule_of`.
    """
    for neck in necks_of(model):
        strides = rule_of(neck).outputs(neck, strides)
    return tuple(int(s) if float(s).is_integer() else s for s in strides)
