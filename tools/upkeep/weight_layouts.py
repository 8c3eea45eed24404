"""Read files of every family in every layout and write the table of docs/weights.md.

All tensors are random numbers: of a net that the library of a layout builds itself, or
of timm's net in the layout of its authors or of transformers. A cell says `both ways`
if the numbers come back unchanged.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tests' / 'helpers'))

from author_layouts import LAYOUTS, random_state, same_tables, shared_table

from mmdet_backbones.catalog import find
from mmdet_backbones.errors import PretrainedWeightsError, UserError, run
from mmdet_backbones.files import whole_file
from mmdet_backbones.registry import MODELS
from mmdet_backbones.weights.loading.loader import load_pretrained
from mmdet_backbones.weights.names.dialect import is_computed

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'weights.md'
START, END = '<!-- table of layouts -->', '<!-- end of the table -->'
COLUMNS = ('authors', 'timm', 'torchvision', 'mmpretrain', 'transformers', 'mmdet')
BOTH, READ = 'both ways', 'read'


@dataclass(frozen=True)
class Family:
    """One net in the layouts that it is published in.

    Attributes:
        home: Name in the catalog of the net that takes the weights.
        nets: Names in the catalog of the same net, by layout.
        dialects: Names of a dialect of ``home``, by layout.
        authors: Names of layouts in ``author_layouts``.
    """

    home: str
    nets: Mapping[str, str] = field(default_factory=dict)
    dialects: Mapping[str, str] = field(default_factory=dict)
    authors: tuple[str, ...] = ()


FAMILIES = {
    'ResNet': Family(
        'timm/resnet18',
        dict(torchvision='torchvision/resnet18', mmpretrain='mmpretrain/resnet18',
             mmdet='mmdet/ResNet-18'),
        dict(transformers='ResNet of transformers', authors='detectron2')),
    'ResNet-D': Family(
        'timm/resnet50d',
        dict(mmpretrain='mmpretrain/resnetv1d50', mmdet='mmdet/ResNetV1d-50'),
        dict(authors='ResNet-D of RT-DETR and PaddleDetection')),
    'ResNeXt': Family(
        'timm/resnext50_32x4d',
        dict(torchvision='torchvision/resnext50_32x4d',
             mmpretrain='mmpretrain/resnext50-32x4d', mmdet='mmdet/ResNeXt-50-32x4d')),
    'Res2Net': Family(
        'res2net50_14w_8s',
        dict(timm='timm/res2net50_14w_8s', mmpretrain='mmpretrain/res2net50-w14-s8')),
    'ResNeSt': Family('timm/resnest50d', dict(mmdet='mmdet/ResNeSt-50')),
    'RegNetX': Family(
        'timm/regnetx_004_tv',
        dict(torchvision='torchvision/regnet_x_400mf')),
    'VGG': Family(
        'timm/vgg11_bn',
        dict(torchvision='torchvision/vgg11_bn', mmpretrain='mmpretrain/vgg11bn')),
    'DenseNet': Family(
        'timm/densenet121',
        dict(torchvision='torchvision/densenet121',
             mmpretrain='mmpretrain/densenet121')),
    'HRNet': Family(
        'timm/hrnet_w18',
        dict(mmpretrain='mmpretrain/hrnet-w18', mmdet='mmdet/HRNetV2p-W18')),
    'MobileNetV2': Family(
        'timm/mobilenetv2_100',
        dict(torchvision='torchvision/mobilenet_v2',
             mmpretrain='mmpretrain/mobilenet-v2', mmdet='mmdet/MobileNetV2'),
        dict(authors='MobileNetV2 of tonylins')),
    'MobileNetV3': Family(
        'timm/mobilenetv3_small_100',
        dict(torchvision='torchvision/mobilenet_v3_small',
             mmpretrain='mmpretrain/mobilenet-v3-small')),
    'EfficientNet': Family(
        'timm/efficientnet_b0',
        dict(torchvision='torchvision/efficientnet_b0',
             mmpretrain='mmpretrain/efficientnet-b0', mmdet='mmdet/EfficientNet-b0'),
        dict(authors='efficientnet-pytorch')),
    'ShuffleNetV2': Family(
        'mmpretrain/shufflenet-v2-1x',
        dict(torchvision='torchvision/shufflenet_v2_x1_0')),
    'HGNetV2': Family('timm/hgnetv2_b0', authors=('HGNetV2',)),
    'ConvNeXt': Family(
        'timm/convnext_tiny',
        dict(torchvision='torchvision/convnext_tiny',
             mmpretrain='mmpretrain/convnext-tiny'),
        dict(transformers='ConvNeXt of transformers'),
        ('ConvNeXt', 'DINOv3 ConvNeXt')),
    'ConvNeXt V2': Family(
        'timm/convnextv2_atto',
        dict(mmpretrain='mmpretrain/convnext-v2-atto_fcmae'),
        dict(transformers='ConvNeXt of transformers'),
        ('ConvNeXt V2',)),
    'Swin': Family(
        'timm/swin_tiny_patch4_window7_224',
        dict(torchvision='torchvision/swin_t', mmpretrain='mmpretrain/swin-tiny',
             mmdet='mmdet/Swin-T'),
        dict(authors='Swin of its authors', transformers='Swin of transformers')),
    'Swin V2': Family(
        'timm/swinv2_tiny_window8_256',
        dict(torchvision='torchvision/swin_v2_t',
             mmpretrain='mmpretrain/swinv2-tiny-w8_256px'),
        dict(transformers='Swin of transformers'), ('SimMIM',)),
    'MaxViT': Family(
        'timm/maxvit_tiny_tf_224',
        dict(torchvision='torchvision/maxvit_t'), authors=('MaxViT',)),
    'ViT, MAE, MoCo v3': Family(
        'timm/vit_base_patch16_224',
        dict(torchvision='torchvision/vit_b_16',
             mmpretrain='mmpretrain/vit-base-p16_mae'),
        dict(transformers='ViT of transformers'), ('MAE', 'MoCo v3')),
    'DeiT-III': Family(
        'timm/deit3_small_patch16_224',
        authors=('DeiT-III',)),
    'BEiT, BEiTv2': Family(
        'timm/beit_base_patch16_224',
        dict(mmpretrain='mmpretrain/beit-base-p16_beit-in21k-pre'),
        dict(transformers='ViT of transformers'),
        ('BEiT', 'BEiT of its own training', 'BEiTv2')),
    'EVA': Family('timm/eva_large_patch14_196', authors=('EVA',)),
    'EVA-02': Family(
        'timm/eva02_tiny_patch14_224',
        dict(mmpretrain='mmpretrain/vit-tiny-p14_eva02-pre_in21k'),
        authors=('EVA-02', 'EVA-02 of parts')),
    'DINOv2': Family(
        'timm/vit_small_patch14_dinov2',
        dict(mmpretrain='mmpretrain/vit-small-p14_dinov2-pre'),
        dict(transformers='DINOv2 of transformers'), ('DINOv2', 'DINOv2 in chunks')),
    'DINOv2 with registers': Family(
        'timm/vit_small_patch14_reg4_dinov2',
        dialects=dict(transformers='DINOv2 with registers of transformers'),
        authors=('DINOv2 with registers', 'DINOv2 with registers in chunks')),
    'DINOv3': Family(
        'timm/vit_small_patch16_dinov3',
        dialects=dict(transformers='DINOv3 of transformers'),
        authors=('DINOv3', 'DINOv3 with biases', 'DINOv3 of a training')),
    'SAM': Family(
        'timm/samvit_base_patch16',
        dict(mmpretrain='mmpretrain/vit-base-p16_sam-pre_sa1b-1024px'),
        authors=('SAM',)),
    'CLIP': Family(
        'timm/vit_base_patch32_clip_224',
        dict(mmpretrain='mmpretrain/vit-base-p32_clip-openai-pre'),
        dict(transformers='CLIP or SigLIP of transformers'), ('CLIP',)),
    'SigLIP': Family(
        'timm/vit_base_patch16_siglip_224',
        dialects=dict(transformers='CLIP or SigLIP of transformers'),
        authors=('SigLIP of OpenCLIP',)),
}  # fmt: skip


@dataclass
class Cell:
    """What became of the files of one family in one layout.

    Attributes:
        text: For the table.
        reason: Why a file was refused.
        difference: Largest difference between two numbers that should be the same.
    """

    text: str
    reason: str = ''
    difference: float = 0.0


def build(name: str) -> nn.Module:
    """Build a net with all its levels."""
    entry = find(name)
    net: nn.Module = MODELS.build({**entry.config, **entry.every_level})
    return net


def scrambled(net: nn.Module) -> dict[str, Tensor]:
    """Give every tensor of a net numbers of its own."""
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if value.is_floating_point() and not is_computed(key):
                value.uniform_(0.5, 1.5)
    return {key: value.clone() for key, value in net.state_dict().items()}


def read(name: str, state: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Load a file into a new net and return what the net has then."""
    path = folder / 'net.pth'
    torch.save(dict(state), path)
    net = build(name)
    load_pretrained(net, str(path), allow_random_frozen=True)  # type: ignore[arg-type]
    return net.state_dict()


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Largest difference between the tensors of two nets of one class."""
    keys = [k for k, v in one.items() if v.is_floating_point() and not is_computed(k)]
    return max(float((one[key] - other[key]).abs().max()) for key in keys)


def of_library(family: Family, layout: str, folder: Path) -> Cell:
    """Read the file of a library's own net, and take the way back."""
    name = family.nets[layout]
    theirs = scrambled(build(name))
    if 'eva02' in name:
        # It keeps zeros for the keys, which have no bias.
        for key in [key for key in theirs if key.endswith('qkv.bias')]:
            theirs[key].chunk(3)[1].zero_()
    file = plain(name, theirs)
    try:
        here = read(family.home, file, folder)
    except PretrainedWeightsError as error:
        return Cell('refused', cause(str(error)))
    for written in writings(family.home, here):
        if written.keys() <= file.keys():
            return Cell(BOTH, difference=difference(written, file))
    if layout == 'mmdet':
        return Cell(READ)
    try:
        back = read(name, plain(family.home, here), folder)
    except PretrainedWeightsError:
        return Cell(READ)
    # Normalisation of outputs, which mmpretrain's classes add to the net.
    added = build(name).additions
    common = {k: v for k, v in theirs.items() if not any(fnmatch(k, a) for a in added)}
    return Cell(BOTH, difference=difference(common, back))


