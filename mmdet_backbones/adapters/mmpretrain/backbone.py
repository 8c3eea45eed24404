"""Any net of mmpretrain that gives feature maps, as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...backbones.lora import add_lora, read_lora
from ...errors import ArgumentError
from ...levels import ALL, FrozenStages
from ...registry import MODELS
from ...weights.names.libraries import INTO_MMPRETRAIN
from ..adapted import AdaptedBackbone

_OUTSIDE = (
    'out_indices',
    'out_scales',
    'in_channels',
    'in_chans',
    'frozen_stages',
    'norm_eval',
    'with_cp',
    'lora',
    'init_cfg',
)
# How many more stages than here a class freezes for one number: the stem comes as the
# first stage, or together with it.
_FREEZES_MORE = {
    **dict.fromkeys(('EfficientNet', 'EfficientNetV2'), -1),
    **dict.fromkeys(('CSPDarkNet', 'CSPResNet', 'CSPResNeXt', 'DaViT', 'HorNet'), 1),
    **dict.fromkeys(('SwinTransformer', 'SwinTransformerV2', 'VAN'), 1),
}


@MODELS.register_module()
class MMPretrainBackbone(AdaptedBackbone):
    """A net of mmpretrain under the contract of this package.

    The parameters have the names that mmpretrain's class gives them, without a prefix,
    so the checkpoints of classifiers and of detectors that were trained with that class
    load. Outputs that a class gives after pooling, or as tokens, are asked for as maps
    (``out_type='featmap'``, ``gap_before_final_norm=False``); of Conformer they are the
    maps of its convolutions.

    Images of any size are taken wherever the net can do that, padded with zeros at the
    right and the bottom where it needs whole patches or windows. The others, such as
    TinyViT, LeViT and BEiT, take ``img_size`` only.

    Args:
        model: ``type`` and arguments as in a config of mmpretrain, for example
            ``dict(type='EfficientNet', arch='b0')``. Levels, freezing and weights are
            arguments of the backbone. Nets of ``strides`` and ``dilations`` are dilated
            here: ``dict(type='ResNet', depth=50, strides=(1, 2, 2, 1), dilations=(1, 1,
            1, 2))`` ends at stride 16.
        out_indices: Ascending level numbers as mmpretrain's class counts them, -1 the
            last. Defaults to all.
        out_strides: Ascending strides instead of ``out_indices``. Of the levels that
            share a stride the deepest one has it, except for the convolution in front
            of the classifier of EfficientNet, MobileNet and ShuffleNet.
        in_channels: Channels of the image.
        frozen_stages: Stages without training: -1 none, 0 the stem, n the stem and the
            first n stages, ``'all'`` the whole net. A stage is what a level adds to the
            level before it. Of every class it is counted so. Of mmpretrain's own,
            EfficientNet and EfficientNetV2 count one more, their 1 is the stem and
            their 0 nothing; CSPDarkNet, CSPResNet, CSPResNeXt, DaViT, HorNet, both
            Swins and VAN count one less, their 0 is the stem and the first stage.
            ConvNeXt, DenseNet and EdgeNeXt freeze nothing for 0, MobileViT and VGG
            never the stem. PoolFormer and RIFormer count each step between stages too.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether blocks recompute their activations in the backward pass. So do
            ``memory_efficient`` and ``use_checkpoint`` in ``model``.
        lora: Adapters of low rank that train in place of the net, which stays as it is
            (needs peft), see :class:`~mmdet_backbones.backbones.lora.Lora`.
        init_cfg: See :class:`Backbone`.

    Raises:
        ImportError: If mmpretrain cannot be imported, with the cause and the cure.
        TypeError: If mmpretrain's class does not take an argument.
        ValueError: If the class or a level is not there, or the net gives no maps.

    Example:
        >>> model = dict(type='ResNet', depth=18)
        >>> MMPretrainBackbone(model, out_strides=(8, 16, 32)).out_channels
        (128, 256, 512)
    """

    dialects = INTO_MMPRETRAIN

    def __init__(
        self,
        model: Mapping[str, Any],
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        in_channels: int = 3,
        frozen_stages: FrozenStages = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        lora: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        _check_model(model)
        # mmpretrain is imported when one of its nets is built, not with the registry.
        from .nets import type_name
        from .prepare import prepare

        adapted = prepare(
            f"MMPretrainBackbone('{type_name(model['type'])}')",
            model,
            out_indices,
            out_strides,
            in_channels,
            with_cp,
        )
        super().__init__(adapted, frozen_stages, norm_eval, init_cfg)
        if lora is not None:
            add_lora(self, read_lora(lora, adapted.owner), adapted.owner, in_channels)
            self.freeze()


def model_dict(net: str, **arguments: Any) -> dict[str, Any]:
    """Leave out what is None, for which mmpretrain has a default of its own."""
    return dict(
        type=net,
        **{
            name: value
            for name, value in arguments.items()
            if value is not None or name == 'arch'
        },
    )


def _check_model(model: object) -> None:
    example = "model=dict(type='EfficientNet', arch='b0')"
    if not isinstance(model, Mapping) or not isinstance(model.get('type'), (str, type)):
        raise TypeError(
            f'MMPretrainBackbone: model must be a dict with type, got {model!r}: write '
            f'{example}'
        )
    misplaced = [name for name in _OUTSIDE if name in model]
    if misplaced:
        beside = _beside(misplaced, model)
        inside = {k: v for k, v in model.items() if k not in misplaced}
        written = ', '.join(f'{name}={value!r}' for name, value in beside.items())
        raise ArgumentError(
            f'MMPretrainBackbone: {", ".join(misplaced)} cannot stand inside model: '
            f'these belong to the backbone. Write dict(type=..., {written}, {example})',
            {**beside, 'model': inside},
        )


def _beside(names: Sequence[str], model: Mapping[str, Any]) -> dict[str, Any]:
    ours = {'out_scales': 'out_indices', 'in_chans': 'in_channels'}
    found = {ours.get(name, name): model[name] for name in names}
    kind = str(getattr(model['type'], '__name__', model['type']))
    more = _FREEZES_MORE.get(kind.removeprefix('mmpretrain.'), 0)
    if found.get('frozen_stages', ALL) != ALL and found['frozen_stages'] >= 0:
        found['frozen_stages'] += more
    return found
