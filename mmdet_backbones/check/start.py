"""Checkpoints of whole detectors: ``load_from``, ``resume``, ``model.init_cfg``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from copy import deepcopy
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from ..backbones.contract import Backbone
from ..detector_config.detector import DetectorConfig
from ..detector_config.tree import type_name
from ..detector_config.weights import Seen, Start, pretrained_of
from ..detector_config.whole_checkpoints import Newest, WorkFolder
from ..engine.resuming import refuse_older
from ..errors import CheckpointError, PretrainedWeightsError, UserError
from ..files import ABSENT, FILE, path_of, what_is
from ..weights.loading.loader import examine_checkpoint
from ..weights.loading.report import some
from ..weights.loading.surplus import between
from ..weights.loading.unchecked import Laid, lay_over, taken_by_mmengine
from ..weights.names.kinds import differ, kind_of, other_kind_by_file
from ..weights.reading.download import torch_path
from ..weights.reading.reader import Checkpoint, Saved
from ..weights.reading.sources import locate_checkpoint
from ..weights.reading.unwrap import unwrap
from .arguments import mend_init_cfgs
from .findings import Finding, errors_of, line
from .host_weights import fitting_prefix
from .weights import lines_to_load

# What mmengine's table of addresses and torchvision publish are backbones.
_BACKBONES = ('torchvision', 'modelzoo', 'open-mmlab', 'openmmlab', 'mmcls', 'timm')
# Schemes that mmengine knows and nothing here can look into.
_OPAQUE = ('s3', 'petrel', 'pavi')
_PARTS = ('backbone', 'neck', 'heads')


def check_start(
    detector: DetectorConfig, ask: bool = False, training: bool = True
) -> Iterator[Finding]:
    """Report checkpoints of detectors that are not there, or fill little of this one.

    Args:
        detector: The config.
        ask: As for :func:`~.weights.check_weights`.
        training: Whether what a checkpoint does not fill is going to be learned.
    """
    yield from _last(detector)
    for seen in detector.starts:
        wrong = [*_address(detector, seen, ask)]
        yield from wrong
        if wrong:
            continue
        if seen.saved is not None and seen.laid is not None:
            yield from _content(detector, seen.start, seen.saved, seen.laid, training)
        given = training and pretrained_of(detector.backbone)
        reaches = seen.laid is None or seen.laid.filled_below('backbone')
        if given and reaches and not seen.start.resumes:
            yield _replaced(detector, seen)


def require_loadable(config: Config) -> None:
    """Make sure that the checkpoint that a detector is tested with is one of it.

    Args:
        config: All of it, with ``load_from``.

    Raises:
        UserError: If the file is not there, lacks a tensor of the backbone, or has one
            of another shape: mmengine would test random values.
    """
    detector = DetectorConfig(deepcopy(config))
    if 'type' not in detector.backbone:
        return
    for _ in mend_init_cfgs(detector):
        pass  # of what a test does not read
    found = check_start(detector, training=False)
    findings = [finding for finding in found if finding.key == 'load_from']
    wrong = [finding.problem for finding in errors_of(findings)]
    if wrong:
        raise UserError('; '.join(wrong))
    for finding in findings:
        print_log(str(finding), 'current', logging.WARNING)


def _last(detector: DetectorConfig) -> Iterator[Finding]:
    """A training that shall go on, and what there is to go on with."""
    newest, folder = detector.newest, detector.config.get('work_dir')
    if newest is None or detector.config.get('load_from'):
        return
    if newest.found is None and WorkFolder.of(detector.config).address:
        return  # which nobody here can look into
    other = line('work_dir', f'{folder}_2')
    if newest.found is not None and newest.skipped:
        problem = f'a training goes on from {newest.found}, as {newest.reasons}'
        yield Finding('resume', 'resume', problem, (), 'warning')
    elif newest.skipped:
        problem = f"no checkpoint in '{folder}' can be resumed: {newest.reasons}"
        yield Finding('resume', 'resume', problem, (other,))
    elif newest.found is None:
        # A first start with --resume is what schedulers of clusters do.
        problem = (
            f"there is no checkpoint in '{folder}': training would start at the first "
            'iteration'
        )
        yield Finding('resume', 'resume', problem, (line('resume', False),), 'warning')


def _address(detector: DetectorConfig, seen: Seen, ask: bool) -> Iterator[Finding]:
    """What is wrong with a path or an address as such."""
    start = seen.start
    scheme, separator, _ = start.checkpoint.partition('://')
    if not separator and start.key != 'resume':
        yield from _path(seen)
    elif scheme in _BACKBONES:
        problem = f'{start.checkpoint} names weights of a backbone, and no detector'
        yield _finding(start, problem, _as_backbone(detector, start))
    elif separator and scheme not in (*_OPAQUE, 'http', 'https'):
        problem = (
            f"mmengine reads paths and http(s):// addresses, got '{start.checkpoint}'"
        )
        yield _finding(start, problem, _without(start))
    elif seen.problem and start.key != 'resume':
        yield _finding(start, seen.problem, _without(start))
    elif scheme in ('http', 'https') and seen.saved is None:
        yield from _remote(detector, start, ask)


def _path(seen: Seen) -> Iterator[Finding]:
    start = seen.start
    path = path_of(start.checkpoint)
    found = what_is(path)
    if found != ABSENT:
        problem = seen.problem
        if found != FILE and not problem:
            problem = f'{start.checkpoint} is {found}'
        if problem:
            yield _finding(start, problem, _without(start))
        return
    package, separator, within = start.checkpoint.partition('::')
    if separator:
        published = _published(package, within)
        problem = f'{start.checkpoint} names a config, and mmengine loads files'
        cure = (line(_key(start), published),) if published else _without(start)
        yield _finding(start, problem, cure)
        return
    folder = path.parent
    files = [p.name for p in folder.glob('*.pth')] if folder.is_dir() else []
    near = get_close_matches(path.name, files, n=1)
    problem = (
        f"there is no file '{start.checkpoint}' (paths are relative to the folder in "
        f'which training is started, now {Path.cwd()})'
    )
    cure = (line(_key(start), str(folder / near[0])),) if near else _without(start)
    yield _finding(start, problem, cure)


def _published(package: str, within: str) -> str | None:
    """Address of the weights of a config that a package ships; None without any."""
    if not package.isidentifier() or find_spec(package) is None:
        return None
    from mmengine.hub import get_config

    name = within if within.endswith('.py') else f'{within}.py'
    try:
        return str(get_config(f'{package}::{name}', pretrained=True).model_path)
    except Exception:  # whatever is wrong with its record of weights
        return None


def _remote(detector: DetectorConfig, start: Start, ask: bool) -> Iterator[Finding]:
    try:
        locate_checkpoint(start.checkpoint, ask=ask, place=torch_path)
    except CheckpointError as error:
        yield _finding(start, str(error), _without(start))
        return
    here = kind_of(detector.net.state_dict())
    there = other_kind_by_file(here, start.checkpoint)
    if there is not None:
        problem = (
            f'{start.checkpoint} is of a {there} by its name, the backbone is a {here}'
        )
        yield _finding(start, problem, _without(start))


def _content(
    detector: DetectorConfig, start: Start, saved: Saved, laid: Laid, training: bool
) -> Iterator[Finding]:
    """What a file on this machine fills of the detector."""
    heads_alone = not laid.filled_below('backbone') and laid.lost != [*laid.expected]
    if training and heads_alone and pretrained_of(detector.backbone):
        problem = f'{_counts(start, laid)}; the backbone keeps what init_cfg brings'
        yield _finding(start, problem, (), 'warning')
        return
    if _lost_of_backbone(laid):
        yield _too_little(detector, start, saved, laid)
        return
    names = taken_by_mmengine(saved.content)
    inside = [name for name in names if part_of_detector(name) == 'backbone']
    more = between(inside, laid.unexpected)
    if more:
        problem = (
            f'the backbone of {start.checkpoint} is another net: it has more than '
            f'{type_name(detector.backbone)} takes, {some(more)}'
        )
        yield _finding(start, problem, _without(start))
        return
    if start.resumes:
        yield from _training(detector, start)
    elif laid.lost:
        shapes = {e.name: (e.here[1:], e.there[1:]) for e in laid.mismatched}
        classes = all(n in shapes and shapes[n][0] == shapes[n][1] for n in laid.lost)
        why = (
            'a head of another number of classes starts anew'
            if classes
            else 'the rest starts from random values'
        )
        # What only the loss reads is not asked for in a test.
        tested = [name for name in laid.lost if '.loss_' not in name]
        severity = 'error' if tested and not training else 'warning'
        if severity == 'error' and not classes:
            why += ', and would be tested so: is it a checkpoint of this config?'
        problem = f'{_counts(start, laid)}; {why}: {some(laid.lost)}'
        yield _finding(start, problem, (), severity)


def _training(detector: DetectorConfig, start: Start) -> Iterator[Finding]:
    """A checkpoint that an interrupted training goes on with has to have all."""
    if start.key == 'resume':
        return  # it was chosen as one
    folder, newest = WorkFolder.of(detector.config), detector.newest or Newest()
    try:
        refuse_older(folder, newest, start.checkpoint, detector.shapes)
    except CheckpointError as error:
        yield _finding(start, str(error), (line('resume', False),))
    except UserError as error:
        yield _finding(start, str(error), (line('load_from', None),))


def _too_little(
    detector: DetectorConfig, start: Start, saved: Saved, laid: Laid
) -> Finding:
    """A file that leaves tensors of the backbone as they are."""
    problem = (
        f'{_counts(start, laid)}, without an error; not {some(_lost_of_backbone(laid))}'
    )
    try:
        tensors, wrapper = unwrap(saved.content, start.checkpoint)
    except CheckpointError as error:
        return _finding(start, str(error), _without(start))
    if not saved.by_torch:
        problem += '. mmengine reads files of torch.save, and this is none'
    elif wrapper not in (None, 'state_dict'):
        problem += (
            '. mmengine takes what stands under state_dict, or else on top; in the '
            f'file the weights stand under {wrapper}'
        )
    here, there = kind_of(detector.net.state_dict()), kind_of(tensors)
    prefix, cause = _for_backbone(detector, tensors, saved, start.checkpoint)
    if prefix is not None:
        problem += '. It has all that the backbone alone needs'
        return _finding(start, problem, _as_backbone(detector, start, prefix))
    if differ(here, there):
        cause = f'The file looks like a {there}, the backbone is a {here}'
    return _finding(start, f'{problem}. {cause}'.removesuffix('. '), _without(start))


def _for_backbone(
    detector: DetectorConfig, tensors: dict[str, Tensor], saved: Saved, source: str
) -> tuple[str | None, str]:
    """Under which prefix a file has all of the backbone; or else None, and why."""
    net = detector.net
    if isinstance(net, Backbone):
        try:
            examine_checkpoint(net, Checkpoint(tensors, source))
        except (PretrainedWeightsError, CheckpointError) as error:
            causes = [t for t in str(error).splitlines() if t.startswith('Cause: ')]
            return None, next(iter(causes), '')
        return '', ''
    read = taken_by_mmengine(saved.content) if saved.by_torch else {}
    shapes = {name: tuple(value.shape) for name, value in read.items()}
    prefix = fitting_prefix(net, shapes)
    if prefix is None:
        return None, ''
    inside = {
        n.removeprefix(prefix): t for n, t in read.items() if n.startswith(prefix)
    }
    return (None if lay_over(net, inside).lost else prefix), ''


def _replaced(detector: DetectorConfig, seen: Seen) -> Finding:
    weights = pretrained_of(detector.backbone)
    assert weights is not None
    key = f'{detector.key}.backbone.{weights.key}'
    problem = (
        f'{_key(seen.start)} is loaded after it and replaces every tensor that '
        f'{seen.start.checkpoint} has: what {weights.checkpoint} brings is thrown away'
    )
    empty = False if detector.backbone.get('pretrained') is True else None
    return Finding('weights', key, problem, (line(key, empty),), 'warning')


def part_of_detector(name: str) -> str:
    """Tell whether a tensor of a detector is of the backbone, the neck or the heads."""
    # Behind `student.` or `teacher.` of a wrapper.
    first = name.split('.')[:2]
    return next((part for part in _PARTS[:2] if part in first), 'heads')


def _lost_of_backbone(laid: Laid) -> list[str]:
    return [name for name in laid.lost if part_of_detector(name) == 'backbone']


def _counts(start: Start, laid: Laid) -> str:
    """How many tensors of each part a file fills."""
    lost = set(laid.lost)
    counts = []
    for part in _PARTS:
        names = [name for name in laid.expected if part_of_detector(name) == part]
        if names:
            filled = sum(name not in lost for name in names)
            counts.append(f'{filled} of {len(names)} tensors of the {part}')
    return f'{", ".join(counts)} would be loaded from {start.checkpoint}'


def _finding(
    start: Start, problem: str, cure: tuple[str, ...], severity: str = 'error'
) -> Finding:
    rule = 'resume' if start.resumes else 'weights'
    return Finding(rule, _key(start), problem, cure, severity)


def _key(start: Start) -> str:
    below = '.checkpoint' if start.key.endswith('init_cfg') else ''
    return f'{start.key}{below}'


def _without(start: Start) -> tuple[str, ...]:
    """Lines that leave a checkpoint out."""
    lines = [] if start.key == 'resume' else [line(start.key, None)]
    return (*lines, *([line('resume', False)] if start.resumes else []))


def _as_backbone(
    detector: DetectorConfig, start: Start, prefix: str | None = None
) -> tuple[str, ...]:
    """Lines that load a checkpoint into the backbone instead."""
    return (*_without(start), *lines_to_load(detector, start.checkpoint, prefix))
