"""mmpretrain's nets, imported and built from the dicts of its configs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ...arguments import arguments_of
from ...commands import command
from ...compat.doctor.rules import TESTED
from ...compat.multimodal import (
    TRANSFORMERS,
    installed,
    installed_mmpretrain,
    stumbles_over_transformers,
)
from ...shapes.build import on_default_device, on_meta
from ..inputs import set_in_channels
from ..structure import RefusedError, one_line


def import_zoo() -> ModuleType:
    """Import ``mmpretrain.models.backbones``.

    Raises:
        ImportError: With the cause and the line to write.
    """
    try:
        return import_module('mmpretrain.models.backbones')
    except Exception as error:  # whatever its import raises, TypeError among them
        raise ImportError(_explain(error)) from error


def _explain(error: Exception) -> str:
    name = 'onedl-mmpretrain' if installed('onedl-mmengine') else 'mmpretrain'
    tested = f'  pip install {name}=={TESTED[name]}'
    if find_spec('mmpretrain') is None:
        said = "mmpretrain's nets need mmpretrain, which is not installed"
        return f'{said}: write\n{tested}'
    said = f'{type(error).__name__}: {error}'
    missing = _missing_module(error)
    if missing is not None:
        package = _distribution_of(missing)
        cure = f'  pip install {package}' if package is not None else tested
        return (
            f'Importing mmpretrain failed ({said}). The module {missing} is needed by '
            f'mmpretrain or by a package that it needs, and is not installed: write\n'
            f'{cure}'
        )
    if stumbles_over_transformers():
        return (
            f'Importing mmpretrain failed ({said}). mmpretrain '
            f'{installed_mmpretrain()} cannot be imported where pycocotools and '
            f'transformers >= {TRANSFORMERS} are both installed (found '
            f'{installed("transformers")}) and its multimodal nets are imported. '
            'Import mmdet_backbones before it, or write one of\n'
            f'  pip install "transformers<{TRANSFORMERS}"\n'
            '  pip uninstall -y transformers'
        )
    return (
        f'Importing mmpretrain failed ({said}). {command("doctor")} names '
        f'combinations of packages that do not work; the tested one is\n{tested}'
    )


def _missing_module(error: BaseException | None) -> str | None:
    """Name the module that is not installed, if that is why an import failed."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            top = error.name.partition('.')[0]
            return top if find_spec(top) is None else None
        # transformers raises an error of its own in its place.
        error = error.__cause__
    return None


def _distribution_of(module: str) -> str | None:
    """Name the distribution of a module, as some installed one asks for it."""
    for distribution in distributions():
        for requirement in distribution.requires or ():
            name = re.split(r'[^\w.-]', requirement)[0]
            if re.sub('[-_.]+', '_', name).lower() == module.lower():
                return name
    return None


ZOO = import_zoo()


class Conformer(ZOO.Conformer):  # type: ignore[misc, name-defined]
    """mmpretrain's Conformer with the maps of its convolutions as outputs.

    The class it stands for pools them, for a classifier. Level n is the output of its
    block n, as there; level 0 is the stem.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (N, C, H, W) to one map per level."""
        x = self.auto_pad(self.maxpool(self.act1(self.bn1(self.conv1(x)))))
        tokens = self.trans_patch_conv(x).flatten(2).transpose(1, 2)
        if self.with_cls_token:
            tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1)
        tokens = self.trans_1(tokens)
        maps = [x, self.conv_1(x, out_conv2=False)]
        for number in range(2, max(self.out_indices) + 1):
            x, tokens = getattr(self, f'conv_trans_{number}')(maps[-1], tokens)
            maps.append(x)
        return tuple(maps[index] for index in self.out_indices)


class StemmedShuffleNetV2(ZOO.ShuffleNetV2):  # type: ignore[misc, name-defined]
    """mmpretrain's ShuffleNetV2 with its stem as level -1."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (N, C, H, W) to one map per level."""
        maps = [self.maxpool(self.conv1(x))]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        return tuple(maps[index + 1] for index in self.out_indices)


