"""The detector that gets another backbone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..detector_config.arguments import arguments_of
from ..detector_config.detector import DETECTOR_PROBE_SIZE
from ..detector_config.neck_rules import NeckRule, Part, output_strides, reader_of
from ..detector_config.read import read_by_name
from ..errors import UserError, explain
from ..levels import Level
from ..shapes.build import build_weightless
from ..shapes.probe import probe_levels


@dataclass(frozen=True)
class Base:
    """A config of a detector, and how its backbone meets the rest.

    Attributes:
        name: As the user wrote it.
        config: All of it.
        place: Of the part that reads the backbone's levels, as keys below ``model``.
        reader: Config of that part.
        rule: Of that part.
        levels: That its own backbone returns; of zero channels where that backbone is
            left open and the strides are those that the part usually gets.
    """

    name: str
    config: Config
    place: tuple[str | int, ...]
    reader: Part
    rule: NeckRule
    levels: tuple[Level, ...]

    @property
    def model(self) -> Part:
        """``model`` of the config."""
        return self.config.model

    def of_backbone(self, name: str, default: Any) -> Any:
        """An argument of its backbone, as configured or by default of its class."""
        given = self.model.get('backbone')
        if not given:
            return default
        with DefaultScope.overwrite_default_scope(self.config.get('default_scope')):
            cls = MODELS.get(given['type']) or MODELS.get(f'mmdet.{given["type"]}')
        known = arguments_of(cls)[0] if cls else {}
        fallback = known[name].default if name in known else default
        return given.get(name, fallback)

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels that the backbone returns."""
        return tuple(level.stride for level in self.levels)

    @cached_property
    def output_strides(self) -> tuple[float, ...]:
        """Strides of the maps that the heads get."""
        return output_strides(self.model, self.strides)


def load_base(name: str) -> Base:
    """Read the config of a detector.

    Args:
        name: Path of a config, or ``mmdet::folder/name.py``.

    Returns:
        The detector.

    Raises:
        UserError: If there is no such config (the nearest are named), or its backbone
            cannot be replaced.
    """
    config = read_by_name(name)
    model = config.get('model')
    if not isinstance(model, Mapping) or not ({'backbone', 'neck'} & set(model)):
        inner = next((k for k in ('detector', 'module') if k in (model or {})), None)
        hint = f': swap the config that its model.{inner} comes from' if inner else ''
        raise UserError(f"'{name}' describes no detector with a backbone{hint}")
    place, reader, rule = reader_of(model)
    scope = config.get('default_scope') or 'mmdet'
    levels = probe(model['backbone'], scope) if model.get('backbone') else ()
    if not levels:
        levels = tuple(Level(i, 0, s) for i, s in enumerate(rule.strides))
    return Base(name, config, place, reader, rule, levels)


def probe(backbone: Part, scope: str = 'mmdet') -> tuple[Level, ...]:
    """Levels that a backbone returns as it is configured; no weights are read.

    Args:
        backbone: For ``MODELS.build``.
        scope: Library that names without a scope belong to, ``default_scope`` of the
            config.

    Raises:
        UserError: If it cannot be built, or gives no maps of whole strides.
    """
    config = {k: v for k, v in backbone.items() if k not in ('init_cfg', 'pretrained')}
    try:
        with DefaultScope.overwrite_default_scope(scope):
            net = build_weightless(config)
    except KeyError as error:
        raise UserError(explain(error)) from error
    levels = getattr(net, 'levels', None)
    if levels is not None:
        return tuple(levels)
    try:
        with warnings.catch_warnings():
            # Of nets that use names that torch will drop.
            warnings.simplefilter('ignore', FutureWarning)
            return tuple(probe_levels(net, DETECTOR_PROBE_SIZE))
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:
        raise UserError(
            f'the levels of the backbone {config.get("type")} cannot be found: {error}'
        ) from error
