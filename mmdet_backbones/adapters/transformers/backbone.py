"""Any net that AutoBackbone of transformers has, as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...backbones.lora import add_lora, read_lora
from ...levels import FrozenStages
from ...registry import MODELS
from ...weights.names.dialect import Dialect
from ..adapted import AdaptedBackbone
from ..windows import use_windows


@MODELS.register_module()
class TransformersBackbone(AdaptedBackbone):
    """A net of transformers' AutoBackbone under the contract of this package.

    The parameters have the names that the class of the installed transformers gives
    them, without a prefix. Weights are those of the hub, ``checkpoint=
    'hf://facebook/dinov2-small'`` or the path of a ``model.safetensors`` or
    ``pytorch_model.bin``, whose names may be older ones. Building downloads nothing.

    Levels are the class's own, ``stem``, ``stage1``, ...; every block of a plain ViT is
    one. Those that are the image itself, as the stem of DINOv3's ConvNeXt, are left
    out. Images of any size are taken wherever the net can do that, padded with zeros at
    the right and the bottom to whole patches or windows. The others, such as ViTPose,
    take ``image_size`` of their config only.

    Args:
        model: What net it is: the hub's name of a published one
            (``'facebook/dinov3-convnext-tiny-pretrain-lvd1689m'``), as far as this
            package knows it or it is in the hub's cache on this machine; the path of a
            folder with a ``config.json``; the name of an architecture (``'resnet'``)
            for its default config; or a dict of what stands in a ``config.json``,
            ``dict(model_type='convnext', depths=[3, 3, 27, 3])``.
        out_indices: Ascending level numbers as transformers counts them, -1 the last.
            Defaults to all.
        out_strides: Ascending strides instead of ``out_indices``. Of the levels that
            share a stride the deepest one has it.
        in_channels: Channels of the image.
        frozen_stages: Stages without training: -1 none, 0 the stem, n the stem and the
            first n stages, ``'all'`` the whole net. A stage is what a level adds to the
            level before it.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether blocks recompute their activations in the backward pass.
        drop_path_rate: Rate of stochastic depth; None keeps that of the config.
        window_size: For plain ViTs (DINOv2, DINOv3):
            attention within windows of so many patches, as in :class:`TIMMBackbone`.
        global_blocks: Blocks that see the whole image all the same, as there.
        lora: Adapters of low rank that train in place of the net, which stays as it is
            (needs peft), see :class:`~mmdet_backbones.backbones.lora.Lora`.
        init_cfg: See :class:`Backbone`.

    Attributes:
        preprocess: From ``preprocessor_config.json`` beside the weights on this
            machine, else what the published weights of the architecture expect; None
            where neither is known.

    Raises:
        ImportError: If transformers cannot be imported, with what to type.
        TypeError: If the config knows no such entry, or ``model`` is of another type.
        ValueError: If there is no such net or level, or it gives no maps.

    Example:
        >>> backbone = TransformersBackbone('microsoft/resnet-18', out_strides=(8, 16))
        >>> backbone.out_channels
        (128, 256)
    """

    # A class puts one in front of each output that it is asked for.
    additions: tuple[str, ...] = ('hidden_states_norms.*',)

    def __init__(
        self,
        model: str | Mapping[str, Any],
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        in_channels: int = 3,
        frozen_stages: FrozenStages = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        drop_path_rate: float | None = None,
        window_size: int | Sequence[int] | None = None,
        global_blocks: int | Sequence[int] | None = None,
        lora: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        name = _name(model)
        # transformers is imported when one of its nets is built, not with the registry.
        from .local_files import read_preprocess
        from .nets import make_spec
        from .prepare import prepare
        from .published import FAMILIES
        from .windows import WINDOWED, plain_vit_parts

        owner = f"TransformersBackbone('{name}')"
        spec = make_spec(owner, model, in_channels, drop_path_rate)
        adapted = prepare(spec, out_indices, out_strides, with_cp)
        if window_size is not None or global_blocks is not None:
            parts = plain_vit_parts(adapted.net)
            use_windows(parts, window_size, global_blocks, owner, WINDOWED)
        super().__init__(adapted, frozen_stages, norm_eval, init_cfg)
        self._spec = spec
        if lora is not None:
            add_lora(self, read_lora(lora, owner), owner, in_channels)
            self.freeze()
        beside = read_preprocess(model) if isinstance(model, str) else None
        self.preprocess = beside or FAMILIES.get(spec.kind)

    @property
    def dialects(self) -> tuple[Dialect, ...]:  # type: ignore[override]
        """How the files of the hub name the parameters of this net."""
        # Not kept: the function cannot be pickled.
        from .layouts import official_layout

        return (official_layout(self._spec),)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        from .nets import whole

        # What a class collects is noted when one is built, which reading does not do.
        whole(self._spec, (0,))

    def _outputs(self, x: Tensor) -> Sequence[Tensor]:
        from .nets import maps_of

        return maps_of(self._net, x)


def _name(model: object) -> str:
    """Name a net in messages."""
    if isinstance(model, str):
        return model
    if isinstance(model, Mapping) and isinstance(model.get('model_type'), str):
        return model['model_type']
    raise TypeError(
        f'TransformersBackbone: model must be a name, a path or a dict with '
        f"model_type, got {model!r}: write model='microsoft/resnet-50' or "
        "model=dict(model_type='resnet', depths=[3, 4, 6, 3])"
    )
