"""Levels against neck and heads: number, channels, order, strides, memory layout."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..arguments import arguments_of
from ..backbones.contract import Backbone
from ..detector_config.detector import DetectorConfig, combinations
from ..detector_config.heads import head_strides
from ..detector_config.neck_rules import (
    FPN_STRIDES,
    Strides,
    necks_of,
    output_strides,
)
from ..detector_config.tree import dotted, plain, type_name
from ..errors import UserError
from ..levels import Level, describe_levels, measure
from ..necks.simple_feature_pyramid import pyramid_neck
from .findings import Finding, cure_of, instead, line, our_class
from .weights import without_idle


def unusable(
    detector: DetectorConfig, what: str, error: UserError
) -> Iterator[Finding]:
    """Report what keeps the rules from being applied.

    Args:
        detector: The config.
        what: Attribute of it that cannot be had.
        error: Why.
    """
    key = f'{detector.key}.backbone'
    if what == 'net':
        yield Finding('backbone', key, str(error), cure_of(detector, error))
    elif what == 'outputs':
        lines, remove = our_class(detector)
        yield Finding('image size', key, str(error), lines, remove=remove)
    elif what == 'levels' and _are_channels_last(detector):
        height, width = detector.size
        shapes = ', '.join(str(tuple(output.shape)) for output in detector.outputs)
        given = f'an image of {height} x {width} gives {shapes}'
        lines, remove = our_class(detector)
        yield Finding(
            'channels last',
            key,
            f'the maps have shape (N, H, W, C), necks take (N, C, H, W): {given}',
            lines,
            remove=remove,
        )
    elif what == 'levels':
        yield Finding('levels', key, str(error), cure_of(detector, error))
    elif detector.model.get('neck') or detector.model.get('rpn_head'):
        yield Finding('unknown', f'{detector.key}.neck', str(error), (), 'warning')


def _are_channels_last(detector: DetectorConfig) -> bool:
    return bool(detector.outputs) and all(
        output.dim() == 4 and measure(0, output.permute(0, 3, 1, 2), detector.size)
        for output in detector.outputs
    )


def check_levels(detector: DetectorConfig) -> Iterator[Finding]:
    """Report levels that the neck or the heads are not made for."""
    image = _image(detector)
    if image is not None:
        yield image
        return
    equal = _equal(detector)
    if equal and _blind(detector):
        yield _pyramid_instead(detector, equal)
        equal = ''
    wrong = [
        *([equal] if equal else _order(detector)),
        *_number(detector),
        *_fit(detector, detector.levels),
    ]
    better = _better(detector) if wrong else None
    if better is not None:
        yield _by_levels(detector, wrong, better)
        return
    if wrong:
        key = f'{detector.key}.backbone.{_argument(detector)}'
        yield Finding('levels', key, '; '.join(wrong), _by_heads(detector))
    yield from _channels(detector)


def _image(detector: DetectorConfig) -> Finding | None:
    """An image that the neck wants and does not get, or gets and does not want."""
    place, reader, rule = detector.reader
    if rule.image == any(level.is_image for level in detector.levels):
        return None
    name, key = type_name(reader), f'{detector.key}.backbone.out_image'
    if not rule.image:
        problem = f'out_image=True puts the image before the levels, {name} wants none'
        return Finding('levels', key, problem, (line(key, False),))
    problem = f'{name} looks at the image, and the backbone gives levels only'
    if 'out_image' in arguments_of(type(detector.net))[0]:
        return Finding('levels', key, problem, (line(key, True),))
    key = dotted(detector.key, *place)
    aims = rule.outputs(reader, detector.strides)
    pyramid = pyramid_neck(detector.levels[-1], aims, reader.get('out_channels'))
    problem += f'; {type_name(detector.backbone)} cannot hand it on'
    return Finding('levels', key, problem, (instead(detector, key, pyramid),))


def _argument(detector: DetectorConfig) -> str:
    by_stride = detector.backbone.get('out_strides') is not None
    return 'out_strides' if by_stride else 'out_indices'


def _equal(detector: DetectorConfig) -> str:
    """Strides that several levels share; empty if none, or if one level is read."""
    strides = detector.strides
    same = sorted({s for s in strides if strides.count(s) > 1})
    rule = detector.reader.rule
    if not same or rule.single or rule.image:
        return ''
    most = max(strides.count(stride) for stride in same)
    times = 'comes twice: the levels are'
    if most > 2:
        times = f'comes {most} times: the levels are'
    levels = describe_levels(detector.levels)
    return f'stride {", ".join(map(str, same))} {times} {levels}'


def _blind(detector: DetectorConfig) -> bool:
    """Whether nothing behind the levels is told their strides, as in DINO."""
    doubles = detector.reader.rule.doubles or detector.reader.rule.fixed
    return not doubles and not head_strides(detector.model)


def _pyramid_instead(detector: DetectorConfig, equal: str) -> Finding:
    """Levels of one stride train where nothing is told strides, and see one scale."""
    key = f'{detector.key}.backbone.{_argument(detector)}'
    problem = (
        f'{equal}. It trains, on one scale: small and large objects gain from maps '
    )
    problem += 'of several strides'
    better = _better(detector)
    if better is not None:
        return replace(_by_levels(detector, [problem], better), severity='warning')
    return Finding('levels', key, problem, _pyramid(detector), 'warning')


def _pyramid(detector: DetectorConfig) -> tuple[str, ...]:
    """Lines that make a pyramid of the last of several equal maps."""
    place, reader, rule = detector.reader
    last = detector.levels[-1]
    necks = necks_of(detector.model)
    if place[:1] != ('neck',) or len(set(detector.strides)) > 1:
        return ()
    outs = reader.get('num_outs')
    # The neck makes its last map by itself, as of the levels of other backbones.
    count = max(outs - 1, 1) if isinstance(outs, int) else len(detector.levels)
    pyramid = pyramid_neck(last, FPN_STRIDES[-count:])
    settings = rule.settings(reader, [pyramid['out_channels']] * pyramid['num_outs'])
    field = last.stride if _argument(detector) == 'out_strides' else last.index
    parts = [pyramid, {**plain(reader), **settings}, *map(plain, necks[1:])]
    return (
        line(f'{detector.key}.backbone.{_argument(detector)}', (field,)),
        line(f'{detector.key}.neck', parts),
    )


def _order(detector: DetectorConfig) -> Iterator[str]:
    """What is wrong with the order of the levels themselves."""
    strides = detector.strides
    if any(a > b for a, b in itertools.pairwise(strides)):
        yield f'the levels are not shallow to deep: {describe_levels(detector.levels)}'
    asked = detector.backbone.get('out_indices')
    # Ours say themselves what is out of order, and count from the end too.
    ours = isinstance(detector.net, Backbone)
    if not ours and isinstance(asked, Sequence) and list(asked) != sorted(asked):
        yield (
            f'out_indices={tuple(asked)} does not change the order of the levels; they '
            'come shallow to deep'
        )


def _number(detector: DetectorConfig) -> Iterator[str]:
    _, reader, rule = detector.reader
    expected, levels = rule.count(reader), detector.levels
    if expected is not None and not rule.single and len(levels) != expected:
        yield f'{type_name(reader)} takes {expected} levels, the backbone gives ' + (
            f'{len(levels)}: {describe_levels(levels)}'
        )


def _fit(detector: DetectorConfig, levels: Sequence[Level]) -> list[str]:
    """Strides of the heads that their maps do not have."""
    outputs = _outputs(detector, levels)
    if outputs is None:
        return []
    # SSD rounds the strides of the maps that its neck adds.
    count = len(levels) if detector.reader.rule.fixed else None
    return [
        f'{detector.key}.{key}={list(given)} does not fit the strides '
        f'{list(outputs)} of its maps'
        for key, given in head_strides(detector.model).items()
        if not _own_maps(detector, key, given)
        and not _inside(given[:count], outputs[:count])
    ]


def _own_maps(detector: DetectorConfig, key: str, strides: Sequence[float]) -> bool:
    """Whether a head reads other maps than the neck's, or counts in another way."""
    head = detector.model.get(key.partition('.')[0]) or {}
    # SOLO halves the first map and enlarges the last; YOLACT divides its image size
    # by the sizes of the maps.
    return 'SOLO' in type_name(head) or any(s != int(s) for s in strides)


