"""Which levels of a new backbone a detector gets, and through which neck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..detector_config.detector import DetectorConfig
from ..detector_config.heads import Edits
from ..detector_config.neck_rules import Strides, necks_of, output_strides, rule_of
from ..detector_config.tree import plain, type_name
from ..errors import UserError
from ..levels import Level, describe_levels
from ..necks.simple_feature_pyramid import pyramid_neck
from ..necks.spatial_adapter import adapter_neck
from ..shapes.build import build_weightless

# Necks for the one map of a plain ViT by the name that --neck gives them: what
# configures them, and a sentence for whoever reads the new config.
PYRAMIDS: dict[str, tuple[Callable[..., dict[str, Any]], str]] = {
    'sfp': (
        pyramid_neck,
        'Neck (--neck sfp): the one map of stride {stride} becomes maps of the strides '
        '{made} in the simple feature pyramid of ViTDet (arXiv 2203.16527).',
    ),
    'adapter': (
        adapter_neck,
        'Neck (--neck adapter): the one map of stride {stride} and a convolutional '
        'branch on the image become maps of the strides {made} in a spatial adapter '
        '(arXiv 2205.08534, 2509.20787).',
    ),
}


@dataclass(frozen=True)
class LevelPlan:
    """How the levels of a backbone reach the heads.

    Attributes:
        strides: Of the levels that the backbone returns, shallow to deep.
        channels: Of the same levels.
        edits: What changes below ``model`` in necks and readers, by place.
        image: Whether the backbone hands on the image before the levels.
        outputs: Strides of the maps that the heads get.
        neck_inputs: Strides of the maps that the base's own neck gets, or those that
            the heads get where the pyramid from one map stands in for it.
        notes: Sentences for whoever reads the new config.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    edits: Edits
    outputs: Strides
    neck_inputs: Strides
    notes: list[str] = field(default_factory=list)
    image: bool = False


def plan_levels(
    base: DetectorConfig,
    name: str,
    offered: Sequence[Level],
    requested: Sequence[int] | None,
    neck: str | None = None,
) -> LevelPlan:
    """Choose levels and fill the neck.

    Args:
        base: The detector.
        name: Of the backbone, for messages.
        offered: All of its levels.
        requested: Strides that the user wants, or None for those of the base.
        neck: One of :data:`PYRAMIDS`, for a backbone with one map; None for the first.

    Returns:
        The plan.

    Raises:
        UserError: A ``ValueError``, if the levels do not suffice; all are listed.
    """
    by_stride = {level.stride: level for level in offered}
    if neck is not None:
        _check_neck(base, name, offered, neck)
    if requested is not None:
        _check_requested(base, name, offered, requested)
        return _direct(base, by_stride, tuple(requested))
    # What the base's own levels would be without those that its neck leaves out.
    _, part, rule = base.reader
    wanted = base.strides[-1:] if rule.single else base.strides
    used = wanted[rule.first_used(part) :]
    for strides in (wanted, used):
        if all(stride in by_stride for stride in strides):
            return _direct(base, by_stride, strides)
    if len(by_stride) == 1:
        return _through_pyramid(base, offered[-1], used, neck or 'sfp')
    return _nearest(base, name, offered, used)


def _check_neck(
    base: DetectorConfig, name: str, offered: Sequence[Level], neck: str
) -> None:
    """Refuse a pyramid where there is one already, or none is wanted."""
    if len({level.stride for level in offered}) > 1:
        raise UserError(
            f'--neck {neck} makes a pyramid of the one map of a plain ViT, {name} has '
            f'one of its own: {describe_levels(offered)}. Leave out --neck'
        )
    place, part, rule = base.reader
    one = rule.count(part) == 1 or len(base.strides[rule.first_used(part) :]) == 1
    if one or place[0] != 'neck':
        raise UserError(
            f'--neck {neck}: {_reader(base)} reads one map, and {name} has one: leave '
            'out --neck'
        )


def _check_requested(
    base: DetectorConfig, name: str, offered: Sequence[Level], requested: Sequence[int]
) -> None:
    _, part, rule = base.reader
    there = {level.stride for level in offered}
    problems = []
    missing = [str(stride) for stride in requested if stride not in there]
    if missing:
        problems.append(
            f'{name} has no level of stride {", ".join(missing)}: it has '
            f'{describe_levels(offered)}. Write some of --strides '
            f'{" ".join(str(stride) for stride in sorted(there))}'
        )
    if list(requested) != sorted(set(requested)):
        problems.append('--strides names each stride once, shallow to deep')
    count, start = rule.count(part), rule.first_used(part)
    if count is not None and len(requested) != count - start:
        problems.append(
            f'{_reader(base)} takes {count - start} levels, --strides names '
            f'{len(requested)}'
        )
    needed = base.strides[start:]
    if rule.fixed and tuple(requested) != needed:
        problems.append(
            f'the heads behind {_reader(base)} are made for the strides {needed}'
        )
    if problems:
        raise UserError('; '.join(problems))