_IN_PLACE_OF = {'Conformer': Conformer, 'ShuffleNetV2': StemmedShuffleNetV2}

# What a class has to be told so that it gives maps, for images of any size.
_FOR_MAPS: dict[str, Any] = {
    'out_type': 'featmap',
    'gap_before_final_norm': False,
    'reshape_last_feat': True,
    'pad_small_map': True,
    # Gradients through autograd, not written past it by a backward of its own.
    'no_custom_backward': True,
}
_NO_BACKBONES = {
    'TIMMBackbone': "write type='mmdet_backbones.TIMMBackbone', model_name=... instead",
    'DeiT3': 'its blocks never use the second of their two normalisations, so that '
    "published weights give other features. Write type='mmdet_backbones.TIMMBackbone', "
    "model_name='deit3_small_patch16_224' instead",
    'LeNet5': 'it reads grey images of 32 x 32',
    'MlpMixer': 'it gives tokens of images of one size and no feature maps',
    'SparseResNet': 'it runs on masked images, inside the pretraining SparK only',
    'SparseConvNeXt': 'it runs on masked images, inside the pretraining SparK only',
}
# Whose nets have names only.
_NAMES_ONLY = (
    'EfficientNet',
    'EfficientNetV2',
    'HRNet',
    'MobileNetV3',
    'PyramidVig',
    'Vig',
)
# Whose last level is the convolution in front of the classifier, no stage.
_HEAD_LEVEL = (
    'EfficientNet',
    'EfficientNetV2',
    'MobileNetV2',
    'MobileNetV3',
    'ShuffleNetV2',
)


def type_name(given: str | type) -> str:
    """Name the class that ``type`` in a config means."""
    name = given if isinstance(given, str) else given.__name__
    return name.removeprefix('mmpretrain.')


@dataclass(frozen=True, eq=False)
class Spec:
    """What net to build.

    Attributes:
        owner: What messages call the backbone.
        type: Class of ``mmpretrain.models.backbones``.
        arguments: For its constructor, without levels and freezing.
        in_channels: Channels of the image.
    """

    owner: str
    type: str
    arguments: Mapping[str, Any]
    in_channels: int = 3

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def has_head_level(self) -> bool:
        """Whether the last level is the convolution in front of the classifier."""
        return self.type in _HEAD_LEVEL

    @property
    def index_argument(self) -> str | None:
        """Name of the argument that chooses the levels, or None."""
        if self.type == 'HiViT':
            # It goes on from the map it returns: only the last level is right.
            return None
        names = arguments_of(ZOO.__dict__[self.type])[0]
        return next((n for n in ('out_indices', 'out_scales') if n in names), None)

    @property
    def default_indices(self) -> Any:
        """What that argument is if it is left out."""
        known = arguments_of(ZOO.__dict__[self.type])[0]
        return known[str(self.index_argument)].default


def make_spec(owner: str, model: Mapping[str, Any], in_channels: int) -> Spec:
    """Check a dict of an mmpretrain config and complete it.

    Args:
        owner: What messages call the backbone.
        model: ``type`` and arguments.
        in_channels: Channels of the image.

    Raises:
        TypeError: If the class does not take one of the arguments.
        ValueError: If there is no such class, it is no backbone, or an argument has a
            value under which it gives no maps.
    """
    arguments = dict(model)
    name = type_name(arguments.pop('type'))
    if name not in ZOO.__all__:
        near = get_close_matches(name, ZOO.__all__, n=3)
        hint = f': did you mean {" or ".join(near)}?' if near else ''
        raise ValueError(f'{owner}: mmpretrain has no backbone {name!r}{hint}')
    if name in _NO_BACKBONES:
        raise RefusedError(f'{owner} cannot be a backbone: {_NO_BACKBONES[name]}')
    net_class = ZOO.__dict__[name]
    known, _ = arguments_of(net_class)
    unknown = [key for key in arguments if key not in known]
    if unknown:
        raise TypeError(
            f"{owner}: mmpretrain's {name} takes no argument {', '.join(unknown)}. It "
            f'takes {", ".join(known)}'
        )
    problems = [
        f'{key} must be {value!r} for feature maps, got {arguments[key]!r}'
        for key, value in _FOR_MAPS.items()
        if arguments.get(key, value) != value
    ]
    problems += _arch_problems(net_class, arguments)
    if problems:
        raise ValueError(f'{owner}: {"; ".join(problems)}')
    arguments.update({k: v for k, v in _FOR_MAPS.items() if k in known})
    if name == 'PoolFormer':
        # Its default freezes the patch embedding.
        arguments['frozen_stages'] = -1
    return Spec(owner, name, arguments, in_channels)


