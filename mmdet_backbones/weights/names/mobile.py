"""Key names of MobileNetV2, MobileNetV3, EfficientNet and ShuffleNetV2.

Sources of the first three agree on the layers and on nothing else: one counts the
blocks of a stage, the other those of the whole net; one names a layer, the other counts
it, with or without those that are not there. A naming is read into :class:`Layer` and
written from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .dialect import Dialect, Renumber, backwards

_STEM, _HEAD = -1, 1000
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

    @property
    def is_end(self) -> bool:
        """Whether it stands before or after the blocks."""
        return self.stage in (_STEM, _HEAD)

    @property
    def second(self) -> int:
        """1 for the second of its two: the normalisation, or what a squeeze excites."""
        return int(self.kind in ('bn', 'excite'))


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


Spell = Callable[[Layer, Where], str]
Names = Mapping[str, tuple[str, str]]


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
    wide: Names
    plain: Names
    sign: str
    ends: Mapping[str, tuple[int, str]]
    single: str | None = None

    def read(self, keys: Collection[str]) -> dict[str, Layer]:
        """Say which layer each key means; others are left out."""
        blocks: dict[tuple[int, int], dict[str, re.Match[str]]] = {}
        for key in keys:
            if found := re.match(self.block, key):
                numbers = found.groupdict(default='0')
                place = int(numbers['stage']), int(numbers.get('block', 0))
                blocks.setdefault(place, {})[key] = found
        layers: dict[str, Layer] = {}
        for place, block in blocks.items():
            layers |= self._read_block(place, block)
        # What follows such a convolution belongs to the classifier.
        ended = any(layer.stage == _HEAD for layer in layers.values())
        return layers | self._read_ends(keys, with_head=not ended)

    def _read_block(
        self, place: tuple[int, int], block: Mapping[str, re.Match[str]]
    ) -> dict[str, Layer]:
        parts = {found['part'] for found in block.values()}
        if self.single in parts:
            return {
                key: Layer(
                    _HEAD,
                    0,
                    'project',
                    'conv' if found['part'] == self.single else 'bn',
                    found['leaf'],
                )
                for key, found in block.items()
            }
        names = self.wide if self.sign in parts else self.plain
        return {
            key: Layer(*place, *names[found['part']], found['leaf'])
            for key, found in block.items()
            if found['part'] in names
        }

    def _read_ends(self, keys: Collection[str], with_head: bool) -> dict[str, Layer]:
        layers = {}
        for key in keys:
            name, _, leaf = key.rpartition('.')
            stage, kind = self.ends.get(name, (_HEAD, ''))
            if kind and (stage == _STEM or with_head):
                layers[key] = Layer(stage, 0, 'project', kind, leaf)
        return layers


def _renumber(naming: Naming, spell: Spell) -> Renumber:
    """Lead from the names of one naming to those that ``spell`` writes."""

    def rename(keys: Collection[str]) -> dict[str, str]:
        layers = naming.read(keys)
        parts: dict[tuple[int, int], set[str]] = {}
        for layer in layers.values():
            if not layer.is_end:
                parts.setdefault((layer.stage, layer.block), set()).add(layer.part)
        blocks = sorted(parts)
        stages = sorted({stage for stage, _ in blocks})

        def where(layer: Layer) -> Where:
            if layer.stage == _STEM:
                return Where(-1, -1, 0, True)
            if layer.stage == _HEAD:
                return Where(len(blocks), len(stages), 0, True)
            place = (layer.stage, layer.block)
            here = [part for part in _ORDER if part in parts[place]]
            number = here.index(layer.part)
            stage = stages.index(layer.stage)
            return Where(blocks.index(place), stage, number, layer.part == here[-1])

        return {key: spell(layer, where(layer)) for key, layer in layers.items()}

    return rename


# How names are read: each part has a convolution and its normalisation, a squeeze two
# convolutions.


def _parts(parts: str, names: str) -> Names:
    kinds = {'squeeze': ('reduce', 'excite')}
    layers = [(p, kind) for p in parts.split() for kind in kinds.get(p, ('conv', 'bn'))]
    return dict(zip(names.split(), layers, strict=True))


def _ends(stem: str, head: str) -> dict[str, tuple[int, str]]:
    """Lay the kinds in turn over the names before the blocks and after them."""
    return {
        name: (stage, ('conv', 'bn')[i % 2])
        for stage, names in ((_STEM, stem), (_HEAD, head))
        for i, name in enumerate(names.split())
    }


_TIMM = Naming(
    block=r'blocks\.(?P<stage>\d+)\.(?P<block>\d+)\.(?P<part>.+)\.(?P<leaf>\w+)$',
    wide=_parts(
        'expand depthwise squeeze project',
        'conv_pw bn1 conv_dw bn2 se.conv_reduce se.conv_expand conv_pwl bn3',
    ),
    plain=_parts(
        'depthwise squeeze project',
        'conv_dw bn1 se.conv_reduce se.conv_expand conv_pw bn2',
    ),
    sign='conv_pwl',
    ends=_ends('conv_stem bn1', 'conv_head bn2'),
    single='conv',
)
_NAMED_PARTS = _parts(
    'expand depthwise squeeze project',
    'expand_conv.conv expand_conv.bn depthwise_conv.conv depthwise_conv.bn '
    'se.conv1.conv se.conv2.conv linear_conv.conv linear_conv.bn',
)
_MMPRETRAIN_V2 = Naming(
    block=r'layer(?P<stage>\d+)\.(?P<block>\d+)\.conv\.(?P<part>\d\.\w+)\.(?P<leaf>\w+)$',
    wide=_parts('expand depthwise project', '0.conv 0.bn 1.conv 1.bn 2.conv 2.bn'),
    plain=_parts('depthwise project', '0.conv 0.bn 1.conv 1.bn'),
    sign='2.conv',
    ends=_ends('conv1.conv conv1.bn', 'conv2.conv conv2.bn'),
)
_MMPRETRAIN_V3 = Naming(
    block=r'layer(?P<stage>\d+)\.(?P<part>.+)\.(?P<leaf>\w+)$',
    wide=_NAMED_PARTS,
    plain=_NAMED_PARTS,
    sign='expand_conv.conv',
    ends=_ends('layer0.conv layer0.bn', ''),
    single='conv',
)
_MMPRETRAIN_EFFICIENTNET = Naming(
    block=r'layers\.(?P<stage>\d+)\.(?P<block>\d+)\.(?P<part>.+)\.(?P<leaf>\w+)$',
    wide=_NAMED_PARTS,
    plain=_NAMED_PARTS,
    sign='expand_conv.conv',
    ends=_ends(
        'layers.0.conv layers.0.bn',
        ' '.join(f'layers.{i}.conv layers.{i}.bn' for i in range(1, 12)),
    ),
)
_TORCHVISION_EFFICIENTNET = Naming(
    block=r'features\.(?P<stage>\d+)\.(?P<block>\d+)\.block\.(?P<part>\d\.\w+)\.'
    r'(?P<leaf>\w+)$',
    wide=_parts(
        'expand depthwise squeeze project', '0.0 0.1 1.0 1.1 2.fc1 2.fc2 3.0 3.1'
    ),
    plain=_parts('depthwise squeeze project', '0.0 0.1 1.fc1 1.fc2 2.0 2.1'),
    sign='3.0',
    ends=_ends('features.0.0 features.0.1', 'features.8.0 features.8.1'),
)
_TORCHVISION_V2 = Naming(
    block=r'features\.(?P<stage>\d+)\.conv\.(?P<part>[\d.]+)\.(?P<leaf>[a-z]\w*)$',
    wide=_parts('expand depthwise project', '0.0 0.1 1.0 1.1 2 3'),
    plain=_parts('depthwise project', '0.0 0.1 1 2'),
    sign='3',
    ends=_ends('features.0.0 features.0.1', 'features.18.0 features.18.1'),
)

# How names are written.


def _efficientnet_pytorch(layer: Layer, where: Where) -> str:
    if layer.is_end:
        ends = {_STEM: ('_conv_stem', '_bn0'), _HEAD: ('_conv_head', '_bn1')}
        return f'{ends[layer.stage][layer.second]}.{layer.leaf}'
    names = {
        'expand': ('_expand_conv', '_bn0'),
        'depthwise': ('_depthwise_conv', '_bn1'),
        'squeeze': ('_se_reduce', '_se_expand'),
        'project': ('_project_conv', '_bn2'),
    }
    return f'_blocks.{where.block}.{names[layer.part][layer.second]}.{layer.leaf}'


def _torchvision_v2(layer: Layer, where: Where) -> str:
    second = int(layer.kind == 'bn')  # it has no squeeze
    root = f'features.{where.block + 1}'
    if layer.is_end:
        return f'{root}.{second}.{layer.leaf}'
    number = f'{where.part}.{second}'
    if where.last:
        number = f'{where.part + second}'
    return f'{root}.conv.{number}.{layer.leaf}'


def _first_v2(layer: Layer, where: Where) -> str:
    """Write a name of the first port of MobileNetV2 to PyTorch, by tonylins."""
    second = int(layer.kind == 'bn')  # it has no squeeze
    root = f'features.{where.block + 1}'
    if layer.is_end:
        return f'{root}.{second}.{layer.leaf}'
    return f'{root}.conv.{3 * where.part + second}.{layer.leaf}'


def _torchvision_block(root: str, layer: Layer, where: Where) -> str:
    name = f'fc{layer.second + 1}' if layer.part == 'squeeze' else f'{layer.second}'
    inner = '' if layer.is_end else f'.block.{where.part}'
    return f'{root}{inner}.{name}.{layer.leaf}'


def _torchvision_v3(layer: Layer, where: Where) -> str:
    return _torchvision_block(f'features.{where.block + 1}', layer, where)


def _torchvision_efficientnet(layer: Layer, where: Where) -> str:
    inner = '' if layer.is_end else f'.{layer.block}'
    return _torchvision_block(f'features.{where.stage + 1}{inner}', layer, where)


def _mmpretrain_v2(layer: Layer, where: Where) -> str:
    root = f'layer{where.stage + 1}.{layer.block}.conv.{where.part}'
    if layer.is_end:
        root = 'conv1' if layer.stage == _STEM else 'conv2'
    return f'{root}.{layer.kind}.{layer.leaf}'


def _mmpretrain_v3(layer: Layer, where: Where) -> str:
    root = f'layer{where.block + 1}'
    if layer.is_end:
        return f'{root}.{layer.kind}.{layer.leaf}'
    if layer.part == 'squeeze':
        return f'{root}.se.conv{layer.second + 1}.conv.{layer.leaf}'
    part = 'linear' if layer.part == 'project' else layer.part
    return f'{root}.{part}_conv.{layer.kind}.{layer.leaf}'


class Writer(NamedTuple):
    """A source whose names can be written.

    Attributes:
        name: See :class:`Dialect`, like all but ``spell``.
        marker: Of its checkpoints.
        spell: Writes the name of a layer.
        older: Pairs that bring names of older files up to date.
    """

    name: str
    marker: str
    spell: Spell
    older: tuple[tuple[str, str], ...] = ()

    def of(self, naming: Naming, heads: str = r'(?:classifier|fc|head)\.') -> Dialect:
        """Return the table that leads from a naming to this source."""
        return Dialect(
            self.name,
            self.marker,
            renumber=_renumber(naming, self.spell),
            heads=heads,
            older=self.older,
        )


_TO_EFFICIENTNET_PYTORCH = Writer(
    'efficientnet-pytorch', r'_conv_stem\.', _efficientnet_pytorch
)
_TO_TORCHVISION_V2 = Writer(
    'MobileNetV2 of torchvision', r'features\.1\.conv\.0\.0\.', _torchvision_v2
)
_TO_FIRST_V2 = Writer(
    'MobileNetV2 of tonylins',
    r'features\.1\.conv\.0\.weight$',
    _first_v2,
    # At first the last convolution stood apart.
    older=((r'^conv\.', 'features.18.'),),
)
_TO_TORCHVISION_V3 = Writer(
    'MobileNetV3 of torchvision', r'features\.1\.block\.0\.0\.', _torchvision_v3
)
_TO_TORCHVISION_EFFICIENTNET = Writer(
    'EfficientNet of torchvision',
    r'features\.1\.0\.block\.0\.0\.',
    _torchvision_efficientnet,
)
_TO_MMPRETRAIN_V2 = Writer(
    'MobileNetV2 of mmpretrain', r'layer1\.0\.conv\.0\.conv\.', _mmpretrain_v2
)
_TO_MMPRETRAIN_V3 = Writer(
    'MobileNetV3 of mmpretrain', r'layer1\.depthwise_conv\.', _mmpretrain_v3
)

_TIMM_TO_EFFICIENTNET_PYTORCH = _TO_EFFICIENTNET_PYTORCH.of(
    _TIMM, r'_(?:conv_head|bn1|fc)\.'
)
_TIMM_TO_TORCHVISION_V2 = _TO_TORCHVISION_V2.of(_TIMM, r'(?:classifier|features\.18)\.')
_TIMM_TO_TORCHVISION_V3 = _TO_TORCHVISION_V3.of(_TIMM)
_TIMM_TO_TORCHVISION_EFFICIENTNET = _TO_TORCHVISION_EFFICIENTNET.of(
    _TIMM, r'(?:classifier|features\.8)\.'
)
_TIMM_TO_MMPRETRAIN_V2 = _TO_MMPRETRAIN_V2.of(_TIMM, r'(?:head|conv2)\.')
_TIMM_TO_MMPRETRAIN_V3 = _TO_MMPRETRAIN_V3.of(_TIMM)
_MMPRETRAIN_TO_TORCHVISION_V2 = _TO_TORCHVISION_V2.of(_MMPRETRAIN_V2)
_MMPRETRAIN_TO_TORCHVISION_V3 = _TO_TORCHVISION_V3.of(_MMPRETRAIN_V3)
_MMPRETRAIN_TO_EFFICIENTNET_PYTORCH = _TO_EFFICIENTNET_PYTORCH.of(
    _MMPRETRAIN_EFFICIENTNET, r'_fc\.'
)
_TORCHVISION_TO_EFFICIENTNET_PYTORCH = _TO_EFFICIENTNET_PYTORCH.of(
    _TORCHVISION_EFFICIENTNET, r'_fc\.'
)
_SHUFFLENET_MMPRETRAIN_TO_TORCHVISION = Dialect(
    'ShuffleNetV2 of torchvision',
    marker=r'stage2\.0\.branch1\.0\.',
    rules=(
        *(
            (rf'\.{branch}\.{i}\.{kind}\.', f'.{branch}.{first + offset}.')
            for branch, firsts in (('branch1', (0, 2)), ('branch2', (0, 3, 5)))
            for i, first in enumerate(firsts)
            for offset, kind in enumerate(('conv', 'bn'))
        ),
        *((rf'^layers\.{i}\.(\d)', rf'stage{i + 2}.\1') for i in range(3)),
        (r'^(conv1|layers\.3)\.conv\.', r'\1.0.'),
        (r'^(conv1|layers\.3)\.bn\.', r'\1.1.'),
        (r'^layers\.3\.', 'conv5.'),
    ),
)

_EFFICIENTNET_OF_MMPRETRAIN = (
    _MMPRETRAIN_TO_EFFICIENTNET_PYTORCH,
    'EfficientNet of mmpretrain',
    r'layers\.1\.0\.depthwise_conv\.',
)
# Of timm's nets the last convolution stands before the pooling or after it.
_KEYS_OF_TIMM = (r'conv_stem\.', r'(?:conv_head|bn2|classifier)\.')

# Which checkpoints go into the nets of each library.
INTO_TIMM = (
    _TIMM_TO_EFFICIENTNET_PYTORCH,
    _TIMM_TO_TORCHVISION_V2,
    _TO_FIRST_V2.of(_TIMM, r'(?:classifier|conv|features\.18)\.'),
    _TIMM_TO_TORCHVISION_V3,
    _TIMM_TO_TORCHVISION_EFFICIENTNET,
    _TIMM_TO_MMPRETRAIN_V2,
    _TIMM_TO_MMPRETRAIN_V3,
    _TIMM_TO_EFFICIENTNET_PYTORCH.meet(*_EFFICIENTNET_OF_MMPRETRAIN),
)
INTO_TORCHVISION = (
    _TO_FIRST_V2.of(_TORCHVISION_V2),
    *(
        backwards(table, f'{net} of timm', *_KEYS_OF_TIMM)
        for table, net in (
            (_TIMM_TO_TORCHVISION_V2, 'MobileNetV2'),
            (_TIMM_TO_TORCHVISION_V3, 'MobileNetV3'),
            (_TIMM_TO_TORCHVISION_EFFICIENTNET, 'EfficientNet'),
        )
    ),
    *(
        backwards(table, f'{net} of mmpretrain', marker)
        for table, net, marker in (
            (_MMPRETRAIN_TO_TORCHVISION_V2, 'MobileNetV2', _TO_MMPRETRAIN_V2.marker),
            (_MMPRETRAIN_TO_TORCHVISION_V3, 'MobileNetV3', _TO_MMPRETRAIN_V3.marker),
            (
                _SHUFFLENET_MMPRETRAIN_TO_TORCHVISION,
                'ShuffleNetV2',
                r'layers\.0\.0\.branch1\.0\.conv\.',
            ),
        )
    ),
    _TORCHVISION_TO_EFFICIENTNET_PYTORCH,
    _TORCHVISION_TO_EFFICIENTNET_PYTORCH.meet(*_EFFICIENTNET_OF_MMPRETRAIN),
)
SHUFFLENET_V2 = (_SHUFFLENET_MMPRETRAIN_TO_TORCHVISION,)
MOBILENET_V2 = (
    _MMPRETRAIN_TO_TORCHVISION_V2,
    _TO_FIRST_V2.of(_MMPRETRAIN_V2),
    backwards(_TIMM_TO_MMPRETRAIN_V2, 'MobileNetV2 of timm', *_KEYS_OF_TIMM),
)
MOBILENET_V3 = (
    _MMPRETRAIN_TO_TORCHVISION_V3,
    backwards(_TIMM_TO_MMPRETRAIN_V3, 'MobileNetV3 of timm', *_KEYS_OF_TIMM),
)
_EFFICIENTNET = (
    _MMPRETRAIN_TO_EFFICIENTNET_PYTORCH,
    _MMPRETRAIN_TO_EFFICIENTNET_PYTORCH.meet(
        _TIMM_TO_EFFICIENTNET_PYTORCH, 'EfficientNet of timm', *_KEYS_OF_TIMM
    ),
    _MMPRETRAIN_TO_EFFICIENTNET_PYTORCH.meet(
        _TORCHVISION_TO_EFFICIENTNET_PYTORCH,
        'EfficientNet of torchvision',
        _TO_TORCHVISION_EFFICIENTNET.marker,
    ),
)
INTO_MMPRETRAIN = (*SHUFFLENET_V2, *MOBILENET_V2, *MOBILENET_V3, *_EFFICIENTNET)
