"""What a backbone is: the base class and the rules that every family obeys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..weights.loading.loader import load_pretrained, split_init_cfg
from ..weights.loading.report import LoadReport
from ..weights.names.dialect import Dialect


@dataclass(frozen=True)
class Level:
    """One feature map that a backbone can return.

    Attributes:
        index: Number of the level in its family, as ``out_indices`` counts.
        channels: Channels C of the (N, C, H, W) map.
        stride: Input pixels per pixel of the map, along each side.
    """

    index: int
    channels: int
    stride: int


class Preprocess(NamedTuple):
    """How the images were prepared that a family's usual weights were trained on.

    Attributes:
        mean: Mean per channel on the 0..255 scale, in ``channel_order``.
        std: Standard deviation per channel on the 0..255 scale.
        channel_order: ``'rgb'`` or ``'bgr'``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = 'rgb'


IMAGENET = Preprocess((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def select_levels(
    available: Sequence[Level],
    out_indices: Sequence[int] | None = None,
    out_strides: Sequence[int] | None = None,
    *,
    owner: str,
) -> tuple[Level, ...]:
    """Choose levels by index or by stride.

    Args:
        available: All levels of the family, shallow to deep.
        out_indices: Ascending level numbers of the family.
        out_strides: Ascending strides, the same for every family.
        owner: Name of the backbone, for the message.

    Returns:
        The chosen levels, shallow to deep; all of them if neither is given. Of the
        levels that share a stride, as in a plain ViT, the deepest one has it.

    Raises:
        TypeError: If a choice is not a sequence of integers.
        ValueError: If both are given, or a level is not there, is named twice or
            out of order.
    """
    if out_indices is not None and out_strides is not None:
        raise ValueError(
            f'{owner} takes out_indices or out_strides, not both: got '
            f'out_indices={tuple(out_indices)} and out_strides={tuple(out_strides)}'
        )
    if out_indices is None and out_strides is None:
        return tuple(available)
    name = 'out_indices' if out_indices is not None else 'out_strides'
    field = 'index' if out_indices is not None else 'stride'
    wanted = out_indices if out_indices is not None else out_strides
    if not isinstance(wanted, Sequence) or not all(type(w) is int for w in wanted):
        raise TypeError(
            f'{owner}: {name} must be a sequence of integers, got {wanted!r}; '
            f'write {name}={_example(available, field)}'
        )
    problems = _level_problems(available, wanted, field)
    if problems:
        raise ValueError(
            f'{owner}: {name}={tuple(wanted)} cannot be served: '
            f'{"; ".join(problems)}. Its levels are '
            f'{describe_levels(available)}; for example write '
            f'{name}={_example(available, field)}'
        )
    by_value = {getattr(level, field): level for level in available}
    return tuple(by_value[w] for w in wanted)


def _level_problems(
    available: Sequence[Level], wanted: Sequence[int], field: str
) -> list[str]:
    values = [getattr(level, field) for level in available]
    problems = []
    if not wanted:
        problems.append('at least one level is needed')
    missing = [w for w in wanted if w not in values]
    if missing:
        problems.append(f'there is no level of {field} {", ".join(map(str, missing))}')
    if list(wanted) != sorted(set(wanted)):
        problems.append('levels are named once each, shallow to deep')
    return problems


def _example(available: Sequence[Level], field: str) -> tuple[int, ...]:
    return tuple(sorted({getattr(level, field) for level in available}))[-3:]


def describe_levels(levels: Iterable[Level]) -> str:
    """Name every level in one line, for messages."""
    return ', '.join(
        f'{level.index} ({level.channels} channels, stride {level.stride})'
        for level in levels
    )


def check_frozen_stages(frozen_stages: int, last_stage: int, owner: str) -> None:
    """Raise a ``ValueError`` unless ``frozen_stages`` is in [-1, last_stage]."""
    if type(frozen_stages) is not int or not -1 <= frozen_stages <= last_stage:
        raise ValueError(
            f'{owner}: frozen_stages must be an integer from -1 (nothing), 0 (the '
            f'stem) to {last_stage} (all of its stages), got {frozen_stages!r}'
        )


class Backbone(BaseModule):
    """Base class of every backbone: levels, freezing and pretrained weights.

    A family builds its modules in ``__init__``, names them by stage in
    :meth:`stage_modules` and calls :meth:`freeze` last, so that
    DistributedDataParallel sees which parameters never get a gradient.

    Args:
        levels: The levels that ``forward`` returns, shallow to deep.
        frozen_stages: Stages without training: -1 none, 0 the stem, n the stem
            and the first n stages.
        norm_eval: Whether batch normalisation stays in eval mode in training.
        init_cfg: As in mmengine. ``dict(type='Pretrained')`` also takes
            ``min_coverage`` and ``allow_random_frozen``, see
            :func:`~mmdet_backbones.weights.load_pretrained`.

    Attributes:
        levels: Index, channels and stride of each output.
        load_report: What the last loading of pretrained weights did, or None.
        reads_weights: Whether :meth:`init_weights` reads pretrained weights. False
            when a training goes on from a checkpoint that holds all weights, see
            :class:`~mmdet_backbones.engine.hooks.PretrainedReportHook`.
        preprocess: What the family's usual weights expect of an image, or None.
        variants: Constructor arguments of the family's published nets, by name.
    """

    variants: Mapping[str, dict[str, Any]] = {}
    dialects: tuple[Dialect, ...] = ()
    preprocess: Preprocess | None = None

    def __init__(
        self,
        levels: Sequence[Level],
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.init_cfg: dict | list[dict] | None
        self.levels = tuple(levels)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.load_report: LoadReport | None = None
        self.reads_weights = True

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

    def _frozen_parts(self) -> Iterable[nn.Module | nn.Parameter]:
        for stage in range(self.frozen_stages + 1):
            yield from self.stage_modules(stage)

    def freeze(self) -> None:
        """Take the frozen stages out of training: no gradients, eval mode."""
        for part in self._frozen_parts():
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Switch the mode; frozen stages and ``norm_eval`` layers stay in eval."""
        super().train(mode)
        if mode:
            self.freeze()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def init_weights(self) -> None:
        """Initialise the weights as ``init_cfg`` says, pretrained ones last.

        Raises:
            CheckpointError: If pretrained weights cannot be read.
            PretrainedWeightsError: If pretrained weights cover less of the
                backbone than ``min_coverage``, or something frozen would stay random.
        """
        if self.is_init:
            return
        pretrained, others = split_init_cfg(self.init_cfg)
        given = self.init_cfg
        self.init_cfg = others
        try:
            super().init_weights()
        finally:
            self.init_cfg = given
        for cfg in pretrained if self.reads_weights else ():
            self.load_report = load_pretrained(self, **cfg)
