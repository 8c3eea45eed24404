"""``optim_wrapper.paramwise_cfg``: keys that the constructor in use does not read."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mmengine.registry import OPTIMIZERS

from ..detector_config.detector import DetectorConfig
from ..detector_config.tree import plain, type_name
from ..detector_config.weights import pretrained_of
from ..engine.layer_decay import KEYS as OUR_KEYS
from ..engine.layer_decay import MMENGINE_OPTIONS
from .findings import Finding, instead, line

_OURS = 'mmdet_backbones.LayerDecayConstructor'
_DEFAULT = 'DefaultOptimWrapperConstructor'
_MULTIPLIERS = ('lr_mult', 'decay_mult')
# The same under another name.
_RENAMED = {'layer_decay_rate': 'decay_rate'}
_NO_DECAY = ('bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult')


@dataclass(frozen=True)
class Constructor:
    """What one constructor of optimisers reads of ``paramwise_cfg``.

    Attributes:
        keys: That it reads.
        needed: Those without which it fails.
        implied: Keys that it does not read, with the value that it acts by.
        nets: Part of the names of the classes of backbones that it is made for.
        detectors: Whether it works with detectors of mmdet.
    """

    keys: tuple[str, ...]
    needed: tuple[str, ...] = ()
    implied: Mapping[str, Any] | None = None
    nets: str = ''
    detectors: bool = True


CONSTRUCTORS = {
    _DEFAULT: Constructor(('custom_keys', *MMENGINE_OPTIONS)),
    'LayerDecayConstructor': Constructor(OUR_KEYS, ('decay_rate',)),
    # Of mmdet. It decays no bias and nothing of one dimension, each parameter once.
    'LearningRateDecayOptimizerConstructor': Constructor(
        ('num_layers', 'decay_rate', 'decay_type'),
        ('num_layers', 'decay_rate'),
        {**dict.fromkeys(_NO_DECAY, 0.0), 'bypass_duplicate': True},
        nets='ConvNeXt',
    ),
    # Of mmpretrain, for classifiers with a method that detectors do not have.
    'LearningRateDecayOptimWrapperConstructor': Constructor(
        ('layer_decay_rate', 'custom_keys', *_NO_DECAY), detectors=False
    ),
}


def check_paramwise(detector: DetectorConfig) -> Iterator[Finding]:
    """Report settings of single parameters that would have no effect."""
    wrapper = plain(detector.config.get('optim_wrapper') or {})
    given = wrapper.get('paramwise_cfg')
    name = type_name(dict(type=wrapper.get('constructor', _DEFAULT)))
    constructor = CONSTRUCTORS.get(name)
    if constructor is None:
        return
    key = 'optim_wrapper.paramwise_cfg'
    if given is not None and not isinstance(given, Mapping):
        problem = f'it must be a dict, got {given!r}'
        yield Finding('optimiser', key, problem, (line(key, None),))
        return
    given = given or {}
    unsuited = _unsuited(detector, name, constructor, given)
    if unsuited:
        cure = _with_ours(detector, given)
        yield Finding('optimiser', 'optim_wrapper.constructor', unsuited, cure)
        return
    if 'constructor' in wrapper or given:
        yield from _ignored(detector, name, constructor, given)
        yield from _custom_keys(detector, wrapper, constructor, given, key)


def check_zero_rate(detector: DetectorConfig) -> Iterator[Finding]:
    """Report a backbone that a rate of zero keeps at random values."""
    if pretrained_of(detector.backbone) is not None or detector.filled is None:
        return
    wrapper = plain(detector.config.get('optim_wrapper') or {})
    custom = (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
    # Of the keys that are part of a name, the longest counts.
    keys = sorted(sorted(custom), key=len, reverse=True)
    still: dict[str, int] = {}
    for name, parameter in detector.net.named_parameters():
        key = next((key for key in keys if key in f'backbone.{name}'), None)
        if key is None or name in detector.filled or not parameter.requires_grad:
            continue
        if (custom[key] or {}).get('lr_mult') == 0:
            still[key] = still.get(key, 0) + parameter.numel()
    if not still:
        return
    moved = {k: {**v, 'lr_mult': 1.0} if k in still else v for k, v in custom.items()}
    place = 'optim_wrapper.paramwise_cfg.custom_keys'
    yield Finding(
        'frozen and random',
        place,
        f'lr_mult=0 for {" and ".join(map(repr, still))} keeps {sum(still.values()):,} '
        'parameters at random values: the backbone starts from no pretrained weights',
        (instead(detector, place, moved),),
    )


def _unsuited(
    detector: DetectorConfig, name: str, constructor: Constructor, given: Mapping
) -> str:
    """Why a constructor fails as soon as the optimiser is built; empty if not."""
    net = type_name(detector.backbone)
    if not constructor.detectors:
        return f'{name} takes classifiers of mmpretrain only, and no detector'
    if constructor.nets not in net:
        return f'{name} knows the layers of {constructor.nets} only, not of {net}'
    missing = [key for key in constructor.needed if key not in given]
    if missing:
        return f'{name} needs {" and ".join(missing)} in paramwise_cfg'
    return ''


def _ignored(
    detector: DetectorConfig,
    name: str,
    constructor: Constructor,
    given: Mapping[str, Any],
) -> Iterator[Finding]:
    implied = constructor.implied or {}
    ignored = [
        k
        for k, value in given.items()
        if k not in constructor.keys and not (k in implied and implied[k] == value)
    ]
    if not ignored:
        return
    every = {k for one in CONSTRUCTORS.values() for k in one.keys}
    read = [k for k in ignored if k in every]
    near = {k: get_close_matches(k, constructor.keys, n=1) for k in ignored}
    guesses = [
        f'{k} (perhaps {near[k][0]})' if near[k] and k not in read else k
        for k in ignored
    ]
    problem = f'{name} reads no {", ".join(guesses)}; it reads '
    problem += ', '.join(constructor.keys)
    if read:
        cure = _with_ours(detector, given)
    else:
        found = [
            (near[k][0] if near[k] else None) if k in ignored else k for k in given
        ]
        kept = {k: v for k, v in zip(found, given.values(), strict=True) if k}
        cure = (instead(detector, 'optim_wrapper.paramwise_cfg', kept),)
    # Ours refuses them, the others pass them over.
    severity = 'error' if constructor.keys is OUR_KEYS else 'warning'
    yield Finding('optimiser', 'optim_wrapper.paramwise_cfg', problem, cure, severity)


def _with_ours(detector: DetectorConfig, given: Mapping[str, Any]) -> tuple[str, ...]:
    """The same settings for the constructor that reads all of them."""
    renamed = {_RENAMED.get(k, k): value for k, value in given.items()}
    kept = {k: value for k, value in renamed.items() if k in OUR_KEYS}
    kept.setdefault('decay_rate', 0.8)
    return (
        line('optim_wrapper.constructor', _OURS),
        instead(detector, 'optim_wrapper.paramwise_cfg', kept),
    )


def _custom_keys(
    detector: DetectorConfig,
    wrapper: Mapping[str, Any],
    constructor: Constructor,
    given: Mapping[str, Any],
    key: str,
) -> Iterator[Finding]:
    """Settings by name that are neither a factor nor an option of the optimiser."""
    custom = given.get('custom_keys')
    if 'custom_keys' not in constructor.keys or not isinstance(custom, Mapping):
        return
    known = {*_MULTIPLIERS, *_options(wrapper.get('optimizer') or {})}
    for name, settings in custom.items():
        wrong = [k for k in settings or () if k not in known]
        if not wrong:
            continue
        near = {k: get_close_matches(k, _MULTIPLIERS, n=1) for k in wrong}
        kept = {
            (near[k] or [''])[0] if k in wrong else k: v for k, v in settings.items()
        }
        kept.pop('', None)
        keys = {**custom, name: kept}
        yield Finding(
            'optimiser',
            f'{key}.custom_keys',
            f"'{name}' takes lr_mult, decay_mult and options of the optimiser; nothing "
            f'reads its {", ".join(wrong)}',
            (instead(detector, f'{key}.custom_keys', keys),),
            'warning',
        )


def _options(optimizer: Mapping[str, Any]) -> set[str]:
    kind = optimizer.get('type')
    with OPTIMIZERS.switch_scope_and_registry(None) as registry:
        cls = registry.get(kind) if isinstance(kind, str) else kind
    return set(inspect.signature(cls).parameters) if cls is not None else set()
