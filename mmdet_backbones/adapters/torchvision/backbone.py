"""Any classification net of torchvision, as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...backbones.contract import Backbone
from ...backbones.lora import add_lora, read_lora
from ...levels import FrozenStages, Preprocess, check_frozen_stages
from ...registry import MODELS
from ...shapes.build import on_meta
from ...shapes.structure import kept_stages, part_of
from ...weights.names.libraries import INTO_TORCHVISION


@MODELS.register_module()
class TorchvisionBackbone(Backbone):
    """A classification net of torchvision under the contract of this package.

    torchvision's feature extractor (``torchvision.models.feature_extraction``) cuts
    the net down to what the levels need. It stands under ``body``, as in torchvision's
    own detectors, so their checkpoints load, and so do those of the classification
    nets. Nothing is downloaded; weights come from ``init_cfg``.

    Levels are counted by stride: level 0 is the shallowest, and each is the deepest map
    of its stride, ``layer1`` to ``layer4`` for the strides 4 to 32 of a ResNet. Every
    encoder block of a ViT is a level. ``return_nodes`` gives any other choice.

    Images of any size are taken and sizes of maps are rounded up. For nets that round
    down by themselves the image is padded with zeros at the right and the bottom: to
    multiples of 4 for Swin, 16 for GoogLeNet, the deepest stride for VGG, DenseNet and
    ConvNeXt. AlexNet, SqueezeNet and Inception v3 have convolutions without padding:
    their maps, up to four cells too small, are surrounded with zeros. ViT interpolates
    its position embedding, MaxViT pads its windows.

    Args:
        model_name: As in ``torchvision.models.get_model``, for example ``'vgg16_bn'``.
        return_nodes: Nodes to return, shallow to deep, instead of levels: a list of
            names, or a dict with names as keys, as in ``create_feature_extractor``.
            They become the levels 0, 1, ...
        out_indices: Ascending level numbers, -1 the last. Defaults to all.
        out_strides: Ascending strides instead of ``out_indices``.
        in_channels: Channels of the image.
        frozen_stages: Stages without training: -1 none, 0 the stem, n the stem and
            the first n stages, ``'all'`` the whole net. A stage is what a level has
            and those before it have not. All levels of the net count, whichever are
            returned.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        with_cp: Whether blocks recompute their activations in the backward pass.
        drop_path_rate: Rate of stochastic depth, rising linearly from 0 in the first
            block to this in the last; None keeps the net's default. For ConvNeXt,
            EfficientNet, MaxViT and Swin.
        norm_layer: ``'FrozenBN'`` for batch normalisation of fixed statistics, scale
            and shift; None keeps the net's own layers.
        image_size: Side in pixels that the position embedding of a ViT is made for;
            224 if left out. 384 for ``vit_b_16``, 512 for ``vit_l_16`` and 518 for
            ``vit_h_14`` if the weights are torchvision's ``IMAGENET1K_SWAG_E2E_V1``.
        output_stride: Largest stride; deeper stages are dilated instead of strided. 4,
            8 or 16 for ResNets of 50 layers and more, 16 for MobileNetV3.
        lora: Adapters of low rank that train in place of the net, which stays as it is
            (needs peft), see :class:`~mmdet_backbones.backbones.lora.Lora`. Of MaxViT;
            ViT and Swin never call the layers of their attention.
        init_cfg: See :class:`Backbone`.

    Attributes:
        return_nodes: Node of each level. The values are the names of a dict given as
            ``return_nodes``, and the nodes themselves otherwise.

    Raises:
        TypeError: For an unknown argument, or ``return_nodes`` of another type.
        ValueError: If the model, a level or a node is not there, the nearest ones are
            named; if arguments exclude each other or the net has no use for one.

    Example:
        >>> backbone = TorchvisionBackbone('vgg11_bn', out_strides=(8, 16))
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 512, 8, 12), (1, 512, 4, 6)]
    """

    dialects = INTO_TORCHVISION

    def __init__(
        self,
        model_name: str,
        return_nodes: Sequence[str] | Mapping[str, str] | None = None,
        out_indices: Sequence[int] | None = None,
        out_strides: Sequence[int] | None = None,
        in_channels: int = 3,
        frozen_stages: FrozenStages = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        drop_path_rate: float | None = None,
        norm_layer: str | None = None,
        image_size: int | None = None,
        output_stride: int | None = None,
        lora: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        # torchvision's models are imported when one is built, not with the registry.
        from . import graph, nets, structure

        nets.check_name(model_name)
        owner = f"TorchvisionBackbone('{model_name}')"
        dilation = nets.dilation(model_name, output_stride, owner)
        whole = structure.structure_of(model_name, tuple(dilation.items()))
        levels, features = structure.choose(
            whole, return_nodes, out_indices, out_strides, owner=owner
        )
        super().__init__(levels, frozen_stages, norm_eval, init_cfg)
        self.model_name = model_name
        names = return_nodes if isinstance(return_nodes, Mapping) else {}
        self.return_nodes = {f.node: names.get(f.node, f.node) for f in features}
        self._features = features
        size = structure.size_arguments(whole, image_size, owner)
        net = nets.build(model_name, **size, **dilation)
        nets.adapt(net, in_channels, drop_path_rate, norm_layer, owner)
        nodes = [feature.node for feature in features]
        self.body = graph.extract_with_blocks(net, nodes, with_cp, owner)
        self._multiple = min(whole.multiple, max(self.out_strides))
        stages = list(kept_stages(self.body, whole.stages))
        # Without the stages that no requested level needs.
        while len(stages) > 1 and not stages[-1]:
            stages.pop()
        self._stages = stages
        check_frozen_stages(frozen_stages, len(self._stages) - 1, owner)
        if lora is not None:
            add_lora(self, read_lora(lora, owner), owner, in_channels)
        self.freeze()

    @property
    def preprocess(self) -> Preprocess:  # type: ignore[override]
        """Mean and standard deviation that torchvision's own weights expect."""
        from .nets import preprocess

        return preprocess(self.model_name)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (N, in_channels, H, W) to one (N, C, H / stride, W / stride) per level.

        Sizes are rounded up.
        """
        from .structure import feature_maps

        return feature_maps(self.body, self._features, x, self._multiple)

    @classmethod
    def whole(cls, **arguments: Any) -> Mapping[str, Tensor]:
        """Return the tensors of a model of torchvision, without values."""
        from .nets import build

        net = on_meta(lambda: build(arguments['model_name']))
        return {f'body.{name}': tensor for name, tensor in net.state_dict().items()}

    def uncut(self) -> Mapping[str, Tensor]:
        """Return the same of this model, classifier and all."""
        return self.whole(model_name=self.model_name)

    def stage_modules(self, stage: int) -> Sequence[nn.Module | nn.Parameter]:
        """Parts of one stage that some output needs; 0 is the stem."""
        return [part_of(self.body, name) for name in self._stages[stage]]
