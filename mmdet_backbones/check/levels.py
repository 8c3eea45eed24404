"""Levels against neck and heads: number, channels, order, strides, memory layout."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from ..detector_config.detector import Subject, combinations
from ..detector_config.heads import head_strides
from ..detector_config.neck_rules import (
    NeckRule,
    Part,
    Strides,
    output_strides,
    type_name,
)
from ..detector_config.tree import plain
from ..errors import UserError
from ..levels import Level, describe_levels, measure
from .findings import Finding, line


def check_backbone(subject: Subject) -> Iterator[Finding]:
    """Report a backbone that cannot be built or does not run."""
    key = f'{subject.place}.backbone'
    if isinstance(subject.net, UserError):
        yield Finding('backbone', key, str(subject.net))
    elif isinstance(subject.outputs, UserError):
        yield Finding('image size', key, str(subject.outputs), _free_size(subject))
    elif subject.levels is None:
        yield from _no_maps(subject)


def _free_size(subject: Subject) -> tuple[str, ...]:
    ours = subject.twin_type
    return (line(f'{subject.place}.backbone.type', ours),) if ours else ()


def _no_maps(subject: Subject) -> Iterator[Finding]:
    assert not isinstance(subject.outputs, UserError)
    shapes = [tuple(output.shape) for output in subject.outputs]
    turned = [
        measure(i, output.permute(0, 3, 1, 2), subject.size)
        if output.dim() == 4
        else None
        for i, output in enumerate(subject.outputs)
    ]
    key = f'{subject.place}.backbone'
    height, width = subject.size
    given = f'an image of {height} x {width} gives {", ".join(map(str, shapes))}'
    if None not in turned:
        yield Finding(
            'channels last',
            key,
            f'the maps have shape (N, H, W, C), necks take (N, C, H, W): {given}',
            _free_size(subject),
        )
    else:
        yield Finding(
            'levels',
            key,
            'not every output is a map of shape (N, C, H, W) with the size of the '
            f'image over a whole stride: {given}',
        )


def check_levels(subject: Subject) -> Iterator[Finding]:
    """Report levels that the neck or the heads are not made for."""
    if subject.levels is None:
        return
    if isinstance(subject.reader, UserError):
        if subject.model.get('neck') or subject.model.get('rpn_head'):
            key = f'{subject.place}.neck'
            yield Finding('unknown', key, str(subject.reader), severity='warning')
        return
    place, reader, rule = subject.reader
    wrong = [
        *_order(subject),
        *_number(subject.levels, reader, rule),
        *_fit(subject, subject.levels),
    ]
    better = _better(subject) if wrong else None
    if wrong and better is not None:
        yield from _by_levels(subject, wrong, better)
    elif wrong:
        key = f'{subject.place}.backbone.{_argument(subject)}'
        yield Finding('levels', key, '; '.join(wrong), _by_heads(subject))
    if better is None:
        yield from _channels(subject, subject.levels, place, reader, rule)


def _argument(subject: Subject) -> str:
    return 'out_strides' if 'out_strides' in subject.backbone else 'out_indices'


def _order(subject: Subject) -> Iterator[str]:
    """What is wrong with the order of the levels themselves."""
    assert subject.levels is not None
    strides = [level.stride for level in subject.levels]
    same = sorted({s for s in strides if strides.count(s) > 1})
    if same and not _one_map(subject):
        yield (
            f'stride {", ".join(map(str, same))} comes twice: the levels are '
            f'{describe_levels(subject.levels)}'
        )
    elif any(a > b for a, b in itertools.pairwise(strides)):
        yield f'the levels are not shallow to deep: {describe_levels(subject.levels)}'
    asked = subject.backbone.get('out_indices')
    if isinstance(asked, Sequence) and list(asked) != sorted(asked):
        yield (
            f'out_indices={tuple(asked)} does not change the order of the levels; they '
            'come shallow to deep'
        )


def _one_map(subject: Subject) -> bool:
    assert not isinstance(subject.reader, UserError)
    return subject.reader[2].single


def _number(levels: Sequence[Level], reader: Part, rule: NeckRule) -> Iterator[str]:
    expected = rule.count(reader)
    if expected is not None and not rule.single and len(levels) != expected:
        yield f'{type_name(reader)} takes {expected} levels, the backbone gives ' + (
            f'{len(levels)}: {describe_levels(levels)}'
        )


def _fit(subject: Subject, levels: Sequence[Level]) -> list[str]:
    """Strides of the heads that their maps do not have."""
    outputs = _outputs(subject, levels)
    if outputs is None:
        return []
    assert not isinstance(subject.reader, UserError)
    # SSD rounds the strides of the maps that its neck adds.
    count = len(levels) if subject.reader[2].fixed else None
    return [
        f'{subject.place}.{key}={list(given)} does not fit the strides '
        f'{list(outputs)} of its maps'
        for key, given in head_strides(subject.model).items()
        if not _own_maps(subject, key, given)
        and not _inside(given[:count], outputs[:count])
    ]


def _own_maps(subject: Subject, key: str, strides: Sequence[float]) -> bool:
    """Whether a head reads other maps than the neck's, or counts in another way."""
    head = subject.model.get(key.partition('.')[0]) or {}
    # SOLO halves the first map and enlarges the last; YOLACT divides its image size
    # by the sizes of the maps.
    return 'SOLO' in type_name(head) or any(s != int(s) for s in strides)


