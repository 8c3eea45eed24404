"""mmpretrain's nets that have a class of their own here, under its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...levels import IMAGENET, FrozenStages
from ...registry import MODELS
from ...weights.names import mobile, swin_convnext
from ..adapted import AdaptedBackbone
from .backbone import model_dict

_SHUFFLE_WIDTHS = (0.5, 1.0, 1.5, 2.0)
_LAYER_NORM: dict[str, Any] = dict(type='LN')


@MODELS.register_module()
class ShuffleNetV2(AdaptedBackbone):
    """mmpretrain's ShuffleNetV2 (`arXiv 1807.11164 <https://arxiv.org/abs/1807.11164>`_).

    Levels 0, 1 and 2 are the stages, at strides 8, 16 and 32, with 116, 232 and 464
    channels at width 1.0. Level 3, also at stride 32, is the convolution in front of
    the classifier (1024 channels): it can be had by ``out_indices`` only, and the stem
    (24 channels at stride 4) by ``out_strides`` only.

    Args:
        widen_factor: 0.5, 1.0, 1.5 or 2.0.
        out_indices: Levels to return, shallow to deep, -1 the last; all if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        in_channels: Channels of the image.
        frozen_stages: -1 none, 0 the stem (``conv1``), n the stem and ``layers.0`` to
            ``layers.{n-1}``, counted as in mmpretrain; ``'all'`` the whole net.
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

    dialects = mobile.SHUFFLENET_V2
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
        frozen_stages: FrozenStages = -1,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        from .prepare import prepare_named

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
        adapted = prepare_named(model, out_indices, out_strides, in_channels, with_cp)
        super().__init__(adapted, frozen_stages, norm_eval, init_cfg)


@MODELS.register_module()
class MobileNetV2(AdaptedBackbone):
    """mmpretrain's MobileNetV2 (`arXiv 1801.04381 <https://arxiv.org/abs/1801.04381>`_).

    Levels 0 to 6 are ``layer1`` to ``layer7``, with 16, 24, 32, 64, 96, 160 and 320
    channels at strides 2, 4, 8, 16, 16, 32 and 32 for width 1.0. Level 7, also at
    stride 32, is the convolution in front of the classifier (1280 channels): it can be
    had by ``out_indices`` only. By stride the deepest other level is meant: 32, 96 and
    320 channels at 8, 16 and 32.

    Args:
        widen_factor: Multiplies the channels of every layer.
        out_indices: Levels to return, shallow to deep, -1 the last; all if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        in_channels: Channels of the image.
        frozen_stages: -1 none, 0 the stem (``conv1``), n the stem and ``layer1`` to
            ``layer{n}``, counted as in mmpretrain; 8 includes ``conv2``, ``'all'`` is
            the whole net.
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

    dialects = mobile.MOBILENET_V2
    preprocess = IMAGENET
    variants = {'mobilenet-v2': dict(widen_factor=1.0)}

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        in_channels: int = 3,
        frozen_stages: FrozenStages = -1,
        conv_cfg: dict[str, Any] | None = None,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        from .prepare import prepare_named

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
        adapted = prepare_named(model, out_indices, out_strides, in_channels, with_cp)
        super().__init__(adapted, frozen_stages, norm_eval, init_cfg)


@MODELS.register_module()
class MobileNetV3(AdaptedBackbone):
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
        out_indices: Levels to return, shallow to deep, -1 the last; all if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        in_channels: Channels of the image.
        frozen_stages: -1 none, 0 the stem (``layer0``), n the layers 0 to n, counted as
            in mmpretrain; ``'all'`` the whole net.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether blocks recompute their activations in the backward pass.
        init_cfg: See :class:`Backbone`.

    Raises:
        ImportError: If mmpretrain cannot be imported, with the cause and the cure.
        ValueError: If the arch or a level is not there; all are listed.
    """

    dialects = mobile.MOBILENET_V3
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
        frozen_stages: FrozenStages = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        from .prepare import prepare_named

        adapted = prepare_named(
            model_dict('MobileNetV3', arch=arch, conv_cfg=conv_cfg, norm_cfg=norm_cfg),
            out_indices,
            out_strides,
            in_channels,
            with_cp,
        )
        super().__init__(adapted, frozen_stages, norm_eval, init_cfg)