def _direct(
    base: DetectorConfig, by_stride: dict[int, Level], strides: tuple[int, ...]
) -> LevelPlan:
    """Levels of these strides straight into the part that reads them."""
    levels = [by_stride[stride] for stride in strides]
    channels = tuple(level.channels for level in levels)
    place, part, rule = base.reader
    notes: list[str] = []
    if place == ('rpn_head',):
        edits, neck = _without_neck(base, channels[-1])
        if neck:
            notes.append(
                f'A 1x1 convolution brings the {channels[-1]} channels to the '
                f'{base.levels[-1].channels} that roi_head.shared_head is made for.'
            )
        return LevelPlan(strides, channels, edits, strides, strides, notes)
    settings = rule.settings(part, channels)
    if rule.first_used(part) and strides != base.strides:
        settings['start_level'] = 0
    edits = {(*place, key): value for key, value in settings.items()}
    edits |= _behind(base, settings)
    first, *others = necks_of(base.model) or [{}]
    fed = [{**first, **settings}, *others] if first else []
    outputs = output_strides({'neck': fed}, strides)
    return LevelPlan(strides, channels, edits, outputs, strides, notes)


def _behind(base: DetectorConfig, settings: dict[str, Any]) -> Edits:
    """Channels of the head where those of the neck's outputs follow its inputs."""
    head = base.model.get('bbox_head') or {}
    if 'out_channels' in settings and 'in_channels' in head:
        return {('bbox_head', 'in_channels'): settings['out_channels']}
    return {}


def _without_neck(base: DetectorConfig, channels: int) -> tuple[Edits, bool]:
    """Fill the heads of Faster R-CNN C4 or DC5, or project for a shared head."""
    old = base.levels[-1].channels
    if channels == old:
        return {}, False
    roi_head = base.model.get('roi_head') or {}
    if roi_head.get('shared_head'):
        neck = dict(
            type='mmdet_backbones.SingleLevel', in_channels=[channels], out_channels=old
        )
        return {('neck',): neck}, True
    edits: Edits = {}
    for place, key in (
        (('rpn_head',), 'in_channels'),
        (('roi_head', 'bbox_roi_extractor'), 'out_channels'),
        (('roi_head', 'mask_roi_extractor'), 'out_channels'),
        (('roi_head', 'bbox_head'), 'in_channels'),
        (('roi_head', 'mask_head'), 'in_channels'),
    ):
        part: Any = base.model
        for step in place:
            part = (part or {}).get(step)
        if part and part.get(key) == old:
            edits[(*place, key)] = channels
    return edits, False


def _through_pyramid(
    base: DetectorConfig, level: Level, used: tuple[int, ...], neck: str
) -> LevelPlan:
    """The map of a plain ViT, made into maps of the strides that are wanted."""
    place, part, rule = base.reader
    single = rule.count(part) == 1 or place == ('rpn_head',) or len(used) == 1
    if single and round(level.stride / used[-1]) == 1:
        return _direct(base, {level.stride: level}, (level.stride,))
    has_neck = place[0] == 'neck'
    replaces = rule.pyramid and has_neck
    # As many maps as the neck would give, or as it takes.
    aims = rule.outputs({**part, 'start_level': 0}, used) if replaces else used
    own = part.get('out_channels') if replaces else None
    configure, said = PYRAMIDS[neck]
    pyramid = configure(level, aims, own if isinstance(own, int) else None)
    made: Strides = tuple(build_weightless(pyramid).out_strides)  # type: ignore[arg-type]
    note = said.format(stride=level.stride, made=_listed(made))
    found = LevelPlan(
        strides=(level.stride,),
        channels=(level.channels,),
        edits={},
        outputs=made,
        neck_inputs=made,
        notes=[note],
        image=rule_of(pyramid).image,
    )
    necks = [plain(neck) for neck in necks_of(base.model)]
    if replaces:
        heads = output_strides({'neck': necks[1:]}, made)
        edits: Edits = {place: dict(_delete_=True, **pyramid)}
        return replace(found, edits=edits, outputs=heads)
    if not has_neck:
        raise UserError(
            f'{place[0]} reads the levels of the backbone without a neck, and there is '
            f'one level only, of stride {level.stride}'
        )
    settings = rule.settings(part, [pyramid['out_channels']] * len(made))
    chain = [pyramid, {**necks[0], **settings}, *necks[1:]]
    outputs = output_strides({'neck': chain[1:]}, made)
    edits = {('neck',): chain, **_behind(base, settings)}
    return replace(found, edits=edits, outputs=outputs)


def _nearest(
    base: DetectorConfig, name: str, offered: Sequence[Level], used: tuple[int, ...]
) -> LevelPlan:
    """The levels that are there, for a part that does without some."""
    _, part, rule = base.reader
    by_stride = {level.stride: level for level in offered}
    there = tuple(stride for stride in used if stride in by_stride)
    count = rule.count(part)
    if count == 1 and not rule.fixed:
        there = (min(by_stride, key=lambda stride: abs(stride - used[-1])),)
    elif count is not None or rule.fixed or not there:
        raise UserError(
            f'{_reader(base)} wants levels of the strides {_listed(used)}, {name} has '
            f'{describe_levels(offered)}: write --strides with strides that it has, or '
            'take another backbone or detector'
        )
    plan = _direct(base, by_stride, there)
    plan.notes.append(
        f'{name} has no level of stride '
        f'{_listed(s for s in used if s not in by_stride)}: {_reader(base)} gets '
        f'{_listed(there)} instead of {_listed(used)}, and the heads get '
        f'{_listed(plan.outputs)}.'
    )
    return plan


def _listed(values: Any) -> str:
    return ', '.join(map(str, values))


def _reader(base: DetectorConfig) -> str:
    return type_name(base.reader.part) or str(base.reader.place[0])