def _outputs(detector: DetectorConfig, levels: Sequence[Level]) -> Strides | None:
    try:
        return output_strides(detector.model, _strides(levels))
    except (UserError, IndexError, KeyError):
        return None


def _strides(levels: Sequence[Level]) -> tuple[int, ...]:
    return tuple(level.stride for level in levels)


def _inside(given: Sequence[float], outputs: Sequence[float]) -> bool:
    """Whether strides are those of neighbouring maps, in either order."""
    for values in (list(given), list(given)[::-1]):
        for start in range(len(outputs) - len(values) + 1):
            if list(outputs[start : start + len(values)]) == values:
                return True
    return False


def _better(detector: DetectorConfig) -> tuple[Level, ...] | None:
    """Other levels of the same backbone that neck and heads are made for."""
    _, reader, rule = detector.reader
    own = detector.strides
    if own == rule.strides:
        return None  # then it is the heads that are wrong
    # Without heads that name strides only the usual ones are known to be right.
    told = bool(head_strides(detector.model))

    def likeness(chosen: tuple[Level, ...]) -> tuple[bool, int]:
        """The usual strides first, then those that are the most like the own ones."""
        strides = _strides(chosen)
        return strides == rule.strides, sum(stride in own for stride in strides)

    fitting = [
        chosen
        for chosen in combinations(detector.offered, rule.count(reader) or len(own))
        if _strides(chosen) != own
        and (told or likeness(chosen)[0])
        and _outputs(detector, chosen) is not None
        and not _fit(detector, chosen)
    ]
    return max(fitting, key=likeness, default=None)


