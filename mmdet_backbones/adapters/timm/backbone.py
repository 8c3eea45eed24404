"""Any timm net that gives feature maps, as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from ...backbones.checkpointing import checkpoint_blocks
from ...backbones.contract import Backbone
from ...backbones.lora import add_lora, read_lora
from ...errors import ArgumentError, ArgumentTypeError
from ...levels import (
    FrozenStages,
    Level,
    Preprocess,
    check_frozen_stages,
    select_levels,
)
from ...registry import MODELS
from ...shapes.structure import blocks_of, kept_stages, part_of, replace_part
from ...weights.names.dialect import Dialect
from ...weights.names.libraries import INTO_TIMM
from ..windows import use_windows

if TYPE_CHECKING:
    from .nets import Options


# Smaller ones do what they are told in some of timm's families only.
_OUTPUT_STRIDES = (8, 16, 32)


@MODELS.register_module()
class TIMMBackbone(Backbone):
    """A timm net under the contract of this package.

    The net stands under ``timm_model``, as in mmpretrain's ``TIMMBackbone``, so the
    checkpoints of detectors trained with that class load. Building it downloads
    nothing: weights are read by ``init_weights``, when a training starts.

    Images of any size are taken wherever the net can do that: ViT, EVA, Swin, DINOv2
    and DINOv3 among them. Their sides are padded to whole patches or windows and the
    maps cut to ceil(side / stride). The others, such as BEiT, take ``img_size`` only.

    Levels whose maps do not have that size, as those of nets with unpadded
    convolutions, are not offered.

    Args:
        model_name: As in ``timm.create_model``, for example ``'convnext_tiny'``.
        out_indices: Ascending level numbers as timm counts them, -1 the last. Defaults
            to all.
        out_strides: Ascending strides instead of ``out_indices``.
        pretrained: Start training from timm's own weights of ``model_name``, with its
            tag if it has one: short for ``init_cfg=dict(type='Pretrained',
            checkpoint='timm://<model_name>')``.
        checkpoint_path: Short for ``init_cfg=dict(type='Pretrained',
            checkpoint=checkpoint_path)``; empty for none.
        in_channels: Channels of the input.
        frozen_stages: Stages without training: -1 none, 0 the stem, n the stem and
            the first n stages, ``'all'`` the whole net. A stage is what a level adds to
            the level before it.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether blocks recompute their activations in the backward pass.
        drop_path_rate: Rate of stochastic depth; None keeps the net's default.
        norm_layer: Kind of normalisation, as timm's class takes it (a name such as
            ``'groupnorm'``, or a class) or by mmcv's names ``'BN'``, ``'SyncBN'``,
            ``'GN'``, ``'LN'`` and ``'IN'``, or ``'FrozenBN'``: batch normalisation of
            fixed statistics, scale and shift.
        output_stride: Largest stride, 8, 16 or 32; deeper stages are dilated instead
            of strided.
        img_size: Height and width, for nets that take images of one size only.
        window_size: For plain ViTs (ViT, DeiT, DINOv2, DINOv3, EVA-02): attention
            within windows of so many patches along a side, or of (rows, columns), 14
            in ViTDet. Weights stay as they are. See
            :func:`~mmdet_backbones.adapters.windows.attend_in_windows` for what becomes
            of positions, of class tokens and of windows at the border.
        global_blocks: Blocks that see the whole image all the same: their numbers from
            0, or how many of them are spread evenly; 4 if left out, as in ViTDet.
        out_image: Return the image before the levels, as one of stride 1, for a neck
            that looks at it:
            :class:`~mmdet_backbones.necks.spatial_adapter.SpatialAdapter`.
        lora: Adapters of low rank that train in place of the net, which stays as it is
            (needs peft): ``dict(r=8, alpha=16)``, with ``dropout`` and ``targets``, the
            ends of the names of linear layers, see
            :class:`~mmdet_backbones.backbones.lora.Lora`.
        init_cfg: See :class:`Backbone`.

    Raises:
        TypeError: If the net does not take one of the arguments.
        ValueError: If the model or a level is not there, all levels are listed; if
            the net gives no feature maps, or would ignore an argument.

    Example:
        >>> backbone = TIMMBackbone('resnet18', out_strides=(8, 16, 32))
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        pretrained: bool = False,
        checkpoint_path: str = '',
        in_channels: int = 3,
        frozen_stages: FrozenStages = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        drop_path_rate: float | None = None,
        norm_layer: str | type[nn.Module] | None = None,
        output_stride: int | None = None,
        img_size: int | Sequence[int] | None = None,
        window_size: int | Sequence[int] | None = None,
        global_blocks: int | Sequence[int] | None = None,
        out_image: bool = False,
        lora: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        # timm is imported when one of its nets is built, not with the registry.
        from . import nets as timm_nets
        from .structure import lost_levels, sizes_near, structure_of
        from .windows import WINDOWED, plain_vit_parts

        timm_nets.check_name(model_name)
        owner = f"TIMMBackbone('{model_name}')"
        init_cfg = _weights(owner, model_name, pretrained, checkpoint_path, init_cfg)
        options = _options(
            in_chans=None if in_channels == 3 else in_channels,
            drop_path_rate=drop_path_rate,
            norm_layer=norm_layer,
            output_stride=_stride(owner, output_stride),
            img_size=_size(owner, img_size),
        )
        found = structure_of(model_name, options, in_channels)
        try:
            levels = select_levels(found.levels, out_indices, out_strides, owner=owner)
        except ValueError as error:
            lost = lost_levels(model_name, options, in_channels, len(found.levels))
            if lost is None:
                raise
            raise lost from error
        image = (Level.image(in_channels),) if out_image else ()
        super().__init__((*image, *levels), frozen_stages, norm_eval, init_cfg)
        self.out_image = out_image
        self.model_name = model_name
        self._sizes = found.sizes
        self._options = (*options, *self._sizes.arguments)
        self._sizes_near = partial(sizes_near, model_name, options, in_channels)
        indices = tuple(level.index for level in levels)
        self.timm_model = timm_nets.build(model_name, self._options, indices)
        self._drop_tail(options, in_channels, indices)
        if window_size is not None or global_blocks is not None:
            parts = plain_vit_parts(self.timm_model)
            use_windows(parts, window_size, global_blocks, owner, WINDOWED)
        # Of all levels, whichever are requested; a deep one may be missing here.
        self._stages = kept_stages(self.timm_model, found.stages)
        if with_cp:
            self._recompute(owner)
        check_frozen_stages(frozen_stages, len(self._stages) - 1, owner)
        if lora is not None:
            add_lora(self, read_lora(lora, owner), owner, in_channels)
        self.freeze()

    @property
    def dialects(self) -> tuple[Dialect, ...]:  # type: ignore[override]
        """How files of other programs name the parameters of this net."""
        # Not kept: their functions cannot be pickled.
        from .nets import official_layouts

        return (*INTO_TIMM, *official_layouts(self.model_name, self._options))

    @property
    def preprocess(self) -> Preprocess:  # type: ignore[override]
        """Mean and standard deviation that timm's own weights were trained with."""
        cfg = cast(Any, self.timm_model).pretrained_cfg
        mean, std = (tuple(255 * v for v in cfg[key]) for key in ('mean', 'std'))
        return Preprocess(mean, std, 'rgb')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (N, in_channels, H, W) to one (N, C, H, W) tensor per level.

        With ``out_image`` the first one is the image itself.

        Raises:
            ValueError: If the net takes images of one size and ``x`` has another.
        """
        from .nets import features

        self._sizes.check(x, f"TIMMBackbone('{self.model_name}')", self._other_size)
        strides = [level.stride for level in self.levels if not level.is_image]
        maps = features(self.timm_model, x, self._sizes.multiple, strides)
        return (x, *maps) if self.out_image else tuple(maps)

    @classmethod
    def whole(cls, **arguments: Any) -> Mapping[str, Tensor]:
        """Return the tensors of a model as timm itself builds it, without values."""
        from .nets import whole

        net = whole(arguments['model_name'])
        return {f'timm_model.{name}': tensor for name, tensor in net.items()}

    def uncut(self) -> Mapping[str, Tensor]:
        """Return the same of this model, classifier and all."""
        return self.whole(model_name=self.model_name)

    def stage_modules(self, stage: int) -> Sequence[nn.Module | nn.Parameter]:
        """Parts that level ``stage - 1`` adds to the one before; 0 is the stem."""
        return [part_of(self.timm_model, name) for name in self._stages[stage]]

    def freeze(self) -> None:
        """Take the frozen stages, and what no output needs, out of training."""
        super().freeze()
        for name in self._idle:
            part_of(self.timm_model, name).requires_grad_(False)

    def _drop_tail(
        self, options: Options, in_channels: int, indices: tuple[int, ...]
    ) -> None:
        """Remove what no requested level depends on; it would get no gradient."""
        from .structure import useless_parts

        removable, self._idle = useless_parts(
            self.model_name, options, in_channels, indices
        )
        for name in removable:
            replace_part(self.timm_model, name, nn.Identity())

    def _other_size(self, size: tuple[int, int]) -> str:
        found = self._sizes_near(size)
        if found == [size]:
            return f', or write img_size={size} if all images have that size'
        shown = ' or '.join(map(str, found))
        return f'; it can be built for {shown}: write that as img_size' if found else ''

    def _recompute(self, owner: str) -> None:
        blocks = [
            block
            for stage in range(1, len(self._stages))
            for part in self.stage_modules(stage)
            if isinstance(part, nn.Module)
            for block in blocks_of(part)
        ]
        if not blocks:
            raise ValueError(f'{owner} has no blocks to recompute: leave out with_cp')
        checkpoint_blocks(blocks)


def _options(**arguments: Any) -> Options:
    return tuple(
        (name, value) for name, value in arguments.items() if value is not None
    )


def _size(owner: str, img_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if img_size is None:
        return None
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        # With the channels in front, as timm's input_size has them.
        size = sides[1:] if len(sides) == 3 else (640, 640)
        raise ArgumentError(
            f'{owner}: img_size must be a height and a width in pixels, got '
            f'{img_size!r}: write img_size={size}',
            dict(img_size=size),
        )
    return sides


def _stride(owner: str, output_stride: int | None) -> int | None:
    if output_stride in (None, *_OUTPUT_STRIDES):
        return output_stride
    raise ArgumentError(
        f'{owner}: output_stride must be one of {_OUTPUT_STRIDES}, got '
        f'{output_stride!r}: write output_stride=16 or leave it out',
        dict(output_stride=None),
    )


def _weights(
    owner: str,
    model_name: str,
    pretrained: bool,
    checkpoint_path: str,
    init_cfg: dict | list[dict] | None,
) -> dict | list[dict] | None:
    """Turn the short forms into an ``init_cfg``."""
    if not isinstance(pretrained, bool):
        path = pretrained if isinstance(pretrained, str) else '<path or address>'
        raise ArgumentTypeError(
            f"{owner}: pretrained must be True for timm's own weights or False, got "
            f'{pretrained!r}: write checkpoint_path={path!r}',
            dict(pretrained=False, checkpoint_path=path) if path == pretrained else {},
        )
    given = dict(
        pretrained=pretrained, checkpoint_path=checkpoint_path, init_cfg=init_cfg
    )
    given = {name: value for name, value in given.items() if value}
    if len(given) > 1:
        shown = ' and '.join(f'{name}={value!r}' for name, value in given.items())
        *others, _ = given
        empty = dict(pretrained=False, checkpoint_path='')
        raise ArgumentError(
            f'{owner} takes its weights from one source, got {shown}: keep one of them',
            {name: empty[name] for name in others},
        )
    if pretrained:
        return dict(type='Pretrained', checkpoint=f'timm://{model_name}')
    if checkpoint_path:
        return dict(type='Pretrained', checkpoint=checkpoint_path)
    return init_cfg