def plain(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of a net the names of its library."""
    net = build(name)
    for dialect in getattr(net, 'dialects', ()):
        if dialect.name in ('timm', 'torchvision') and dialect.writes(state):
            return dialect.write(dict(state))
    return dict(state)


def writings(name: str, state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors of a net as they are, and in each dialect that it is written in."""
    yield dict(state)
    for dialect in getattr(build(name), 'dialects', ()):
        if dialect.writes(state):
            # Two families of one library can share what marks their names.
            with suppress(ValueError):
                yield dialect.write(dict(state))


def of_dialect(family: Family, layout: str, folder: Path) -> Cell:
    """Read the file that a dialect of the net writes."""
    net = build(family.home)
    name = family.dialects[layout]
    dialect = next(d for d in net.dialects if d.name == name)  # type: ignore[union-attr]
    state = scrambled(net)
    if dialect.rewrite is not None:
        return Cell(READ)
    back = read(family.home, dialect.write(state), folder)
    return Cell(BOTH, difference=difference(state, back))


def of_authors(family: Family, folder: Path) -> Cell:
    """Read files in the layouts of the authors."""
    worst = 0.0
    for layout in family.authors:
        model, write = LAYOUTS[layout]
        state = random_state(model)
        if write is shared_table:
            state = same_tables(state)
        net = dict(type='mmdet_backbones.TIMMBackbone', model_name=model)
        if any(key.startswith('blocks.') for key in state):
            net['out_indices'] = (1,)
        found = []
        for content in (state, write(state)):
            torch.save(content, folder / 'net.pth')
            backbone = MODELS.build(dict(net))
            load_pretrained(backbone, str(folder / 'net.pth'))
            found.append(backbone.state_dict())
        worst = max(worst, difference(*found))
    return Cell(READ, difference=worst)


def cause(message: str) -> str:
    """The sentence of a refusal that says why."""
    found = re.search(
        r'^(?:Cause: |(?=The file ))(.*?)(?:[:.] [Ww]rite|$)', message, re.M
    )
    assert found is not None, message
    return found[1]


def cell(family: Family, layout: str, folder: Path) -> Cell:
    """Try all files of one family in one layout."""
    if layout == family.home.split('/')[0]:
        return Cell(BOTH)
    if layout in family.nets:
        return of_library(family, layout, folder)
    if layout in family.dialects:
        return of_dialect(family, layout, folder)
    if layout == 'authors' and family.authors:
        return of_authors(family, folder)
    return Cell('')


def row(title: str, cells: Mapping[str, Cell]) -> str:
    """Write one line of the table."""
    texts = ' | '.join(cells[layout].text for layout in COLUMNS)
    return f'| {title} | `{FAMILIES[title].home}` | {texts} |'


def table() -> tuple[str, float]:
    """Try every file.

    Returns:
        The table with its notes in Markdown, and the largest difference between two
        numbers that should be the same.
    """
    lines = [f'| family | net | {" | ".join(COLUMNS)} |', '|---' * 8 + '|']
    notes, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for title, family in FAMILIES.items():
            cells = {c: cell(family, c, Path(folder)) for c in COLUMNS}
            for layout, found in cells.items():
                print(f'{title:24}{layout:14}{found.text:12}{found.difference:.1e} '
                      f'{found.reason}', flush=True)  # fmt: skip
                if found.reason:
                    notes.append(f'- {title}, {layout}: {found.reason}')
            worst = max(worst, *(found.difference for found in cells.values()))
            lines.append(row(title, cells))
    return '\n'.join([*lines, '', 'What is refused, and the words:', '', *notes]), worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true',
                        help='write nothing, fail if the table is old')  # fmt: skip
    args = parser.parse_args()
    logging.disable(logging.INFO)
    text = PAGE.read_text()
    found, worst = table()
    before, _, rest = text.partition(START)
    new = f'{before}{START}\n{found}\n{END}{rest.partition(END)[2]}'
    print(f'largest difference {worst:.1e}')
    if args.check and new != text:
        raise UserError('docs/weights.md is old: python tools/upkeep/weight_layouts.py')
    with whole_file(PAGE) as partial:
        Path(partial).write_text(new)


if __name__ == '__main__':
    sys.exit(run(main))
