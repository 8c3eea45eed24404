"""Names of the layers of MobileNetV2, MobileNetV3 and EfficientNet in all sources.

Their sources agree on the layers and on nothing else: one counts the blocks of a stage,
the other those of the whole net; one names a layer, the other counts it, with or
without those that are not there. A naming is read into :class:`Layer` and written from
it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .dialect import Renumber

STEM, HEAD = -1, 1000
_ORDER = ('expand', 'depthwise', 'squeeze', 'project')


class Layer(NamedTuple):
    """What a parameter belongs to.

    Attributes:
        stage: Number of the stage, -1 for the stem, 1000 for what follows the blocks.
        block: Number of the block in its stage.
        part: One of ``expand``, ``depthwise``, ``squeeze`` and ``project``.
        kind: ``conv`` or ``bn``; of a squeeze ``reduce`` or ``excite``.
        leaf: ``weight``, ``bias``, ...
    """

    stage: int
    block: int
    part: str
    kind: str
    leaf: str


class Where(NamedTuple):
    """Numbers of a layer in its net.

    Attributes:
        block: Number of the block over the whole net; -1 for the stem.
        stage: Number of the stage, the count of stages for what follows the blocks.
        part: Number of the part in its block.
        last: Whether it is the last part.
    """

    block: int
    stage: int
    part: int
    last: bool


@dataclass(frozen=True)
class Naming:
    """How a source names the parameters of such a net.

    Attributes:
        block: Regular expression of a key, with the groups ``stage``, ``block``,
            ``part`` and ``leaf``; of a source without stages ``block`` is left out.
        wide: Part and kind by the source's name for it, in a block that widens.
        plain: The same in a block that does not.
        sign: Name of a part that only blocks that widen have.
        ends: Stage and kind by name, for the convolutions before and after the blocks.
        single: Name of the only convolution of a stage that follows the blocks.
    """

    block: str
    wide: Mapping[str, tuple[str, str]]
    plain: Mapping[str, tuple[str, str]]
    sign: str
    ends: Mapping[str, tuple[int, str]]
    single: str | None = None

    def read(self, keys: Collection[str]) -> dict[str, Layer]:
        """Say which layer each key means; others are left out."""
        layers: dict[str, Layer] = {}
        matches = {key: m for key in keys if (m := re.match(self.block, key))}
        places = {key: _place(m) for key, m in matches.items()}
        names: dict[tuple[int, int], set[str]] = {}
        for key, place in places.items():
            names.setdefault(place, set()).add(matches[key]['part'])
        for key, m in matches.items():
            stage, block = places[key]
            known = names[stage, block]
            if self.single in known:
                kind = 'conv' if m['part'] == self.single else 'bn'
                layers[key] = Layer(HEAD, 0, 'project', kind, m['leaf'])
                continue
            table = self.wide if self.sign in known else self.plain
            if m['part'] in table:
                layers[key] = Layer(stage, block, *table[m['part']], m['leaf'])
        # What follows such a convolution belongs to the classifier.
        ended = any(layer.stage == HEAD for layer in layers.values())
        for key in keys:
            name, _, leaf = key.rpartition('.')
            if name not in self.ends:
                continue
            stage, kind = self.ends[name]
            if not (ended and stage == HEAD):
                layers[key] = Layer(stage, 0, 'project', kind, leaf)
        return layers


def _place(match: re.Match[str]) -> tuple[int, int]:
    numbers = match.groupdict()
    return int(numbers['stage']), int(numbers.get('block') or 0)


def renumber(naming: Naming, spell: Callable[[Layer, Where], str]) -> Renumber:
    """Lead from one naming to another.

    Args:
        naming: Of the keys that are given.
        spell: Writes the name of a layer.
    """

    def rename(keys: Collection[str]) -> dict[str, str]:
        layers = naming.read(keys)
        parts: dict[tuple[int, int], set[str]] = {}
        for layer in layers.values():
            parts.setdefault((layer.stage, layer.block), set()).add(layer.part)
        blocks = sorted(place for place in parts if 0 <= place[0] < HEAD)
        stages = sorted({stage for stage, _ in blocks})

        def where(layer: Layer) -> Where:
            if layer.stage == STEM:
                return Where(-1, -1, 0, True)
            if layer.stage == HEAD:
                return Where(len(blocks), len(stages), 0, True)
            place = (layer.stage, layer.block)
            here = [part for part in _ORDER if part in parts[place]]
            number = here.index(layer.part)
            stage = stages.index(layer.stage)
            return Where(blocks.index(place), stage, number, layer.part == here[-1])

        return {key: spell(layer, where(layer)) for key, layer in layers.items()}

    return rename


def is_end(layer: Layer) -> bool:
    return layer.stage in (STEM, HEAD)


TIMM = Naming(
    block=r'blocks\.(?P<stage>\d+)\.(?P<block>\d+)\.(?P<part>.+)\.(?P<leaf>\w+)$',
    wide={
        'conv_pw': ('expand', 'conv'),
        'bn1': ('expand', 'bn'),
        'conv_dw': ('depthwise', 'conv'),
        'bn2': ('depthwise', 'bn'),
        'se.conv_reduce': ('squeeze', 'reduce'),
        'se.conv_expand': ('squeeze', 'excite'),
        'conv_pwl': ('project', 'conv'),
        'bn3': ('project', 'bn'),
    },
    plain={
        'conv_dw': ('depthwise', 'conv'),
        'bn1': ('depthwise', 'bn'),
        'se.conv_reduce': ('squeeze', 'reduce'),
        'se.conv_expand': ('squeeze', 'excite'),
        'conv_pw': ('project', 'conv'),
        'bn2': ('project', 'bn'),
    },
    sign='conv_pwl',
    ends={
        'conv_stem': (STEM, 'conv'),
        'bn1': (STEM, 'bn'),
        'conv_head': (HEAD, 'conv'),
        'bn2': (HEAD, 'bn'),
    },
    single='conv',
)
_NAMED_PARTS = {
    **{
        f'{name}.{kind}': (part, kind)
        for name, part in (
            ('expand_conv', 'expand'),
            ('depthwise_conv', 'depthwise'),
            ('linear_conv', 'project'),
        )
        for kind in ('conv', 'bn')
    },
    'se.conv1.conv': ('squeeze', 'reduce'),
    'se.conv2.conv': ('squeeze', 'excite'),
}
MMPRETRAIN_V2 = Naming(
    block=r'layer(?P<stage>\d+)\.(?P<block>\d+)\.conv\.(?P<part>\d\.\w+)\.(?P<leaf>\w+)$',
    wide={
        f'{i}.{kind}': (part, kind)
        for i, part in enumerate(('expand', 'depthwise', 'project'))
        for kind in ('conv', 'bn')
    },
    plain={
        f'{i}.{kind}': (part, kind)
        for i, part in enumerate(('depthwise', 'project'))
        for kind in ('conv', 'bn')
    },
    sign='2.conv',
    ends={
        f'{name}.{kind}': (stage, kind)
        for name, stage in (('conv1', STEM), ('conv2', HEAD))
        for kind in ('conv', 'bn')
    },
)
MMPRETRAIN_V3 = Naming(
    block=r'layer(?P<stage>\d+)\.(?P<part>.+)\.(?P<leaf>\w+)$',
    wide=_NAMED_PARTS,
    plain=_NAMED_PARTS,
    sign='expand_conv.conv',
    ends={f'layer0.{kind}': (STEM, kind) for kind in ('conv', 'bn')},
    single='conv',
)

MMPRETRAIN_EFFICIENTNET = Naming(
    block=r'layers\.(?P<stage>\d+)\.(?P<block>\d+)\.(?P<part>.+)\.(?P<leaf>\w+)$',
    wide=_NAMED_PARTS,
    plain=_NAMED_PARTS,
    sign='expand_conv.conv',
    ends={
        f'layers.{i}.{kind}': (HEAD if i else STEM, kind)
        for i in range(12)
        for kind in ('conv', 'bn')
    },
)
TORCHVISION_EFFICIENTNET = Naming(
    block=r'features\.(?P<stage>\d+)\.(?P<block>\d+)\.block\.(?P<part>\d\.\w+)\.'
    r'(?P<leaf>\w+)$',
    wide={
        '0.0': ('expand', 'conv'),
        '0.1': ('expand', 'bn'),
        '1.0': ('depthwise', 'conv'),
        '1.1': ('depthwise', 'bn'),
        '2.fc1': ('squeeze', 'reduce'),
        '2.fc2': ('squeeze', 'excite'),
        '3.0': ('project', 'conv'),
        '3.1': ('project', 'bn'),
    },
    plain={
        '0.0': ('depthwise', 'conv'),
        '0.1': ('depthwise', 'bn'),
        '1.fc1': ('squeeze', 'reduce'),
        '1.fc2': ('squeeze', 'excite'),
        '2.0': ('project', 'conv'),
        '2.1': ('project', 'bn'),
    },
    sign='3.0',
    ends={
        f'features.{i}.{n}': (HEAD if i else STEM, kind)
        for i in (0, 8)
        for n, kind in enumerate(('conv', 'bn'))
    },
)
TORCHVISION_V2 = Naming(
    block=r'features\.(?P<stage>\d+)\.conv\.(?P<part>[\d.]+)\.(?P<leaf>[a-z]\w*)$',
    wide={
        '0.0': ('expand', 'conv'),
        '0.1': ('expand', 'bn'),
        '1.0': ('depthwise', 'conv'),
        '1.1': ('depthwise', 'bn'),
        '2': ('project', 'conv'),
        '3': ('project', 'bn'),
    },
    plain={
        '0.0': ('depthwise', 'conv'),
        '0.1': ('depthwise', 'bn'),
        '1': ('project', 'conv'),
        '2': ('project', 'bn'),
    },
    sign='3',
    ends={
        f'features.{i}.{n}': (HEAD if i else STEM, kind)
        for i in (0, 18)
        for n, kind in enumerate(('conv', 'bn'))
    },
)
