"""mmpretrain's nets for small devices, under their own names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...levels import IMAGENET
from ...registry import MODELS
from ...weights.names import mobile as keys
from ..adoption import AdoptedBackbone
from .backbone import model_dict

_SHUFFLE_WIDTHS = (0.5, 1.0, 1.5, 2.0)


@MODELS.register_module()
class ShuffleNetV2(AdoptedBackbone):
    """mmpretrain's ShuffleNetV2 (`arXiv 1807.11164 <https://arxiv.org/abs/1807.11164>`_).

    Levels 0, 1 and 2 are the stages, at strides 8, 16 and 32, with 116, 232 and 464
    channels at width 1.0. Level 3, also at stride 32, is the convolution in front of
    the classifier (1024 channels): it can be had by ``out_indices`` only.

    Args:
        widen_factor: 0.5, 1.0, 1.5 or 2.0.
        out_indices: Levels to return, shallow to deep; all of them if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        in_channels: Channels of the image.
        frozen_stages: -1 none, 0 the stem (``conv1``), n the stem and ``layers.0`` to
            ``layers.{n-1}``, counted as in mmpretrain.
        conv_cfg: Kind of convolution, as mmcv takes it.
        norm_cfg: Kind of normalisation, as mmcv takes it; batch normalisation.
        act_cfg: Kind of activation, as mmcv takes it; ReLU.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether blocks recompute their activations in the backward pass.
        init_cfg: See :class:`Backbone`.

    Raises:
        ImportError: If mmpretrain cannot be imported, with the cause and the cure.
        ValueError: If the width or a level is not there.

    Example:
        >>> ShuffleNetV2(widen_factor=1.0, out_strides=(8, 16, 32)).out_channels
        (116, 232, 464)
    """

    dialects = keys.SHUFFLENET_V2
    preprocess = IMAGENET
    variants = {
        f'shufflenet-v2-{width:g}x': dict(widen_factor=width)
        for width in _SHUFFLE_WIDTHS
    }

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        in_channels: int = 3,
        frozen_stages: int = -1,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        from .families import prepare_named

        if widen_factor not in _SHUFFLE_WIDTHS:
            raise ValueError(
                f'ShuffleNetV2: widen_factor must be one of {_SHUFFLE_WIDTHS}, got '
                f'{widen_factor!r}'
            )
        model = model_dict(
            'ShuffleNetV2',
            widen_factor=widen_factor,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        adoptee = prepare_named(model, out_indices, out_strides, in_channels, with_cp)
        super().__init__(adoptee, frozen_stages, norm_eval, init_cfg)


@MODELS.register_module()
class MobileNetV2(AdoptedBackbone):
    """mmpretrain's MobileNetV2 (`arXiv 1801.04381 <https://arxiv.org/abs/1801.04381>`_).

    Levels 0 to 6 are ``layer1`` to ``layer7``, with 16, 24, 32, 64, 96, 160 and 320
    channels at strides 2, 4, 8, 16, 16, 32 and 32 for width 1.0. Level 7, also at
    stride 32, is the convolution in front of the classifier (1280 channels): it can be
    had by ``out_indices`` only. By stride the deepest other level is meant: 32, 96 and
    320 channels at 8, 16 and 32.

    Args:
        widen_factor: Multiplies the channels of every layer.
        out_indices: Levels to return, shallow to deep; all of them if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        in_channels: Channels of the image.
        frozen_stages: -1 none, 0 the stem (``conv1``), n the stem and ``layer1`` to
            ``layer{n}``, counted as in mmpretrain; 8 includes ``conv2``.
        conv_cfg: Kind of convolution, as mmcv takes it.
        norm_cfg: Kind of normalisation, as mmcv takes it; batch normalisation.
        act_cfg: Kind of activation, as mmcv takes it; ReLU6.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether blocks recompute their activations in the backward pass.
        init_cfg: See :class:`Backbone`.

    Raises:
        ImportError: If mmpretrain cannot be imported, with the cause and the cure.
        ValueError: If the width or a level is not there.
    """

    dialects = keys.MOBILENET_V2
    preprocess = IMAGENET
    variants = {'mobilenet-v2': dict(widen_factor=1.0)}

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        in_channels: int = 3,
        frozen_stages: int = -1,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        from .families import prepare_named

        if type(widen_factor) not in (int, float) or widen_factor <= 0:
            raise ValueError(
                f'MobileNetV2: widen_factor must be a number above 0, got '
                f'{widen_factor!r}: write widen_factor=1.0'
            )
        model = model_dict(
            'MobileNetV2',
            widen_factor=widen_factor,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        adoptee = prepare_named(model, out_indices, out_strides, in_channels, with_cp)
        super().__init__(adoptee, frozen_stages, norm_eval, init_cfg)


@MODELS.register_module()
class MobileNetV3(AdoptedBackbone):
    """mmpretrain's MobileNetV3 (`arXiv 1905.02244 <https://arxiv.org/abs/1905.02244>`_).

    Levels are mmpretrain's layers: 0 the stem, then one per block, and last, at stride
    32, the convolution in front of the classifier, which can be had by ``out_indices``
    only. By stride the deepest block is meant: of ``'small'`` the layers 3, 8 and 11,
    with 24, 48 and 96 channels at 8, 16 and 32; of ``'large'`` 6, 12 and 15, with 40,
    112 and 160.

    Args:
        arch: ``'small'``, ``'small_075'``, ``'small_050'`` or ``'large'``.
        conv_cfg: Kind of convolution, as mmcv takes it.
        norm_cfg: Kind of normalisation, as mmcv takes it; batch normalisation with
            ``eps=0.001, momentum=0.01``.
        out_indices: Levels to return, shallow to deep; all of them if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        in_channels: Channels of the image.
        frozen_stages: -1 none, 0 the stem (``layer0``), n the layers 0 to n, counted as
            in mmpretrain.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether blocks recompute their activations in the backward pass.
        init_cfg: See :class:`Backbone`.

    Raises:
        ImportError: If mmpretrain cannot be imported, with the cause and the cure.
        ValueError: If the arch or a level is not there; all are listed.
    """

    dialects = keys.MOBILENET_V3
    preprocess = IMAGENET
    variants = {
        'mobilenet-v3-small': dict(arch='small'),
        'mobilenet-v3-small-075': dict(arch='small_075'),
        'mobilenet-v3-small-050': dict(arch='small_050'),
        'mobilenet-v3-large': dict(arch='large'),
    }

    def __init__(
        self,
        arch: str = 'small',
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        in_channels: int = 3,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        from .families import prepare_named

        adoptee = prepare_named(
            model_dict('MobileNetV3', arch=arch, conv_cfg=conv_cfg, norm_cfg=norm_cfg),
            out_indices,
            out_strides,
            in_channels,
            with_cp,
        )
        super().__init__(adoptee, frozen_stages, norm_eval, init_cfg)