def _arch_problems(net_class: type, arguments: Mapping[str, Any]) -> list[str]:
    given, (kind, article) = arguments.get('arch'), _custom_arch(net_class.__name__)
    if 'arch' not in arguments or (kind is not None and isinstance(given, kind)):
        return []
    for attribute in ('arch_zoo', 'arch_settings', 'arch_setting'):
        table = getattr(net_class, attribute, None)
        if isinstance(table, Mapping):
            if str(given) in table or str(given).lower() in table:
                return []
            names = ', '.join(map(str, table))
            return [f'arch must be one of {names}{article}, got {given!r}']
    return []


def _custom_arch(net_class: str) -> tuple[Any, str]:
    """What a class takes beside the names of its nets, and how to say so."""
    if net_class in _NAMES_ONLY:
        return None, ''
    if net_class == 'MobileViT':
        return (list, tuple), ' or a list with a list for each layer'
    return Mapping, ' or a dict of its numbers'


def whole(spec: Spec, indices: tuple[int, ...]) -> Mapping[str, Tensor]:
    """Tensors of a net with these levels before anything is dropped, without values."""
    return on_meta(lambda: build(spec, indices)).state_dict()


def build(spec: Spec, indices: Sequence[int] | None) -> nn.Module:
    """Build a net with the levels of these numbers, or of its own choice.

    Raises:
        TypeError: If an argument is of a type that the class does not take.
        ValueError: If the class does not take the arguments.
    """
    # Some classes take entries out of the dicts they are given.
    arguments = deepcopy(dict(spec.arguments))
    if indices is not None and spec.index_argument is not None:
        arguments[spec.index_argument] = list(indices)
    net_class = ZOO.__dict__[spec.type]
    known, _ = arguments_of(net_class)
    net_class = _IN_PLACE_OF.get(spec.type, net_class)
    wide = next((n for n in ('in_channels', 'in_chans') if n in known), None)
    if wide is not None:
        arguments[wide] = spec.in_channels
    try:
        net: nn.Module = on_default_device(lambda: net_class(**arguments))
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{spec.owner}: mmpretrain's {spec.type} cannot be built from "
            f'{dict(spec.arguments)}: {one_line(error)}'
        ) from error
    if wide is None:
        set_in_channels(net, spec.in_channels, spec.owner)
    return net


def maps_of(spec: Spec, outputs: Any) -> list[Tensor]:
    """Return the outputs of a net as a list.

    Raises:
        RefusedError: If they are not maps of four dimensions.
    """
    if not all(isinstance(o, Tensor) and o.dim() == 4 for o in outputs):
        raise RefusedError(
            f'{spec.owner} cannot be a backbone: it gives '
            f'{", ".join(dict.fromkeys(map(_shown, outputs)))} and no feature maps '
            '(N, C, H, W)'
        )
    return list(outputs)


def _shown(output: Any) -> str:
    if isinstance(output, Tensor):
        return f'a tensor of shape {tuple(output.shape)}'
    return 'None' if output is None else f'a {type(output).__name__}'
