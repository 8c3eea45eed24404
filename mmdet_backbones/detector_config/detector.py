"""The config that is checked, and its backbone as far as it can be built."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..backbones.contract import Backbone
from ..errors import UserError, explain
from ..levels import Level, measure
from ..registry import MODELS
from ..shapes.build import build_weightless, fixed_size, forward_weightless
from ..shapes.repeated import repeated_shapes
from .arguments import arguments_of
from .neck_rules import NeckRule, Part, reader_of
from .tree import plain

_MOST_LEVELS = 24


@dataclass
class Subject:
    """A config that is checked.

    Attributes:
        config: All of it.
        num_gpus: Processes that will train together.
    """

    config: Config
    num_gpus: int = 1

    @property
    def model(self) -> Part:
        """``model``, the detector inside a wrapper such as a semi-supervised one."""
        return self._place[1]

    @property
    def place(self) -> str:
        """Key of :attr:`model` in the config."""
        return self._place[0]

    @property
    def _place(self) -> tuple[str, Part]:
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
        """Config of the backbone; empty if the detector has none."""
        return plain(self.model.get('backbone') or {})

    @property
    def net(self) -> nn.Module | UserError:
        """The backbone on the meta device in eval mode, or why it cannot be built."""
        return self._built[0]

    @property
    def trained_at_first(self) -> set[str]:
        """Parameters that are trainable as the class leaves them, by name."""
        return self._built[1]

    @cached_property
    def _built(self) -> tuple[nn.Module | UserError, set[str]]:
        net = self.build(self.backbone, as_built=True)
        if isinstance(net, UserError):
            return net, set()
        names = trainable(net)
        # mmdet's own nets freeze here at the latest, and return None.
        net.eval()
        return net, names

    def build(self, backbone: Part, as_built: bool = False) -> nn.Module | UserError:
        """Build a backbone on the meta device, or return why that fails."""
        cfg = {k: v for k, v in backbone.items() if k not in ('init_cfg', 'pretrained')}
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                return build_weightless(cfg, as_built)
        except UserError as error:
            return error
        except Exception as error:  # of classes that nobody here wrote
            return UserError(explain(error))

    @cached_property
    def outputs(self) -> Sequence[Tensor] | UserError:
        """What the backbone returns for an image of :attr:`size`, without numbers."""
        if isinstance(self.net, UserError):
            return self.net
        return run(self.net, int(self.backbone.get('in_channels', 3)))

    def takes(self, size: tuple[int, int]) -> bool:
        """Whether the backbone takes an image of this height and width."""
        if isinstance(self.net, UserError):
            return False
        channels = int(self.backbone.get('in_channels', 3))
        return not isinstance(run(self.net, channels, size), UserError)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the image that :attr:`outputs` are of."""
        fixed = None if isinstance(self.net, UserError) else fixed_size(self.net)
        return fixed or DETECTOR_PROBE_SIZE

    @cached_property
    def levels(self) -> tuple[Level, ...] | None:
        """Levels in the order in which the backbone returns them; None if unknown."""
        if isinstance(self.net, Backbone):
            return self.net.levels
        if isinstance(self.outputs, UserError):
            return None
        indices = getattr(self.net, 'out_indices', None)
        if not isinstance(indices, Sequence) or len(indices) != len(self.outputs):
            indices = range(len(self.outputs))
        found = [
            measure(int(index), output, self.size)
            for index, output in zip(indices, self.outputs, strict=True)
        ]
        return None if None in found else tuple(found)  # type: ignore[arg-type]

    @cached_property
    def reader(self) -> tuple[tuple[str | int, ...], Part, NeckRule] | UserError:
        """The part that reads the levels, or why no rule says how."""
        try:
            return reader_of(self.model)
        except UserError as error:
            return error

    @cached_property
    def offered(self) -> tuple[Level, ...]:
        """Every level that the backbone could return, by its own numbers."""
        cfg = {
            k: v
            for k, v in self.backbone.items()
            if k not in ('out_indices', 'out_strides', 'frozen_stages')
        }
        if isinstance(self.net, Backbone):
            net = self.build(cfg)
            return net.levels if isinstance(net, Backbone) else ()
        found: list[Level] = []
        for index in range(_MOST_LEVELS):
            level = self._level(cfg, index)
            if level is None:
                if found:
                    break
                continue
            found.append(level)
        return tuple(found)

    @property
    def twin_type(self) -> str | None:
        """Our class in the place of the host's class of the same name."""
        given = str(self.backbone['type'])
        name = given.rpartition('.')[2]
        if given.startswith('mmdet_backbones.') or MODELS.get(name) is None:
            return None
        return f'mmdet_backbones.{name}'

    @cached_property
    def twin(self) -> nn.Module | None:
        """The same net of our class, with all of its levels; None if there is none."""
        if self.twin_type is None:
            return None
        known, _ = arguments_of(MODELS.get(self.twin_type.rpartition('.')[2]))
        taken = {k: v for k, v in self.backbone.items() if k in known}
        taken.pop('out_indices', None)
        net = self.build({**taken, 'type': self.twin_type})
        return None if isinstance(net, UserError) else net

    def _level(self, cfg: Part, index: int) -> Level | None:
        net = self.build({**cfg, 'out_indices': (index,)})
        if isinstance(net, UserError):
            return None
        outputs = run(net, int(cfg.get('in_channels', 3)))
        if isinstance(outputs, UserError) or len(outputs) != 1:
            return None
        return measure(index, outputs[0], DETECTOR_PROBE_SIZE)


def trainable(net: nn.Module) -> set[str]:
    """Name the parameters that an optimiser would change."""
    return {name for name, p in net.named_parameters() if p.requires_grad}


def run(
    net: nn.Module, in_channels: int, size: tuple[int, int] | None = None
) -> Sequence[Tensor] | UserError:
    """Run a backbone on the meta device, or return why that fails."""
    size = size or fixed_size(net) or DETECTOR_PROBE_SIZE
    try:
        with repeated_shapes(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return forward_weightless(net, size, in_channels)
    except Exception as error:  # of nets that nobody here wrote
        text = str(error).splitlines()
        return UserError(
            f'it does not take an image of {size[0]} x {size[1]} pixels: '
            f'{text[0] if text else type(error).__name__}'
        )


def combinations(levels: Sequence[Level], count: int) -> Iterator[tuple[Level, ...]]:
    """Choices of levels with strides that grow from one to the next.

    Of the levels that share a stride, as in the tail of a ShuffleNet, the shallowest
    comes first.
    """
    for chosen in itertools.combinations(levels, count):
        strides = [level.stride for level in chosen]
        if all(a < b for a, b in itertools.pairwise(strides)):
            yield chosen


# Large enough that nets without padding leave a map at their last stride, and for the
# windows of transformers.
DETECTOR_PROBE_SIZE = (320, 416)
