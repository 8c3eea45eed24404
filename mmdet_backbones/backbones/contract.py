"""What a backbone is: the base class and the rules that every family obeys."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..compat.batch_norm import is_batch_norm
from ..levels import (
    ALL,
    IMAGENET,
    FrozenStages,
    Level,
    Preprocess,
    check_frozen_stages,
    describe_levels,
    select_levels,
)
from ..shapes.build import on_meta
from ..weights.loading.init_cfg import split_init_cfg
from ..weights.loading.loader import load_pretrained
from ..weights.loading.report import LoadReport
from ..weights.loading.unchecked import require_all_of
from ..weights.names.dialect import Dialect
from .lora import Lora, bare, is_adapter, reset_adapters, with_own_adapters
from .map_cache import MapCache

# A family of one's own imports all it needs from here.
__all__ = [
    'IMAGENET',
    'Backbone',
    'FrozenStages',
    'Level',
    'Preprocess',
    'check_frozen_stages',
    'describe_levels',
    'select_levels',
]


class Backbone(BaseModule):
    """Base class of every backbone: levels, freezing and pretrained weights.

    A family builds its modules in ``__init__``, names them by stage in
    :meth:`stage_modules` and calls :meth:`freeze` last, so that
    DistributedDataParallel sees which parameters never get a gradient.

    Args:
        levels: The levels that ``forward`` returns, shallow to deep.
        frozen_stages: Stages without training: -1 none, 0 the stem, n the stem
            and the first n stages. ``'all'`` is the whole net: it stays in eval mode
            and runs without gradients, of an image that needs one too.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        init_cfg: As in mmengine. ``dict(type='Pretrained')`` also takes
            ``min_coverage``, ``allow_missing`` and others, see
            :func:`~mmdet_backbones.weights.load_pretrained`.

    Attributes:
        levels: Index, channels and stride of each output.
        lora: What adapters its layers have, or None for none.
        map_cache: Where the maps of a wholly frozen net are kept, or None, see
            :class:`~mmdet_backbones.engine.cached_maps.CachedMapsHook`.
        load_report: What the last loading of pretrained weights did, or None.
        reads_weights: Whether :meth:`init_weights` reads pretrained weights. False
            when a training goes on from a checkpoint that holds all weights, see
            :class:`~mmdet_backbones.engine.hooks.PretrainedReportHook`.
        preprocess: What the family's usual weights expect of an image, or None.
        variants: Constructor arguments of the family's published nets, by name.
        additions: Patterns (``fnmatch``) of modules that no file of the plain net has,
            see :class:`~mmdet_backbones.weights.loading.target.Target`.
    """

    variants: Mapping[str, dict[str, Any]] = {}
    additions: tuple[str, ...] = ()
    dialects: tuple[Dialect, ...] = ()
    preprocess: Preprocess | None = None

    def __init__(
        self,
        levels: Sequence[Level],
        frozen_stages: FrozenStages = -1,
        norm_eval: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.init_cfg: dict | list[dict] | None
        self.levels = tuple(levels)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.lora: Lora | None = None
        self.map_cache: MapCache | None = None
        self.load_report: LoadReport | None = None
        self.reads_weights = True
        self.register_load_state_dict_post_hook(compute_again)

    @property
    def out_indices(self) -> tuple[int, ...]:
        """Level numbers of the outputs."""
        return tuple(level.index for level in self.levels)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Strides of the outputs."""
        return tuple(level.stride for level in self.levels)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the outputs, what a neck takes as ``in_channels``."""
        return tuple(level.channels for level in self.levels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (N, in_channels, H, W) to one (N, C, H, W) tensor per level."""
        raise NotImplementedError

    def stage_modules(self, stage: int) -> Sequence[nn.Module | nn.Parameter]:
        """Modules and bare parameters of one stage; stage 0 is the stem."""
        raise NotImplementedError

    @classmethod
    def whole(cls, **arguments: Any) -> Mapping[str, Tensor]:
        """Return the tensors, without values, of a net with all that its files have."""
        return on_meta(lambda: cls(**arguments)).state_dict()

    def uncut(self) -> Mapping[str, Tensor]:
        """Return the same of this net, before what no output needs was dropped."""
        return {}

    def built_stages(self) -> list[Sequence[nn.Module | nn.Parameter]]:
        """Parts of every stage that is built, the stem first."""
        stages: list[Sequence[nn.Module | nn.Parameter]] = []
        # Level i is at most stage i + 1; what no level needs is empty or not there.
        for number in range(max(self.out_indices) + 2):
            try:
                stages.append(self.stage_modules(number))
            except (IndexError, AttributeError):
                break
        while stages and not stages[-1]:
            stages.pop()
        return stages

    @property
    def wholly_frozen(self) -> bool:
        """Whether nothing trains, by ``frozen_stages='all'``."""
        return self.frozen_stages == ALL

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Run ``forward``, without gradients if the net is wholly frozen."""
        run = super().__call__
        if not self.wholly_frozen:
            return run(*args, **kwargs)
        with torch.no_grad():
            if self.map_cache is not None:
                return self.map_cache.maps(args[0] if args else kwargs['x'], run)
            return run(*args, **kwargs)

    def frozen_parts(self) -> Iterator[nn.Module | nn.Parameter]:
        """Parts that ``frozen_stages`` takes out of training."""
        if self.frozen_stages == ALL:
            # What belongs to no stage too, such as the normalisation of an output.
            yield self
            return
        for stage in range(self.frozen_stages + 1):
            yield from self.stage_modules(stage)

    def freeze(self) -> None:
        """Take the frozen stages out of training: no gradients, eval mode.

        With adapters, all else is without gradients too.
        """
        if self.lora is not None:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(is_adapter(name))
        for part in self.frozen_parts():
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def _apply(self, *args: Any, **kwargs: Any) -> Backbone:
        super()._apply(*args, **kwargs)
        compute_again(self)
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A tensor with a history of gradients cannot be copied.
        compute_again(self)
        return super().__getstate__()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Loaded by itself, a net is asked by its own name, and torch has its rules. On
        # the meta device nothing is lost. A checkpoint of heads alone may come later.
        if self.lora is not None:
            with_own_adapters(self, state_dict, prefix)
        alone = not prefix or next(self.parameters()).is_meta
        inside = {
            name.removeprefix(prefix): value
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
        if not alone and (inside or self.load_report is None):
            require_all_of(self, inside)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def train(self, mode: bool = True) -> Backbone:
        """Switch the mode; frozen stages and ``norm_eval`` layers stay in eval."""
        super().train(mode)
        if mode:
            self.freeze()
            # Statistics of a net whose weights stay as they are stay with them.
            if self.norm_eval or self.lora is not None:
                for module in self.modules():
                    if is_batch_norm(module):
                        module.eval()
        return self

    def as_in(self, names: Collection[str]) -> AbstractContextManager[None]:
        """Be, for a while, the net that a file of these names is of."""
        without = self.lora is not None and not any(map(is_adapter, names))
        return bare(self) if without else nullcontext()

    def draw_weights(self) -> None:
        """Draw new weights, on which ``init_cfg`` goes; they stay as they were built.

        Called by :meth:`init_weights`. Layers that ``init_cfg`` does not name, or its
        checkpoint does not cover, keep these.
        """

    def init_weights(self) -> None:
        """Initialise the weights as ``init_cfg`` says, pretrained ones last.

        Whoever calls it on a whole model, or on the backbone alone, has mmengine log
        what changed each parameter.

        Raises:
            CheckpointError: If pretrained weights cannot be read.
            PretrainedWeightsError: If pretrained weights are not those of the
                backbone.
        """
        if self.is_init:  # type: ignore[has-type]
            return
        if not hasattr(self, '_params_init_info'):
            self._init_within_a_model()
            return
        self.draw_weights()
        pretrained, others = split_init_cfg(self.init_cfg)
        given = self.init_cfg
        self.init_cfg = others
        try:
            super().init_weights()
        finally:
            self.init_cfg = given
        if self.lora is not None:
            # An initialiser of linear layers takes them for what they are.
            reset_adapters(self)
        # If that fails, another call must not take random values for loaded ones.
        self.is_init = False
        for cfg in pretrained if self.reads_weights else ():
            self.load_report = load_pretrained(self, **cfg)
        self.is_init = True

    def _init_within_a_model(self) -> None:
        # mmengine starts its record when the outermost module applies its init_cfg,
        # too late for what a backbone draws before.
        model = BaseModule()
        model.backbone = self
        try:
            model.init_weights()
        finally:
            for module in self.modules():
                vars(module).pop('_params_init_info', None)


@contextmanager
def differentiable(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through wholly frozen backbones, down to the image."""
    frozen = [
        part
        for part in module.modules()
        if isinstance(part, Backbone) and part.wholly_frozen
    ]
    for backbone in frozen:
        backbone.frozen_stages = -1
    try:
        yield
    finally:
        for backbone in frozen:
            backbone.frozen_stages = ALL


def compute_again(backbone: nn.Module, *_: Any) -> None:
    """Have layers compute anew what they keep of their parameters in eval mode.

    LeViT and its relatives keep tables until the next change of the mode, whatever is
    loaded meanwhile, and mmpretrain's even where the net is moved to another device.
    """
    for module in list(backbone.modules())[1:]:
        if not module.training and type(module).train is not nn.Module.train:
            module.train(False)
