"""Find everything that is wrong with a config before the first iteration."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from ..detector_config.detector import DetectorConfig
from ..detector_config.image_size import image_size
from ..detector_config.values import faults_of
from ..engine.launch import require_model
from ..errors import UserError, explain
from .arguments import check_arguments, check_packages, mend_init_cfgs
from .cached_maps import check_cached_maps
from .findings import Finding, describe, errors_of, in_order, line
from .levels import check_levels, unusable
from .paramwise import check_paramwise, check_zero_rate
from .schedule import check_schedule
from .sections import check_names, check_sections, check_validation
from .start import check_start
from .training import (
    check_batch,
    check_classes,
    check_optimiser,
    check_padding,
    check_preprocessing,
)
from .weights import check_frozen, check_gradients, check_weights

# Sides of images that are enough for most detectors, the quickest first.
_SMALL = (128, 256, 512)
# A rule looks at one thing and knows nothing of the others.
Rule = Callable[[DetectorConfig], Iterator[Finding]]


def check_config(
    config: Config, *, fast: bool = True, num_gpus: int = 1, training: bool = True
) -> list[Finding]:
    """Check a config of any detector of mmdet, ours or not.

    Args:
        config: All of it; it is left as it is.
        fast: Build the backbone on the meta device only. Otherwise the detector is
            also built and takes one training step and one prediction on a small
            synthetic batch, and servers are asked whether they have the weights.
        num_gpus: Processes that will train together.
        training: Whether weights and schedule are looked at.

    Returns:
        What is wrong, errors first; nothing if the config can be trained.
    """
    wrong = [
        Finding('values', f.key, f.problem, _written(f.key, f.value))
        for f in faults_of(config)
    ]
    if wrong:  # the rules could stumble over them
        return wrong
    sections = [*_apply(check_names, config, 'config')] if training else []
    if 'model' not in config:
        text = (
            'the config has no model, as a base that others inherit from: there is '
            'nothing of a detector to check, and nothing to train'
        )
        lost = Finding('model', 'model', text, (), 'warning')
        return in_order([lost, *sections])
    if not isinstance(config.get('model'), dict):
        return [Finding('model', 'model', 'the config has no detector with a backbone')]
    detector = DetectorConfig(deepcopy(config))
    if 'type' not in detector.backbone:
        text = 'it has no backbone of a detector of mmdet: nothing was checked'
        return in_order([*sections, Finding('model', 'model', text, (), 'warning')])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        findings = [*sections, *mend_init_cfgs(detector)]
        findings += _apply_rules(detector, fast, num_gpus, training)
        if not fast and not errors_of(findings):
            findings += _run(detector, config)
    return in_order(findings)


def _written(key: str, value: object) -> tuple[str, ...]:
    return () if value is None else (line(key, value),)


def _apply_rules(
    detector: DetectorConfig, fast: bool, num_gpus: int, training: bool
) -> Iterator[Finding]:
    """Apply rules by what they look at; if that cannot be had, no more of them."""
    always: dict[str, tuple[Rule, ...]] = {
        'backbone': (check_arguments, check_classes),
        'reader': (check_levels, check_padding),
    }
    # What matters only where training starts.
    at_training: dict[str, tuple[Rule, ...]] = {
        'backbone': (
            check_packages,
            check_sections,
            check_validation,
            partial(check_schedule, num_gpus=num_gpus),
            partial(check_batch, num_gpus=num_gpus),
            check_paramwise,
        ),
        'net': (
            check_frozen,
            check_zero_rate,
            check_cached_maps,
            partial(check_start, ask=not fast),
            check_preprocessing,
            partial(check_weights, ask=not fast),
        ),
        'levels': (check_gradients, check_optimiser),
    }
    key, refused = f'{detector.key}.backbone', False
    for needed in ('backbone', 'net', 'outputs', 'levels', 'reader'):
        try:
            getattr(detector, needed)
        except UserError as error:
            if not refused:
                yield from unusable(detector, needed, error)
            return
        except Exception as error:  # as of a rule
            yield _stumbled(detector.key, error)
            return
        rules = always.get(needed, ())
        for rule in (*rules, *(at_training.get(needed, ()) if training else ())):
            for finding in _apply(rule, detector, detector.key):
                # Its class would only say the same of its arguments once more.
                refused |= (finding.rule, finding.key) == ('arguments', key)
                yield finding


def _apply(
    rule: Callable[[Any], Iterator[Finding]], what: Any, key: str
) -> Iterator[Finding]:
    """Apply a rule; what it stumbles over is a value that it does not expect."""
    try:
        yield from rule(what)
    except Exception as error:  # nobody can foresee all values of a config
        yield _stumbled(key, error)


def _stumbled(key: str, error: Exception) -> Finding:
    text = f'a value in it cannot be worked with: {type(error).__name__}: '
    return Finding('values', key, text + explain(error))


def probe_sizes(detector: DetectorConfig) -> list[tuple[int, int]]:
    """Height and width of images to try a detector with, the quick one first.

    Args:
        detector: The config.

    Returns:
        The smallest size that its backbone takes, and that of its training images.
    """
    real = image_size(detector.config)
    small = [(side, side) for side in _SMALL if side <= max(real or _SMALL)]
    quick = next((size for size in small if detector.takes(size)), None)
    return [size for size in dict.fromkeys((quick, real)) if size] or small[:1]


def _run(detector: DetectorConfig, config: Config) -> Iterator[Finding]:
    """One step and one prediction of the whole detector, with random weights."""
    from .trial import try_model

    failed: Exception | None = None
    # Windows, pools and grids may be larger than the maps of a small image, and smaller
    # than those of the images that the detector trains on.
    for size in probe_sizes(detector):
        try:
            with DefaultScope.overwrite_default_scope(detector.scope):
                trial = try_model(deepcopy(config).model, size)
            break
        except Exception as error:  # whatever the parts of a foreign detector raise
            failed = error
    else:
        assert failed is not None
        text = explain(failed).splitlines() or ['']
        problem = (
            f'a step on a synthetic batch of {size[0]} x {size[1]} pixels fails: '
            f'{type(failed).__name__}: {text[0]}'
        )
        yield Finding('run', 'model', problem)
        return
    if trial.idle and not config.get('find_unused_parameters', False):
        names = ', '.join(trial.idle[:4])
        yield Finding(
            'no gradient',
            'model.backbone',
            f'{len(trial.idle)} parameters of the backbone got no gradient ({names}): '
            'training on several GPUs stops with "Expected to have finished reduction"',
            ('find_unused_parameters = True',),
        )


def require_sound(config: Config, num_gpus: int = 1) -> None:
    """Check a config that is about to be trained; log what could be better.

    Args:
        config: All of it.
        num_gpus: Processes that train together.

    Raises:
        UserError: Lists every finding, if one of them forbids training.
    """
    require_model(config)
    findings = check_config(config, num_gpus=num_gpus)
    if errors_of(findings):
        raise UserError(
            'the config is not ready for training (--no-check skips this check):\n'
            + describe(findings)
        )
    for finding in findings:
        note = finding.severity == 'note'
        level = logging.INFO if note else logging.WARNING
        print_log(str(finding), 'current', level)
