"""The sections of a config beside its model: names, arguments, and validation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from mmengine import registry
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import Runner

from ..arguments import arguments_of
from ..detector_config.detector import DetectorConfig
from ..detector_config.tree import Place, dotted, plain, type_name, walk
from ..errors import explain
from .arguments import refused
from .findings import Finding, line

# What mmengine, mmdet and this package read of a config beside the Runner's arguments.
_READ = (
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'skip_broken_images',
    'sync_bn',
)
# Names of mmdet 2, and what says it now.
_OLD = {
    'checkpoint_config': 'default_hooks.checkpoint',
    'data': 'train_dataloader, val_dataloader and test_dataloader',
    'evaluation': 'val_evaluator and train_cfg.val_interval',
    'fp16': "optim_wrapper.type = 'AmpOptimWrapper'",
    'log_config': 'default_hooks.logger and visualizer',
    'lr_config': 'param_scheduler',
    'optimizer': 'optim_wrapper.optimizer',
    'optimizer_config': 'optim_wrapper.clip_grad',
    'resume_from': 'load_from with resume = True',
    'runner': 'train_cfg',
    'total_epochs': 'train_cfg.max_epochs',
}
_ALIKE = 0.8
_PARTS = ('dataloader', 'cfg', 'evaluator')
_LOOPS = {'val': 'ValLoop', 'test': 'TestLoop'}


def check_names(config: Config) -> Iterator[Finding]:
    """Report sections that nothing reads: typing errors, and names of mmdet 2.

    What a config defines for its own use is left alone: it stands in its text more
    than once, or has a name unlike those that are read.

    Args:
        config: All of it.
    """
    arguments = inspect.signature(Runner.__init__).parameters
    known = {*arguments, *_READ} - {'self', 'cfg'}
    code = re.sub('#.*', '', getattr(config, 'text', None) or '')
    words = re.findall(r'\w+', code)
    for name, value in config.items():
        if name in known or words.count(name) > 1:
            continue
        near = get_close_matches(name, known, n=1, cutoff=_ALIKE)
        # Such as val_evaluator_2 beside val_evaluator.
        if near and name[0] == near[0][0] and not name.startswith(near[0]):
            yield _meant(config, name, near[0], value)
        elif name in _OLD and all(part != value for part in _inside(config, name)):
            text = f'mmdet 3 reads no {name}: write {_OLD[name]} instead'
            yield Finding('name', name, text, (), 'warning', (name,))


def _inside(config: Config, left: str) -> Iterator[Any]:
    """Every dict of the other sections: of one of them it was the variable."""
    for name in config:
        if name != left:
            yield from (part for _, part in walk(config[name]))


def _meant(config: Config, name: str, meant: str, value: Any) -> Finding:
    text = f'nothing reads {name}; {meant} is meant'
    given = config.get(meant)
    if isinstance(value, Mapping) and isinstance(given, Mapping):
        text += f', and what {meant} says of it goes on to hold'
        keys = _leaves(plain(value), meant)
    else:
        keys = {meant: plain(value)}
    lines = tuple(line(key, new) for key, new in keys.items())
    return Finding('name', name, text, lines, remove=(name,))


def _leaves(value: Any, key: str) -> dict[str, Any]:
    """Settings of a dict that is merged with another, by their keys."""
    if isinstance(value, Mapping) and value and '_delete_' not in value:
        return {
            k: v for n, x in value.items() for k, v in _leaves(x, f'{key}.{n}').items()
        }
    return {key: value}


# Where objects of which kind stand, and what else their dicts may have.
_KINDS: dict[str, tuple[Registry, tuple[str, ...]]] = {
    r'(train|val|test)_cfg': (registry.LOOPS, ('by_epoch',)),
    r'optim_wrapper': (registry.OPTIM_WRAPPERS, ('constructor', 'paramwise_cfg')),
    r'optim_wrapper\.optimizer': (registry.OPTIMIZERS, ()),
    r'param_scheduler(\.\d+)?': (registry.PARAM_SCHEDULERS, ('convert_to_iter_based',)),
    r'(default_hooks\.\w+|custom_hooks\.\d+)': (registry.HOOKS, ('priority',)),
    r'(train|val|test)_dataloader(\.datasets?(\.\d+)?)+': (registry.DATASETS, ()),
    # Those inside Albu are of another library.
    r'(\w+_dataloader\..*\.pipeline|custom_hooks\.\d+\.switch_pipeline)\.\d+': (
        registry.TRANSFORMS,
        (),
    ),
}
_SECTIONS = (
    *('train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'param_scheduler'),
    *('default_hooks', 'custom_hooks', 'train_dataloader', 'val_dataloader'),
)


def check_sections(detector: DetectorConfig) -> Iterator[Finding]:
    """Report arguments that optimiser, loop, schedule, hooks and data do not take.

    Args:
        detector: The config.
    """
    kinds = {re.compile(pattern): kind for pattern, kind in _KINDS.items()}
    with DefaultScope.overwrite_default_scope(detector.scope):
        for name in _SECTIONS:
            for place, part in walk(detector.config.get(name), (name,)):
                key = dotted(*place)
                kind = next((k for p, k in kinds.items() if p.fullmatch(key)), None)
                if kind is not None and 'type' in part:
                    yield from _taken(detector, place, part, *kind)


def _taken(
    detector: DetectorConfig,
    place: Place,
    part: Mapping[str, Any],
    kinds: Registry,
    more: tuple[str, ...],
) -> Iterator[Finding]:
    given = part['type']
    cls = given
    if isinstance(given, str):
        with kinds.switch_scope_and_registry(None) as here:
            try:
                cls = here.get(given)
            except (KeyError, ImportError, AttributeError):
                return  # of a package that is not here
    if cls is None:
        text = explain(KeyError(f'{given} is not in the mmdet::{kinds.name} registry'))
        yield Finding('type', dotted(*place), text)
        return
    known, complete = arguments_of(cls)
    allowed = {*known, *more, 'type', '_scope_', '_delete_'}
    wrong = [key for key in part if key not in allowed] if complete else []
    yield from refused(detector, place, part, wrong, known)


def check_validation(detector: DetectorConfig) -> Iterator[Finding]:
    """Report a validation or a test that cannot run, or runs once.

    Args:
        detector: The config.
    """
    config = detector.config
    loop = config.get('train_cfg') or {}
    if config.get('train_dataloader') is None or not loop:
        return  # a base that others complete
    for split in _LOOPS:
        yield from _complete(config, split)
    validated = all(config.get(f'val_{part}') is not None for part in _PARTS)
    if validated:
        yield from _seldom(loop)
    else:
        yield from _best_of_nothing(config)


def _complete(config: Config, split: str) -> Iterator[Finding]:
    """Whether the three parts of a loop are there, or none."""
    names = [f'{split}_{part}' for part in _PARTS]
    there = [name for name in names if config.get(name) is not None]
    missing = [name for name in names if name not in there]
    if not there or not missing:
        return
    text = (
        f'mmengine wants {", ".join(names)}, all of them or none; there is no '
        f'{" and no ".join(missing)}'
    )
    other = 'test' if split == 'val' else 'val'
    lines = [line(name, None) for name in there]
    if missing == [f'{split}_cfg']:
        lines = [line(f'{split}_cfg', dict(type=_LOOPS[split]))]
    elif missing == [f'{split}_evaluator'] and config.get(f'{other}_evaluator'):
        lines = [line(missing[0], plain(config[f'{other}_evaluator']))]
    yield Finding('validation', missing[0], text, tuple(lines))


def _seldom(loop: Mapping[str, Any]) -> Iterator[Finding]:
    by_epoch = bool(loop.get('max_epochs'))
    total = loop.get('max_epochs') or loop.get('max_iters')
    if not total:
        return
    unit = 'epochs' if by_epoch else 'iterations'
    begin, interval = loop.get('val_begin', 1), loop.get('val_interval', 1)
    if begin > total:
        text = f'validation begins after {begin} {unit}, and the training has {total}'
        lines = (line('train_cfg.val_begin', 1),)
        yield Finding('validation', 'train_cfg.val_begin', text, lines, 'warning')
    elif interval > total and 'val_interval' in loop:
        text = (
            f'one validation in {interval} {unit}, and the training has {total}: the '
            'only one is that after the end, and no better checkpoint is seen'
        )
        lines = (
            line('train_cfg.val_interval', 1 if by_epoch else max(total // 10, 1)),
        )
        yield Finding('validation', 'train_cfg.val_interval', text, lines, 'warning')


def _best_of_nothing(config: Config) -> Iterator[Finding]:
    """What waits for the result of a validation."""
    hook = (config.get('default_hooks') or {}).get('checkpoint') or {}
    if hook.get('save_best'):
        key = 'default_hooks.checkpoint.save_best'
        text = (
            f'save_best={hook["save_best"]!r} and no validation: no best checkpoint is '
            'ever written'
        )
        yield Finding('validation', key, text, (line(key, None),), 'warning')
    hooks = plain(config.get('custom_hooks') or [])
    idle = [h for h in hooks if type_name(h) == 'EarlyStoppingHook']
    if idle:
        text = 'EarlyStoppingHook waits for a validation, and there is none'
        kept = [h for h in hooks if h not in idle]
        lines = (line('custom_hooks', kept),)
        yield Finding('validation', 'custom_hooks', text, lines, 'warning')
