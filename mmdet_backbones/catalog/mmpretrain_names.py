"""mmpretrain's backbones, read from its model zoo without importing mmpretrain."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..registry import MODELS
from .config_reader import read_model_part
from .entry import Entry, variants

# What a detector decides, not the net.
_NOT_OF_THE_NET = {
    'frozen_stages',
    'in_channels',
    'init_cfg',
    'norm_eval',
    'num_classes',
    'out_indices',
    'out_type',
    'with_cp',
}
# The named classes take images of any size and do without these.
_SIZES = {'img_size', 'pad_small_map'}
# Equal nets may still be trained with other rates.
_RATES = {'drop_path_rate', 'drop_rate', 'attn_drop_rate'}


def read_entries() -> tuple[dict[str, Entry], dict[str, Entry]]:
    """List the nets of mmpretrain's model zoo that have a backbone.

    Returns:
        Entries by short name, see :func:`short_name`, and by full name. The full name
        stands alone where two different nets would get the same short one. Variants of
        our classes that the zoo has no weights for come last.

    Raises:
        FileNotFoundError: If the installed package carries no model zoo.
    """
    zoo = model_zoo()
    aliases: dict[str, Entry] = {}
    by_short: dict[str, list[Entry]] = {}
    for name, file, weights, _ in published(zoo):
        backbone = read_model_part(zoo / file, 'backbone')
        if backbone is None or 'type' not in backbone:
            continue
        full = f'mmpretrain/{name}'
        aliases[full] = Entry(full, 'mmpretrain', _to_config(backbone), weights)
        short = f'mmpretrain/{short_name(name)}'
        by_short.setdefault(short, []).append(aliases[full])
    entries = {}
    for short, same in by_short.items():
        if len({architecture(entry.config) for entry in same}) > 1:
            entries.update({entry.name: entry for entry in same})
            continue
        weights = next((entry.weights for entry in same if entry.weights), None)
        entries[short] = Entry(short, 'mmpretrain', same[0].config, weights)
    for name, config in variants('adapters.mmpretrain').items():
        full = f'mmpretrain/{name}'
        entries.setdefault(full, Entry(full, 'mmpretrain', config))
    return entries, aliases


def short_name(name: str) -> str:
    """Take the batch size, ``in1k`` and ``3rdparty`` out of a name of the model zoo.

    What tells weights apart stays: ``resnet50_8xb256-rsb-a1-600e_in1k`` becomes
    ``resnet50_rsb-a1-600e``, ``resnet50_8xb32_in1k`` becomes ``resnet50``.
    """
    kept = []
    for token in name.split('_'):
        token = re.sub(r'^\d+xb\d+-?', '', token)
        token = re.sub(r'-?3rdparty$|^3rdparty-?', '', token)
        token = re.sub(r'^in1k-?', '', token)
        if token:
            kept.append(token)
    return '_'.join(kept)


def model_zoo() -> Path:
    """Folder of mmpretrain's model-index.yml.

    Raises:
        FileNotFoundError: If mmpretrain brings none.
    """
    spec = find_spec('mmpretrain')
    origin = Path(spec.origin).parent if spec and spec.origin else Path()
    # A wheel carries the zoo in .mim, a clone beside the package.
    for folder in (origin / '.mim', origin.parent):
        if (folder / 'model-index.yml').is_file():
            return folder
    raise FileNotFoundError(f'no model-index.yml in {origin / ".mim"}')


class Model(NamedTuple):
    """A model of the zoo.

    Attributes:
        name: In full.
        config: Path below the zoo.
        weights: Address, None if there are none.
        top1: Accuracy on ImageNet-1k in percent, None if it was not measured.
    """

    name: str
    config: str
    weights: str | None
    top1: float | None


def published(zoo: Path) -> Iterator[Model]:
    """List all models.

    Args:
        zoo: From :func:`model_zoo`.
    """
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)

    def load(path: str) -> dict[str, Any]:
        return yaml.load((zoo / path).read_text(encoding='utf-8'), loader)

    for metafile in load('model-index.yml')['Import']:
        for model in load(metafile).get('Models', ()):
            if (zoo / str(model.get('Config'))).is_file():
                weights, top1 = model.get('Weights'), _top1(model)
                yield Model(model['Name'], model['Config'], weights, top1)


def _top1(model: dict[str, Any]) -> float | None:
    for result in model.get('Results') or ():
        if result.get('Dataset') == 'ImageNet-1k':
            return result['Metrics']['Top 1 Accuracy']
    return None


def _to_config(backbone: dict[str, Any]) -> dict[str, Any]:
    net = {k: v for k, v in backbone.items() if k not in _NOT_OF_THE_NET}
    MODELS.import_from_location()
    cls = MODELS.module_dict.get(net['type'])
    # Some families have a class of their own here; our other nets are no nets of it.
    if cls is not None and '.adapters.mmpretrain.' in cls.__module__:
        taken = set(inspect.signature(cls).parameters)
        arguments = {k: v for k, v in net.items() if k not in _SIZES - taken}
        if set(arguments) - {'type'} <= taken:
            return {**arguments, 'type': f'mmdet_backbones.{net["type"]}'}
    return dict(type='mmdet_backbones.MMPretrainBackbone', model=net)


def architecture(config: Any) -> str:
    """Write a config of an entry down so that equal nets are written alike."""
    net = config.get('model', config)
    return json.dumps({k: v for k, v in net.items() if k not in _RATES}, sort_keys=True)