def _outputs(subject: Subject, levels: Sequence[Level]) -> Strides | None:
    try:
        return output_strides(subject.model, [level.stride for level in levels])
    except (UserError, IndexError, KeyError):
        return None


def _inside(given: Sequence[float], outputs: Sequence[float]) -> bool:
    """Whether strides are those of neighbouring maps, in either order."""
    for values in (list(given), list(given)[::-1]):
        for start in range(len(outputs) - len(values) + 1):
            if list(outputs[start : start + len(values)]) == values:
                return True
    return False


def _better(subject: Subject) -> tuple[Level, ...] | None:
    """Other levels of the same backbone that neck and heads are made for."""
    assert not isinstance(subject.reader, UserError)
    assert subject.levels is not None
    _, reader, rule = subject.reader
    strides = tuple(level.stride for level in subject.levels)
    if strides == rule.strides:
        return None  # then it is the heads that are wrong
    count = rule.count(reader) or len(subject.levels)
    heads = head_strides(subject.model)
    fitting = []
    for chosen in combinations(subject.offered, count):
        fits = _outputs(subject, chosen) is not None and not _fit(subject, chosen)
        theirs = tuple(level.stride for level in chosen)
        if fits and theirs != strides and (heads or theirs == rule.strides):
            fitting.append(chosen)
    # The usual strides first, then those that are the most like what was asked for.
    return max(
        fitting,
        key=lambda chosen: (
            tuple(level.stride for level in chosen) == rule.strides,
            sum(level.stride in strides for level in chosen),
        ),
        default=None,
    )


def _by_levels(
    subject: Subject, wrong: Sequence[str], better: tuple[Level, ...]
) -> Iterator[Finding]:
    assert not isinstance(subject.reader, UserError)
    place, reader, rule = subject.reader
    argument = _argument(subject)
    field = 'stride' if argument == 'out_strides' else 'index'
    value = tuple(getattr(level, field) for level in better)
    backbone = f'{subject.place}.backbone'
    cure = [line(f'{backbone}.{argument}', value)]
    settings = rule.settings(reader, [level.channels for level in better])
    dotted = '.'.join(map(str, (subject.place, *place)))
    cure += [
        line(f'{dotted}.{key}', new)
        for key, new in settings.items()
        if plain(reader.get(key)) != new
    ]
    yield Finding('levels', f'{backbone}.{argument}', '; '.join(wrong), tuple(cure))


def _by_heads(subject: Subject) -> tuple[str, ...]:
    """Follow the strides of the backbone in the heads."""
    assert subject.levels is not None
    outputs = _outputs(subject, subject.levels)
    if outputs is None:
        return ()
    lines = []
    for key, given in head_strides(subject.model).items():
        if not _inside(given, outputs) and len(given) == len(outputs):
            deep_first = given[0] > given[-1]
            new = list(outputs)[::-1] if deep_first else list(outputs)
            lines.append(line(f'{subject.place}.{key}', new))
    return tuple(lines)


def _channels(
    subject: Subject,
    levels: Sequence[Level],
    place: tuple[str | int, ...],
    reader: Part,
    rule: NeckRule,
) -> Iterator[Finding]:
    given = rule.channels(reader)
    if given is None:
        return
    found = [level.channels for level in levels]
    expected = found[-1:] if rule.single else found
    if given == expected:
        return
    settings = rule.settings(reader, found)
    dotted = '.'.join(map(str, (subject.place, *place)))
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
    yield Finding(
        'channels',
        f'{dotted}.in_channels',
        problem,
        tuple(line(f'{dotted}.{key}', value) for key, value in settings.items()),
    )


def _text(channels: Any) -> str:
    if isinstance(channels, int):
        return str(channels)
    return ', '.join(map(str, channels))
