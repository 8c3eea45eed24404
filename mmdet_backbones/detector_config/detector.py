"""The config of a detector, and its backbone as far as it can be built."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS as HOST_MODELS
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..arguments import arguments_of
from ..backbones.contract import Backbone
from ..errors import ArgumentError, UserError, explain
from ..levels import Level, measure
from ..registry import MODELS
from ..shapes.build import (
    build_weightless,
    fixed_size,
    forward_weightless,
    on_meta,
)
from ..shapes.repeated import repeated_shapes
from .image_size import image_size
from .neck_rules import Reader, Strides, output_strides, reader_of
from .tree import Part, plain, walk
from .weights import Seen, look_into, starts_of
from .whole_checkpoints import Newest, Shapes, WorkFolder, shapes_of

# Large enough that nets without padding leave a map at their last stride, and for the
# windows of transformers.
DETECTOR_PROBE_SIZE = (320, 416)
_MOST_LEVELS = 24
# Strides divide it, so that maps of such images tell them.
_WHOLE = 64
# Parts whose constructors ask the Hugging Face hub for a language model.
_ONLINE = {'language_model', 'lang_model_name'}


@dataclass
class DetectorConfig:
    """A config of a detector, and how its backbone meets the rest.

    Nothing is built before it is asked for, and then on the meta device. What cannot
    be had raises a ``UserError`` that says why.

    Attributes:
        config: All of it.
    """

    config: Config

    @property
    def model(self) -> Part:
        """``model``, the detector inside a wrapper such as a semi-supervised one."""
        return self._inner[1]

    @property
    def key(self) -> str:
        """Of :attr:`model` in the config, dotted."""
        return self._inner[0]

    @property
    def _inner(self) -> tuple[str, Part]:
        model = self.config.model
        for key in ('detector', 'module'):
            if isinstance(model.get(key), Mapping) and 'backbone' not in model:
                return f'model.{key}', model[key]
        return 'model', model

    @property
    def scope(self) -> str:
        """Library that names without a scope belong to."""
        return self.config.get('default_scope') or 'mmdet'

    @property
    def backbone(self) -> dict[str, Any]:
        """Config of the backbone; empty if it is left open."""
        return plain(self.model.get('backbone') or {})

    def of_backbone(self, name: str, default: Any) -> Any:
        """An argument of the backbone, as configured or by default of its class."""
        if not self.backbone:
            return default
        kind = self.backbone['type']
        with DefaultScope.overwrite_default_scope(self.config.get('default_scope')):
            cls = HOST_MODELS.get(kind) or HOST_MODELS.get(f'mmdet.{kind}')
        known = arguments_of(cls)[0] if cls else {}
        fallback = known[name].default if name in known else default
        return self.backbone.get(name, fallback)

    @property
    def in_channels(self) -> int:
        """Channels of the images that the backbone takes."""
        return int(self.backbone.get('in_channels', 3))

    @property
    def net(self) -> nn.Module:
        """The backbone on the meta device, in eval mode."""
        return self._built[0]

    @property
    def trained_at_first(self) -> set[str]:
        """Parameters that are trainable as the class leaves them, by name."""
        return self._built[1]

    @cached_property
    def _built(self) -> tuple[nn.Module, set[str]]:
        net = self.build(self.backbone, as_built=True)
        names = trainable(net)
        # mmdet's own nets freeze here at the latest, and return None.
        net.eval()
        return net, names

    def build(self, backbone: Part, as_built: bool = False) -> nn.Module:
        """Build a backbone on the meta device in the scope of this config.

        Args:
            backbone: Its config; weights are left out of a class of the host, which
                may read them when it is built.
            as_built: As for :func:`~mmdet_backbones.shapes.build.build_weightless`.
        """
        kind = backbone.get('type')
        package = kind if isinstance(kind, str) else getattr(kind, '__module__', '')
        ours = package.partition('.')[0] == 'mmdet_backbones'
        left = () if ours else ('init_cfg', 'pretrained')
        cfg = {k: v for k, v in backbone.items() if k not in left}
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                return build_weightless(cfg, as_built)
        except UserError:
            raise
        except Exception as error:  # of classes that nobody here wrote
            raise UserError(explain(error)) from error

    @cached_property
    def whole(self) -> nn.Module | None:
        """All of the detector on the meta device; None if it cannot stand there."""
        model = deepcopy(self.config.model)
        for _, part in walk(model):
            if _ONLINE & part.keys():
                return None
            if 'teacher_ckpt' in part:
                # Constructors of distilled detectors download and load it.
                part['teacher_ckpt'] = None
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                return on_meta(lambda: HOST_MODELS.build(model))
        except Exception:  # of parts that nobody here wrote
            return None

    @cached_property
    def newest(self) -> Newest | None:
        """What a training goes on with in its work folder; None if it does not."""
        config = self.config
        if not config.get('resume') or not config.get('work_dir'):
            return None
        return WorkFolder.of(config).newest(self.shapes)

    @property
    def shapes(self) -> Shapes | None:
        """Those of all tensors of the detector; None if they are not known."""
        return None if self.whole is None else shapes_of(self.whole)

    @cached_property
    def starts(self) -> list[Seen]:
        """Checkpoints that are laid over all of the detector, looked into."""
        found = self.newest.found if self.newest is not None else None
        given = starts_of(self.config, found and found.path)
        if not given:
            return []
        net = self.whole or nn.ModuleDict(dict(backbone=self.net))
        return [look_into(start, net) for start in given]

    @property
    def filled(self) -> set[str] | None:
        """Names of the backbone that :attr:`starts` fill; None if that is not known."""
        laid = [seen.laid for seen in self.starts]
        if None in laid:
            return None
        return {name for one in laid if one for name in one.filled_below('backbone')}

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What the backbone returns for an image of :attr:`size`, without numbers."""
        return self._probed[1]

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether the backbone takes an image of this height and width."""
        try:
            run(self.net, self.in_channels, size)
        except UserError:
            return False
        return True

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image that :attr:`outputs` are of."""
        return self._probed[0]

    @cached_property
    def _probed(self) -> tuple[tuple[int, int], tuple[Tensor, ...]]:
        size = fixed_size(self.net) or DETECTOR_PROBE_SIZE
        try:
            return size, run(self.net, self.in_channels, size)
        except UserError:
            # A window may be larger than the maps of the probe, and smaller than those
            # of the images that the detector trains on.
            real = image_size(self.config)
            if real is None or size != DETECTOR_PROBE_SIZE:
                raise
            whole = (-(-real[0] // _WHOLE) * _WHOLE, -(-real[1] // _WHOLE) * _WHOLE)
            if not self.takes(whole):
                raise
            return whole, run(self.net, self.in_channels, whole)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Levels in the order in which the backbone returns them.

        Where the backbone is left open they are those that :attr:`reader` usually
        gets, of zero channels.
        """
        if not self.backbone:
            strides = self.reader.rule.strides
            return tuple(Level(i, 0, stride) for i, stride in enumerate(strides))
        if isinstance(self.net, Backbone):
            return self.net.levels
        self._require_counted()
        indices = getattr(self.net, 'out_indices', None)
        if not isinstance(indices, Sequence) or len(indices) != len(self.outputs):
            indices = range(len(self.outputs))
        found = [
            measure(int(index), output, self.size)
            for index, output in zip(indices, self.outputs, strict=True)
        ]
        levels = tuple(level for level in found if level is not None)
        if len(levels) < len(found):
            height, width = self.size
            shapes = ', '.join(str(tuple(output.shape)) for output in self.outputs)
            raise UserError(
                'not every output of the backbone is a map of shape (N, C, H, W) with '
                f'the size of the image over a whole stride: an image of {height} x '
                f'{width} gives {shapes}'
            )
        return levels

    def _require_counted(self) -> None:
        """Raise a ``UserError`` where a class leaves negative numbers out."""
        asked = self.backbone.get('out_indices')
        if not isinstance(asked, Sequence) or len(self.outputs) >= len(asked):
            return
        every, last = self.offered, len(self.offered)
        if all(number >= 0 for number in asked) or -min(asked) > last:
            return
        meant = tuple(every[number].index if number < 0 else number for number in asked)
        message = (
            f'{self.backbone["type"]} does not count levels from the end: it leaves '
            f'negative ones out, got out_indices={tuple(asked)}: write '
            f'out_indices={meant}'
        )
        raise UserError(message) from ArgumentError(message, dict(out_indices=meant))

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of :attr:`levels`."""
        return tuple(level.stride for level in self.levels)

    @cached_property
    def reader(self) -> Reader:
        """The part that reads the levels."""
        return reader_of(self.model)

    @cached_property
    def output_strides(self) -> Strides:
        """Strides of the maps that the heads get."""
        return output_strides(self.model, self.strides)

    @cached_property
    def offered(self) -> tuple[Level, ...]:
        """Every level that the backbone could return, by its own numbers."""
        cfg = {
            k: v
            for k, v in self.backbone.items()
            if k not in ('out_indices', 'out_strides', 'frozen_stages')
        }
        if isinstance(self.net, Backbone):
            net = self._built_or_none(cfg)
            return net.levels if isinstance(net, Backbone) else ()
        found = (self._level(cfg, index) for index in range(_MOST_LEVELS))
        # Numbers may start above 0, and have no gaps.
        from_first = itertools.dropwhile(lambda level: level is None, found)
        return tuple(itertools.takewhile(bool, from_first))  # type: ignore[arg-type]

    def _level(self, cfg: Part, index: int) -> Level | None:
        net = self._built_or_none({**cfg, 'out_indices': (index,)})
        try:
            outputs = run(net, self.in_channels, self.size) if net is not None else ()
        except UserError:
            return None
        if len(outputs) != 1:
            return None
        return measure(index, outputs[0], self.size)

    def _built_or_none(self, backbone: Part) -> nn.Module | None:
        try:
            return self.build(backbone)
        except UserError:
            return None

    @property
    def twin_type(self) -> str | None:
        """Our class in the place of the host's class of the same name."""
        given = str(self.backbone['type'])
        name = given.rpartition('.')[2]
        if given.startswith('mmdet_backbones.') or MODELS.get(name) is None:
            return None
        return f'mmdet_backbones.{name}'

    @property
    def twin_refuses(self) -> tuple[str, ...]:
        """Arguments of the backbone that the class of :attr:`twin_type` has not."""
        if self.twin_type is None:
            return ()
        known, _ = arguments_of(MODELS.get(self.twin_type.rpartition('.')[2]))
        return tuple(k for k in self.backbone if k not in ('type', *known))

    @cached_property
    def twin(self) -> nn.Module | None:
        """The same net of our class, with all of its levels; None if there is none."""
        if self.twin_type is None:
            return None
        left = ('out_indices', *self.twin_refuses)
        taken = {k: v for k, v in self.backbone.items() if k not in left}
        return self._built_or_none({**taken, 'type': self.twin_type})


def trainable(net: nn.Module) -> set[str]:
    """Name the parameters that an optimiser would change."""
    return {name for name, p in net.named_parameters() if p.requires_grad}


def run(net: nn.Module, in_channels: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Run a backbone on the meta device.

    Args:
        net: The backbone.
        in_channels: Of the image.
        size: Height and width of the image.

    Raises:
        UserError: If it does not take the image.
    """
    try:
        with repeated_shapes(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return forward_weightless(net, size, in_channels)
    except Exception as error:  # of nets that nobody here wrote
        text = str(error).splitlines()
        raise UserError(
            f'the backbone does not take an image of {size[0]} x {size[1]} pixels: '
            f'{text[0] if text else type(error).__name__}'
        ) from error


def combinations(levels: Sequence[Level], count: int) -> Iterator[tuple[Level, ...]]:
    """Choices of levels with strides that grow from one to the next.

    Of the levels that share a stride, as in the tail of a ShuffleNet, the shallowest
    comes first.
    """
    for chosen in itertools.combinations(levels, count):
        strides = [level.stride for level in chosen]
        if all(a < b for a, b in itertools.pairwise(strides)):
            yield chosen
