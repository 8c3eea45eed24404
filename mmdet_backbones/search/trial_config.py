"""The config of one trial: what a swap writes, with its rate and freezing moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..backbones.contract import Backbone
from ..engine.lr_scaling import find_scale
from ..errors import UserError
from ..levels import ALL, FrozenStages
from ..registry import MODELS
from ..shapes.build import build_weightless
from ..swap.swapping import SwapOptions, save

#: As a swap writes it; no stage; one stage more than a swap writes.
FREEZING = ('recipe', 'nothing', 'more')
#: How far the rate of the recipe is moved, down and up.
FACTORS = (1 / 3, 3.0)


@dataclass(frozen=True)
class TrialSpec:
    """One training of a search.

    Attributes:
        backbone: Of the catalog.
        size: Height and width of the images.
        rate: What the learning rate of the recipe is multiplied by.
        freezing: One of :data:`FREEZING`.
    """

    backbone: str
    size: tuple[int, int]
    rate: float = 1.0
    freezing: str = 'recipe'

    @property
    def name(self) -> str:
        """Of its folder: the same training has the same name, and no other has it."""
        digest = sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:6]
        safe = ''.join(c if c.isalnum() or c in '-_.' else '-' for c in self.backbone)
        return f'{safe}_{self.size[0]}x{self.size[1]}_{digest}'

    @classmethod
    def from_choice(cls, choice: Mapping[str, Any]) -> TrialSpec:
        """Read what a sampler chose."""
        name, _, size = str(choice['candidate']).rpartition('@')
        height, width = map(int, size.split('x'))
        return cls(
            name, (height, width), choice['rate'], choice.get('freezing', FREEZING[0])
        )

    def to_choice(self, names: Collection[str]) -> dict[str, Any]:
        """Write what a sampler would have chosen.

        Args:
            names: Of what it chooses.
        """
        key = f'{self.backbone}@{self.size[0]}x{self.size[1]}'
        found = dict(candidate=key, rate=self.rate, freezing=self.freezing)
        return {name: value for name, value in found.items() if name in names}


def write_trial_config(spec: TrialSpec, options: SwapOptions) -> Path:
    """Swap the backbone into the detector as a trial wants it.

    Args:
        spec: The trial.
        options: Of the swap, with the recipe's rate and freezing.

    Returns:
        The file that was written.

    Raises:
        UserError: If it cannot be had.
    """
    path = save(options)
    changes: dict[str, Any] = {}
    config = Config.fromfile(path, import_custom_modules=False)
    if spec.rate != 1:
        changes['lr'] = float(f'{_rate_of(config) * spec.rate:.4g}')
    if spec.freezing != 'recipe':
        changes['frozen_stages'] = _frozen_stages(config, spec.freezing)
    return save(replace(options, **changes, force=True)) if changes else path


def _rate_of(config: Config) -> float:
    """The rate for the batch of one process, as a training scales it."""
    rate = ((config.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    if not isinstance(rate, (int, float)):
        raise UserError(
            'the base has no optim_wrapper.optimizer.lr that could be moved'
        )
    scale = find_scale(config, 1)
    wanted = (config.get('auto_scale_lr') or {}).get('enable', True)
    return rate * scale.factor if scale is not None and wanted else float(rate)


def _frozen_stages(config: Config, freezing: str) -> FrozenStages:
    if freezing == 'nothing':
        return -1
    given: FrozenStages = config.model.backbone.get('frozen_stages', -1)
    if given == ALL:
        return given
    net = build_weightless({**config.model.backbone, 'init_cfg': None})
    # With the deepest stage frozen, too, nothing of it would learn.
    assert isinstance(net, Backbone)
    return min(int(given) + 1, len(net.built_stages()) - 2)


def can_freeze(config: dict[str, Any], weights: str | None) -> bool:
    """Whether there is a choice of stages to freeze: random features must learn."""
    cls = MODELS.get(str(config['type']))
    return weights is not None and isinstance(cls, type) and issubclass(cls, Backbone)
