"""The detector whose levels are looked at: built, with weights, ready to run."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, revert_sync_batchnorm

from ..detector_config.tree import walk
from ..errors import CheckpointError, UserError, explain
from ..weights.loading.init_cfg import drop_pretrained, init_cfg_of, split_entries
from ..weights.reading.reader import read_checkpoint
from ..weights.reading.sources import locate_checkpoint

_PARTS = ('backbone.', 'neck.')
_NAMED = 3
_NO_BACKBONE = (
    'the config needs model.backbone; a wrapper, such as a semi-supervised detector, '
    'has none: name the config of the detector inside it'
)
# How constructors refuse what a config says.
_REFUSALS = (
    KeyError,
    ValueError,
    TypeError,
    ImportError,
    OSError,
    AssertionError,
    AttributeError,
)


def build_detector(cfg: Config, checkpoint: str | None, device: str) -> tuple[Any, str]:
    """Build the detector of a config, in eval mode.

    Without a checkpoint it gets the weights that training would start from. Nothing is
    downloaded: where those are not on this machine the numbers stay random.

    Args:
        cfg: The whole config; it is not changed.
        checkpoint: Of the detector, None for the start of a training.
        device: To run on.

    Returns:
        The detector, and one line that says what its weights are.

    Raises:
        UserError: If it cannot be built, or the checkpoint is of another detector.
        CheckpointError: If the checkpoint cannot be read.
    """
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    model = copy.deepcopy(cfg.get('model') or {})
    if 'backbone' not in model:
        raise UserError(_NO_BACKBONE)
    absent = list(_forget_absent(model))
    try:
        detector = revert_sync_batchnorm(MODELS.build(model))
        if checkpoint is None:
            _initialise(detector)
    except _REFUSALS as error:
        raise UserError(f'the detector cannot be built: {explain(error)}') from error
    if checkpoint is not None:
        load_levels(detector, checkpoint)
    # mmdet's own nets return None from eval().
    detector.eval()
    detector.to(device)
    return detector, _describe(checkpoint, absent, model)


def load_levels(detector: Any, checkpoint: str) -> None:
    """Load backbone and neck from the checkpoint of a detector.

    Heads are not needed for the levels, so one with other classes does no harm. NaN
    is loaded as well: that it is there is what a picture of the levels can show.

    Args:
        detector: Gets the weights.
        checkpoint: Path or address.

    Raises:
        UserError: If weights are missing or of another shape.
        CheckpointError: If the file cannot be read.
    """
    found = read_checkpoint(checkpoint, finite=False).state_dict
    wanted = {
        name: tensor
        for name, tensor in detector.state_dict().items()
        if name.startswith(_PARTS) and not name.endswith('num_batches_tracked')
    }
    missing = [name for name in wanted if name not in found]
    shapes = [
        f'{name} {tuple(found[name].shape)} for {tuple(tensor.shape)}'
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if missing or shapes:
        raise UserError(
            f"'{checkpoint}' is not a checkpoint of this config's detector: of "
            f'{len(wanted)} tensors of backbone and neck '
            + ' and '.join(
                f'{len(names)} {what} ({_first(names)})'
                for names, what in ((missing, 'are missing'), (shapes, 'do not fit'))
                if names
            )
            + '. Its own config lies in the work directory beside it'
        )
    detector.load_state_dict({k: found[k] for k in wanted}, strict=False)


def check_device(device: str) -> str | None:
    """Return why a device cannot be used, None if it can."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        return f"--device '{device}' cannot be used here: {reason}; write --device cpu"
    return None


def _initialise(detector: Any) -> None:
    """Initialise what makes the levels; heads would take most of the time."""
    parts = [detector.backbone, getattr(detector, 'neck', None)]
    with _no_chatter():
        for part in [detector] if detector.init_cfg else parts:
            if isinstance(part, BaseModule):
                part.init_weights()


@contextlib.contextmanager
def _no_chatter() -> Iterator[None]:
    """Keep back the line for each parameter that mmengine logs."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first(names: list[str]) -> str:
    return ', '.join(names[:_NAMED]) + (', ...' if len(names) > _NAMED else '')


def _describe(checkpoint: str | None, absent: list[str], model: Mapping) -> str:
    if checkpoint is not None:
        return f'weights of {checkpoint}'
    if absent:
        return f'RANDOM weights: {_first(absent)} is not on this machine'
    sources = [
        str(entry.get('checkpoint'))
        for _, part in walk(model)
        for entry in split_entries(init_cfg_of(part))[0]
    ]
    return f'not trained, from {_first(sources)}' if sources else 'RANDOM weights'


def _forget_absent(model: Any) -> Iterator[str]:
    """Take out and name the pretrained weights that would have to be downloaded."""
    for _, part in walk(model):
        for entry in drop_pretrained(part, unless=_is_here):
            yield str(entry['checkpoint'])


def _is_here(entry: Mapping[str, Any]) -> bool:
    if not entry.get('checkpoint'):
        return True
    try:
        return not isinstance(locate_checkpoint(entry['checkpoint']), str)
    except CheckpointError:
        return False
