"""mmpretrain's Swin and ConvNeXt, under their own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...levels import IMAGENET
from ...registry import MODELS
from ...weights.names import swin_convnext_vit as keys
from ..adoption import AdoptedBackbone
from .backbone import model_dict

_LAYER_NORM: dict[str, Any] = dict(type='LN')


@MODELS.register_module()
class SwinTransformer(AdoptedBackbone):
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
        out_indices: Levels to return, shallow to deep; all of them if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        use_abs_pos_embed: Add an absolute position embedding, resized to the image.
        interpolate_mode: How it is resized, ``'bicubic'`` or ``'bilinear'``.
        with_cp: Whether blocks recompute their activations in the backward pass.
        frozen_stages: -1 none, 0 the stem (``patch_embed``), n the stem and
            ``stages.0`` to ``stages.{n-1}`` with their norms. mmpretrain's class counts
            one stage less: its 0 is 1 here.
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

    dialects = keys.SWIN
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
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: dict[str, Any] | None = _LAYER_NORM,
        stage_cfgs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        patch_cfg: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        from .families import prepare_named

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
        adoptee = prepare_named(model, out_indices, out_strides, in_channels, with_cp)
        super().__init__(adoptee, frozen_stages, norm_eval, init_cfg)


@MODELS.register_module()
class ConvNeXt(AdoptedBackbone):
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
        out_indices: Levels to return, shallow to deep; all of them if left out.
        out_strides: Strides to return, instead of ``out_indices``.
        frozen_stages: -1 none, 0 the stem (``downsample_layers.0``), n the stem and the
            first n stages with their norms. mmpretrain's class freezes nothing for 0.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether blocks recompute their activations in the backward pass.
        init_cfg: See :class:`Backbone`.

    Raises:
        ImportError: If mmpretrain cannot be imported, with the cause and the cure.
        ValueError: If the arch or a level is not there; all are listed.
    """

    dialects = keys.CONVNEXT
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
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        from .families import prepare_named

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
        adoptee = prepare_named(model, out_indices, out_strides, in_channels, with_cp)
        super().__init__(adoptee, frozen_stages, norm_eval, init_cfg)