def _by_levels(
    detector: DetectorConfig, wrong: Sequence[str], better: tuple[Level, ...]
) -> Finding:
    place, reader, rule = detector.reader
    argument = _argument(detector)
    field = 'stride' if argument == 'out_strides' else 'index'
    value = tuple(getattr(level, field) for level in better)
    net = detector.build({**detector.backbone, argument: value})
    # Of the levels that share a stride ours may take another one than was found.
    levels = net.levels if isinstance(net, Backbone) else better
    settings = rule.settings(reader, [level.channels for level in levels])
    key = f'{detector.key}.backbone.{argument}'
    cure = [line(key, value)]
    cure += [
        line(dotted(detector.key, *place, name), new)
        for name, new in settings.items()
        if plain(reader.get(name)) != new
    ]
    # A class of the host may keep the parts that only the deeper levels needed.
    lines, remove = without_idle(detector, net)
    return Finding('levels', key, '; '.join(wrong), (*cure, *lines), remove=remove)


def _by_heads(detector: DetectorConfig) -> tuple[str, ...]:
    """Follow the strides of the backbone in the heads."""
    outputs = _outputs(detector, detector.levels)
    if outputs is None:
        return ()
    lines = []
    for key, given in head_strides(detector.model).items():
        if not _inside(given, outputs) and len(given) == len(outputs):
            deep_first = given[0] > given[-1]
            new = list(outputs)[::-1] if deep_first else list(outputs)
            lines.append(line(f'{detector.key}.{key}', new))
    return tuple(lines)


def _channels(detector: DetectorConfig) -> Iterator[Finding]:
    place, reader, rule = detector.reader
    given = rule.channels(reader)
    found = [level.channels for level in detector.levels]
    expected = found[-1:] if rule.single else found
    if given is None or given == expected:
        return
    settings = rule.settings(reader, found)
    named = reader['in_channels']
    order = 'deepest first' if rule.deep_first else 'shallow to deep'
    problem = (
        f'{type_name(reader)} is configured for {_text(named)} channels, the backbone '
        f'gives {_text(settings["in_channels"])}'
    )
    if given[::-1] == expected and len(given) > 1:
        problem += f': the numbers are right and belong {order}'
    elif rule.deep_first:
        problem += f'; {type_name(reader)} names them {order}'
    key = dotted(detector.key, *place)
    yield Finding(
        'channels',
        f'{key}.in_channels',
        problem,
        tuple(line(f'{key}.{name}', value) for name, value in settings.items()),
    )


def _text(channels: Any) -> str:
    if isinstance(channels, int):
        return str(channels)
    return ', '.join(map(str, channels))
