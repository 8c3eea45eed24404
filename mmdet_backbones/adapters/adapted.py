"""A net of another library as a backbone, without a prefix in its names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from ..backbones.contract import Backbone, compute_again
from ..backbones.lora import with_own_adapters
from ..levels import FrozenStages, Level, check_frozen_stages
from ..shapes.structure import blocks_of, kept_stages, part_of
from .inputs import pad_to_multiple
from .structure import SizeRule

# What a module holds and what is called when it is saved or loaded.
_SHARED = (
    '_parameters',
    '_buffers',
    '_non_persistent_buffers_set',
    '_modules',
    '_state_dict_hooks',
    '_state_dict_pre_hooks',
    '_load_state_dict_pre_hooks',
    '_load_state_dict_post_hooks',
)


@dataclass(frozen=True)
class AdaptedNet:
    """A net that is ready to be a backbone.

    Attributes:
        net: Its ``forward`` maps (N, C, H, W) to a sequence of maps.
        levels: The levels to return, shallow to deep.
        picks: Which outputs of ``net`` they are.
        stages: Names of modules and bare parameters by stage, stage 0 is the stem.
            Names of parts that the net does not have are left out.
        sizes: Which images it takes.
        owner: What messages call the backbone.
        uncut: Gives the tensors of the net before anything was dropped of it.
        idle: Parts that no level needs and its class cannot be without.
    """

    net: nn.Module
    levels: tuple[Level, ...]
    picks: tuple[int, ...]
    stages: tuple[tuple[str, ...], ...]
    sizes: SizeRule
    owner: str
    uncut: Callable[[], Mapping[str, Tensor]]
    idle: tuple[str, ...] = ()


def blocks_in(net: nn.Module, stages: Sequence[Sequence[str]]) -> list[nn.Module]:
    """List the blocks of all stages but the stem, for activation checkpointing.

    Args:
        net: That has them.
        stages: As in :class:`AdaptedNet`.
    """
    return [
        block
        for stage in kept_stages(net, stages)[1:]
        for name in stage
        if isinstance(part := part_of(net, name), nn.Module)
        for block in blocks_of(part)
        # A single layer has nothing to recompute but itself.
        if any(True for _ in block.children())
    ]


class AdaptedBackbone(Backbone):
    """Backbone whose parameters are those of a net of another library.

    The net is no submodule. Its parameters, buffers and children stand in this module
    directly, in the very dicts that the net uses: both see one set of tensors,
    whatever replaces or moves them, and names in a ``state_dict`` are the net's own.
    The net's ``forward`` is called, its ``train`` never is.

    Args:
        adapted: The net and what is known about it.
        frozen_stages: See :class:`Backbone`.
        norm_eval: See :class:`Backbone`.
        init_cfg: See :class:`Backbone`.
    """

    # Of outputs; a classifier has one, after its last stage.
    additions: tuple[str, ...] = ('norm[0-9]*.*', 'norm_after_stage[0-9]*.*')
    _net: nn.Module

    def __init__(
        self,
        adapted: AdaptedNet,
        frozen_stages: FrozenStages = -1,
        norm_eval: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        check_frozen_stages(frozen_stages, len(adapted.stages) - 1, adapted.owner)
        super().__init__(adapted.levels, frozen_stages, norm_eval, init_cfg)
        self._share(adapted.net)
        self._picks = adapted.picks
        self._sizes = adapted.sizes
        self._owner = adapted.owner
        self._uncut = adapted.uncut
        self._stages = kept_stages(adapted.net, adapted.stages)
        self._idle = adapted.idle
        self.freeze()

    def _share(self, net: nn.Module) -> None:
        for name in _SHARED:
            setattr(self, name, getattr(net, name))
        self.register_load_state_dict_post_hook(compute_again)
        # Written into checkpoints, for the net's own conversion of old ones.
        self._version: Any = net._version
        # Past nn.Module, which would make it a submodule.
        object.__setattr__(self, '_net', net)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if self.lora is not None:
            with_own_adapters(self, state_dict, prefix)
        given = set(state_dict)
        # Some nets convert old checkpoints here.
        self._net._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        # SwinTransformerV2 deletes the tables that it computes itself, and would miss
        # them in its own state_dict.
        if deleted := given - set(state_dict):
            own = self.state_dict(prefix=prefix)
            state_dict.update({key: own[key] for key in deleted if key in own})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (N, C, H, W) to one (N, C, ceil(H / stride), ceil(W / stride)) per level.

        Raises:
            ValueError: If the net takes images of one size and ``x`` has another.
        """
        height, width = x.shape[-2:]
        self._sizes.check(x, self._owner)
        outputs = self._outputs(pad_to_multiple(x, self._sizes.multiple))
        return tuple(
            outputs[pick][
                ..., : -(-height // level.stride), : -(-width // level.stride)
            ]
            for pick, level in zip(self._picks, self.levels, strict=True)
        )

    def _outputs(self, x: Tensor) -> Sequence[Tensor]:
        """Run the net on images of a size that it takes."""
        return self._net.forward(x)

    def uncut(self) -> Mapping[str, Tensor]:
        """Return the tensors, without values, of the net of all levels."""
        return self._uncut()

    def stage_modules(self, stage: int) -> Sequence[nn.Module | nn.Parameter]:
        """Parts of one stage, 0 is the stem; none for a dropped stage."""
        return [part_of(self._net, name) for name in self._stages[stage]]

    def freeze(self) -> None:
        """Take the frozen stages, and what no output needs, out of training."""
        super().freeze()
        for name in self._idle:
            part_of(self._net, name).requires_grad_(False)

    def train(self, mode: bool = True) -> AdaptedBackbone:
        """Switch the mode; frozen stages and ``norm_eval`` layers stay in eval."""
        super().train(mode)
        # Whatever the mode is, a net that is wholly frozen stays in eval.
        self._net.training = self.training
        return self

    def draw_weights(self) -> None:
        """Draw the weights as the net's own class does."""
        if not isinstance(self._net, BaseModule):
            self._mark_children()
            return
        # The net writes to the record of who changed what.
        self._net._params_init_info = self._params_init_info
        self._net.init_weights()
        del self._net._params_init_info
        self._mark_children()

    def _mark_children(self) -> None:
        # mmengine would draw those layers again that do not remember they are drawn,
        # such as mmcv's ConvModule and the nets inside nets of transformers.
        for module in self.children():
            if not hasattr(module, 'is_init'):
                vars(module)['is_init'] = True

    def init_weights(self) -> None:
        """Draw the weights as the net's own class does, then apply ``init_cfg``.

        Raises:
            PretrainedWeightsError: As :meth:`Backbone.init_weights`.
        """
        try:
            super().init_weights()
        finally:
            for module in self.children():
                # Of a BaseModule it is a property.
                vars(module).pop('is_init', None)