@MODELS.register_module()
class SwinTransformer(AdaptedBackbone):
    """mmpretrain's Swin (`arXiv 2103.14030 <https://arxiv.org/abs/2103.14030>`_).

    Levels 0 to 3 are the stages before their downsampling, normalised, at strides 4, 8,
    16 and 32, with 96, 192, 384 and 768 channels for ``'tiny'``. Images have any size:
    maps smaller than a window are padded to one.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or ``'large'``, or a dict of
            ``embed_dims``, ``depths`` and ``num_heads``.
        img_size: Side in pixels that the absolute position embedding is made for.
        patch_size: Side of a patch in pixels, the stride of level 0.
        in_channels: Channels of the image.
        window_size: Height and width of the windows, in cells.
        drop_rate: Dropout rate after the patch embedding.
        drop_path_rate: Rate of stochastic depth in the last block.
        out_indices: Levels to return, shallow to deep, -1 the last; all if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        use_abs_pos_embed: Add an absolute position embedding, resized to the image.
        interpolate_mode: How it is resized, ``'bicubic'`` or ``'bilinear'``.
        with_cp: Whether blocks recompute their activations in the backward pass.
        frozen_stages: -1 none, 0 the stem (``patch_embed``), n the stem and
            ``stages.0`` to ``stages.{n-1}`` with their norms. mmpretrain's class counts
            one stage less: its 0 is 1 here. ``'all'`` is the whole net.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        norm_cfg: Kind of normalisation of the outputs, as mmcv takes it; None for none.
        stage_cfgs: Further arguments of the stages, one dict for all or one for each.
        patch_cfg: Further arguments of the patch embedding.
        init_cfg: See :class:`Backbone`.

    Raises:
        ImportError: If mmpretrain cannot be imported, with the cause and the cure.
        ValueError: If the arch or a level is not there; all are listed.

    Example:
        >>> SwinTransformer(arch='tiny', out_strides=(8, 16, 32)).out_channels
        (192, 384, 768)
    """

    dialects = swin_convnext.SWIN
    preprocess = IMAGENET
    variants = {
        f'swin-{arch}': dict(arch=arch) for arch in ('tiny', 'small', 'base', 'large')
    }

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'tiny',
        img_size: int | Sequence[int] = 224,
        patch_size: int = 4,
        in_channels: int = 3,
        window_size: int = 7,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        use_abs_pos_embed: bool = False,
        interpolate_mode: str = 'bicubic',
        with_cp: bool = False,
        frozen_stages: FrozenStages = -1,
        norm_eval: bool = False,
        norm_cfg: dict[str, Any] | None = _LAYER_NORM,
        stage_cfgs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        patch_cfg: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        from .prepare import prepare_named

        model = model_dict(
            'SwinTransformer',
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            window_size=window_size,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            use_abs_pos_embed=use_abs_pos_embed,
            interpolate_mode=interpolate_mode,
            stage_cfgs=stage_cfgs,
            patch_cfg=patch_cfg,
        )
        # None is a choice here, for outputs without normalisation.
        model['norm_cfg'] = norm_cfg
        adapted = prepare_named(model, out_indices, out_strides, in_channels, with_cp)
        super().__init__(adapted, frozen_stages, norm_eval, init_cfg)

    @property
    def arch_settings(self) -> Mapping[str, Any]:
        """Embedding dimensions, depths and heads, as in mmpretrain's class."""
        return self._net.arch_settings  # type: ignore[return-value]


@MODELS.register_module()
class ConvNeXt(AdaptedBackbone):
    """mmpretrain's ConvNeXt (`arXiv 2201.03545 <https://arxiv.org/abs/2201.03545>`_).

    Levels 0 to 3 are the stages, normalised, at strides 4, 8, 16 and 32, with 96, 192,
    384 and 768 channels for ``'tiny'``. Images have any size: they are padded with
    zeros at the right and the bottom to multiples of 32.

    Args:
        arch: ``'atto'``, ``'femto'``, ``'pico'``, ``'nano'``, ``'tiny'``, ``'small'``,
            ``'base'``, ``'large'``, ``'xlarge'`` or ``'huge'``, or a dict of ``depths``
            and ``channels``.
        in_channels: Channels of the image.
        stem_patch_size: Side of a patch in pixels, the stride of level 0.
        norm_cfg: Kind of normalisation; ``dict(type='LN2d', eps=1e-6)``.
        act_cfg: Kind of activation, as mmcv takes it; GELU.
        linear_pw_conv: Linear layers as 1x1 convolutions, as the authors have it.
        use_grn: Global response normalisation, as in ConvNeXt V2.
        drop_path_rate: Rate of stochastic depth in the last block.
        layer_scale_init_value: Start of the layer scale; 0 for none, as in V2.
        out_indices: Levels to return, shallow to deep, -1 the last; all if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        frozen_stages: -1 none, 0 the stem (``downsample_layers.0``), n the stem and the
            first n stages with their norms, ``'all'`` the whole net. mmpretrain's class
            freezes nothing for 0.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether blocks recompute their activations in the backward pass.
        init_cfg: See :class:`Backbone`.

    Raises:
        ImportError: If mmpretrain cannot be imported, with the cause and the cure.
        ValueError: If the arch or a level is not there; all are listed.
    """

    dialects = swin_convnext.CONVNEXT
    preprocess = IMAGENET
    variants = {
        f'convnext-{arch}': dict(arch=arch)
        for arch in (
            'atto',
            'femto',
            'pico',
            'nano',
            'tiny',
            'small',
            'base',
            'large',
            'xlarge',
            'huge',
        )
    }

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'tiny',
        in_channels: int = 3,
        stem_patch_size: int = 4,
        norm_cfg: dict[str, Any] | None = None,
        act_cfg: dict[str, Any] | None = None,
        linear_pw_conv: bool = True,
        use_grn: bool = False,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        frozen_stages: FrozenStages = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        from .prepare import prepare_named

        model = model_dict(
            'ConvNeXt',
            arch=arch,
            stem_patch_size=stem_patch_size,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            linear_pw_conv=linear_pw_conv,
            use_grn=use_grn,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value,
        )
        adapted = prepare_named(model, out_indices, out_strides, in_channels, with_cp)
        super().__init__(adapted, frozen_stages, norm_eval, init_cfg)
