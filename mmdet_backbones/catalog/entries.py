"""Names of backbones, ``source/model``, and the config dict behind each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

from ..commands import command
from ..errors import UserError
from .entry import OURS, Entry, Source, variants


def resolve(name: str) -> dict[str, Any]:
    """Return the config dict of a backbone.

    Args:
        name: ``'timm/convnext_tiny'``, ``'torchvision/vgg16_bn'``,
            ``'mmpretrain/shufflenet-v2-1x'``, ``'transformers/microsoft/resnet-50'``,
            ``'mmdet/ResNet-50'``, or one of ours, ``'res2net50_26w_6s'``.

    Returns:
        A dict for ``MODELS.build``, the caller's own.

    Raises:
        UserError: As :func:`find`.
    """
    return deepcopy(dict(find(name).config))


def find(name: str) -> Entry:
    """Look a backbone up.

    Args:
        name: As for :func:`resolve`. Names of timm and torchvision may carry the tag of
            their weights, mmpretrain's may be the full ones of its model zoo.

    Returns:
        The entry.

    Raises:
        UserError: A ``ValueError`` with the nearest names of all sources, or with the
            reason why the source cannot be used.
    """
    prefix = name.partition('/')[0]
    source = load_source(prefix if prefix in SOURCES and '/' in name else OURS)
    entry = source.entries.get(name) or source.aliases.get(name)
    if entry is not None:
        return entry
    if source.problem is not None:
        raise UserError(f"'{name}' cannot be used: {source.problem}")
    names = [n for source in SOURCES for n in load_source(source).entries]
    raise UserError(
        f"there is no backbone '{name}'.{nearest(name, names)} {command('list')} "
        'lists all'
    )


def nearest(name: str, names: Collection[str]) -> str:
    """Write ``' Nearest: ...'``, or nothing if no name is near.

    Args:
        name: That there is no backbone of.
        names: Of the catalog.
    """
    by_model: dict[str, list[str]] = {}
    for full in names:
        by_model.setdefault(full.rpartition('/')[2].lower(), []).append(full)
    prefix, _, model = name.lower().rpartition('/')
    # The same model of another source first, then names that look alike.
    near = list(by_model.get(model, ()))
    near += get_close_matches(name, names, n=4)
    for alike in get_close_matches(model, by_model, n=4):
        near += by_model[alike]
    # Whoever names a source that exists means it.
    near.sort(key=lambda found: not found.startswith(f'{prefix}/'))
    unique = list(dict.fromkeys(near))[:5]
    return f' Nearest: {", ".join(unique)}.' if unique else ''


@cache
def load_source(name: str) -> Source:
    """List what one source has here.

    Args:
        name: A key of ``SOURCES``.

    Returns:
        The source; without entries but with a ``problem`` if it cannot be used.
    """
    distributions, load = SOURCES[name]
    if name == OURS:
        return Source(name, _version(distributions), *load())
    if find_spec(name) is None:
        return Source(name, problem=f'{name} is not installed: pip install {name}')
    version = _version(distributions)
    try:
        return Source(name, version, *load())
    except Exception as error:
        # A broken installation raises whatever it likes at import, and the other
        # sources can be used all the same.
        return Source(
            name,
            version,
            problem=f'{name} cannot be imported ({type(error).__name__}: {error}): '
            f'{command("doctor")} names the cure',
        )


def _version(distributions: tuple[str, ...]) -> str | None:
    for distribution in distributions:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


_Loaded = tuple[dict[str, Entry], dict[str, Entry]]


# Classes whose one argument is the name that the library gives the net, and what the
# argument is called.
_BY_NAME = {
    'timm': ('TIMMBackbone', 'model_name'),
    'torchvision': ('TorchvisionBackbone', 'model_name'),
    'transformers': ('TransformersBackbone', 'model'),
}
# What stands before the name in the address of its weights, if not the source.
_SCHEMES = {'transformers': 'hf'}


# Nets of torchvision that have none of the weights meant where none are named.
_FIRST_WEIGHTS = dict.fromkeys(
    ('torchvision/regnet_y_128gf', 'torchvision/vit_h_14'), 'IMAGENET1K_SWAG_E2E_V1'
)


def _entry(name: str, has_weights: bool = True, tag: str = '') -> Entry:
    source, _, model = name.partition('/')
    kind, argument = _BY_NAME[source]
    config = {'type': f'mmdet_backbones.{kind}', argument: model}
    tag = tag or _FIRST_WEIGHTS.get(name, '')
    dotted = f'.{tag}' if tag else ''
    scheme = _SCHEMES.get(source, source)
    weights = f'{scheme}://{model}{dotted}' if has_weights else None
    return Entry(name, source, config, weights)


def recorded_source(
    name: str, version: str | None, models: Mapping[str, bool]
) -> Source:
    """List what one source has without importing it, which takes seconds.

    Args:
        name: A key of ``SOURCES``.
        version: Of the library whose models were written down.
        models: Names of the catalog, and whether the library has weights for them.

    Returns:
        What :func:`load_source` returns, without aliases. It is asked if another
        version is installed, or if a name does not tell the arguments of a net.
    """
    installed = find_spec(name) and _version(SOURCES[name][0])
    if name not in _BY_NAME or not models or not version or installed != version:
        return load_source(name)
    entries = {full: _entry(full, has_weights) for full, has_weights in models.items()}
    return Source(name, version, entries)


def _load_ours() -> _Loaded:
    configs = variants('backbones.')
    return {name: Entry(name, OURS, config) for name, config in configs.items()}, {}


def _load_timm() -> _Loaded:
    import timm

    tagged = timm.list_pretrained()
    with_weights = {name.partition('.')[0] for name in tagged}
    entries = {
        f'timm/{model}': _entry(f'timm/{model}', model in with_weights)
        for model in timm.list_models()
    }
    return entries, {f'timm/{model}': _entry(f'timm/{model}') for model in tagged}


def _load_torchvision() -> _Loaded:
    from torchvision import models

    names = [f'torchvision/{model}' for model in models.list_models(module=models)]
    aliases = {
        f'{name}.{tag}': replace(_entry(name, tag=tag), name=f'{name}.{tag}')
        for name in names
        for tag in models.get_model_weights(name.partition('/')[2]).__members__
    }
    return {name: _entry(name) for name in names}, aliases


def _load_transformers() -> _Loaded:
    from ..adapters.transformers.local_files import cached_models
    from ..adapters.transformers.nets import ARCHITECTURES
    from ..adapters.transformers.published import PUBLISHED

    there = [n for n, net in PUBLISHED.items() if net['model_type'] in ARCHITECTURES]
    entries = {f'transformers/{n}': _entry(f'transformers/{n}') for n in there}
    # An architecture by its own name, with its default config.
    for kind in ARCHITECTURES:
        entries[f'transformers/{kind}'] = _entry(f'transformers/{kind}', False)
    cached = [f'transformers/{name}' for name in cached_models(ARCHITECTURES)]
    return entries, {name: _entry(name) for name in cached if name not in entries}


def _load_mmpretrain() -> _Loaded:
    from .mmpretrain_names import read_entries

    return read_entries()


def _load_mmdet() -> _Loaded:
    from .mmdet_nets import NETS

    entries = {
        f'mmdet/{net.name}': Entry(
            f'mmdet/{net.name}',
            'mmdet',
            dict(type=f'mmdet.{net.type}', **net.arguments),
            net.weights,
            dict(out_indices=net.all_indices) if net.all_indices else {},
        )
        for net in NETS
    }
    return entries, {}


# Distributions that may hold the package, and what lists its backbones.
SOURCES: dict[str, tuple[tuple[str, ...], Callable[[], _Loaded]]] = {
    OURS: (('mmdet_backbones',), _load_ours),
    'timm': (('timm',), _load_timm),
    'torchvision': (('torchvision',), _load_torchvision),
    'mmpretrain': (('mmpretrain', 'onedl-mmpretrain'), _load_mmpretrain),
    'transformers': (('transformers',), _load_transformers),
    'mmdet': (('mmdet', 'onedl-mmdetection'), _load_mmdet),
}

# Arguments by which a class reads a file, and which leave the net as it is.
_READING = ('convert_weights',)


class UsualWeights(NamedTuple):
    """Weights, and what a config says to load them.

    Attributes:
        checkpoint: As ``init_cfg`` takes it.
        prefix: That the class needs, or None.
        arguments: Of the class, by which it reads them.
        config: Of the net that they were published for; empty if it is told by name.
    """

    checkpoint: str
    prefix: str | None = None
    arguments: Mapping[str, Any] = {}
    config: Mapping[str, Any] = {}


def usual_weights(kind: str, value_of: Callable[[str], Any]) -> UsualWeights | None:
    """Look up published weights for a backbone as it is configured.

    Args:
        kind: Its type.
        value_of: Gives an argument of it, as configured or by default.

    Returns:
        Those of a net that has the same arguments, as far as it names any; None if
        none are known.
    """
    scope, _, name = kind.rpartition('.')
    named = next((source for source, cls in _BY_NAME.items() if cls[0] == name), None)
    if named is not None:
        weights = _of_model(f'{named}/{value_of(_BY_NAME[named][1])}')
        # mmengine reads no names of timm; its wrapper takes `pretrained` instead.
        return UsualWeights(weights) if weights and scope == 'mmdet_backbones' else None
    sources = ['mmdet'] if scope in ('', 'mmdet') else ['mmpretrain']
    if scope == 'mmdet_backbones':
        sources.append('mmdet')  # of which ours reads the weights as well
    entries = [e for source in sources for e in load_source(source).entries.values()]
    for entry in entries:
        config = dict(entry.config)
        same = str(config.pop('type')).rpartition('.')[2] == name
        reading = {k: v for k, v in config.items() if k in _READING}
        net = {k: v for k, v in config.items() if k not in _READING}
        if (
            same
            and entry.weights
            and all(_same(value_of(k), v) for k, v in net.items())
        ):
            prefix = 'backbone.' if scope == 'mmpretrain' else None
            reading = {} if scope == 'mmdet_backbones' else reading
            published = {**net, **entry.every_level, 'type': kind}
            return UsualWeights(entry.weights, prefix, reading, published)
    return None


def _of_model(name: str) -> str | None:
    try:
        return find(name).weights
    except UserError:
        return None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return list(one) == list(other)
    return one == other
