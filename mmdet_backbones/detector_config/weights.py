"""Which weights a backbone of a config starts from, and all of the detector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ..errors import CheckpointError
from ..weights.loading.init_cfg import Terms, init_cfg_of, split_entries
from ..weights.loading.unchecked import Laid, lay_over, taken_by_mmengine
from ..weights.reading.download import torch_path
from ..weights.reading.reader import Saved, read_saved
from ..weights.reading.sources import locate_checkpoint
from ..weights.reading.unwrap import check_size, loadable
from ..weights.reading.values import check_finite


class Pretrained(NamedTuple):
    """What a config says about pretrained weights.

    Attributes:
        checkpoint: Path, address or name.
        prefix: Of the keys to take, or None.
        key: Below ``backbone``, where it stands, such as ``init_cfg`` or
            ``init_cfg.0``.
        terms: What may be missing or left over.
    """

    checkpoint: str
    prefix: str | None
    key: str
    terms: Terms = Terms()


def pretrained_of(backbone: Mapping[str, Any]) -> Pretrained | None:
    """Find the weights that a backbone starts from.

    Args:
        backbone: Its config.

    Returns:
        Those of ``init_cfg``, of ``pretrained`` or of ``checkpoint_path``; None if it
        starts from random weights.

    Raises:
        TypeError: If ``init_cfg`` is no dict with a ``type``, nor a list of such.
    """
    given = init_cfg_of(backbone)
    entries, _ = split_entries(given)
    for entry in entries[:1]:
        several = isinstance(given, (list, tuple))
        return Pretrained(
            str(entry.get('checkpoint')),
            entry.get('prefix'),
            f'init_cfg.{given.index(entry)}' if several else 'init_cfg',
            Terms.of(entry),
        )
    pretrained = backbone.get('pretrained')
    if pretrained is True and 'model_name' in backbone:
        return Pretrained(f'timm://{backbone["model_name"]}', None, 'pretrained')
    if isinstance(pretrained, str):
        return Pretrained(pretrained, None, 'pretrained')
    if backbone.get('checkpoint_path'):
        return Pretrained(str(backbone['checkpoint_path']), None, 'checkpoint_path')
    return None


class Start(NamedTuple):
    """A checkpoint that mmengine loads into the whole detector.

    Attributes:
        checkpoint: Path or address.
        key: Place in the config that names it; ``'resume'`` for the last checkpoint of
            the work folder.
        prefix: Of the names to take, or None.
        resumes: Whether an interrupted training goes on with it.
    """

    checkpoint: str
    key: str
    prefix: str | None = None
    resumes: bool = False


class Seen(NamedTuple):
    """A start, looked into as far as it is on this machine.

    Attributes:
        start: What it is of.
        saved: The file; None if it is not here or cannot be read.
        laid: What of the detector it fills; None if that is not known.
        problem: Why it cannot be read; empty if it can, or is not here yet.
    """

    start: Start
    saved: Saved | None = None
    laid: Laid | None = None
    problem: str = ''


def starts_of(config: Mapping[str, Any], newest: Path | None = None) -> list[Start]:
    """List what is loaded over the detector, in the order of loading.

    Args:
        config: All of it.
        newest: The checkpoint of the work folder that a training goes on with.

    Raises:
        TypeError: If ``model.init_cfg`` is no dict with a ``type``, nor a list of such.
    """
    entries, _ = split_entries(config['model'].get('init_cfg'))
    found = [
        Start(str(e.get('checkpoint')), 'model.init_cfg', e.get('prefix'))
        for e in entries
    ]
    resumes = bool(config.get('resume'))
    if config.get('load_from'):
        found.append(Start(str(config['load_from']), 'load_from', resumes=resumes))
    elif resumes and newest is not None:
        found.append(Start(str(newest), 'resume', resumes=True))
    return found


def look_into(start: Start, net: nn.Module) -> Seen:
    """Lay a checkpoint over a detector as mmengine would; nothing is downloaded.

    Args:
        start: The checkpoint.
        net: The detector on the meta device.
    """
    try:
        path = locate_checkpoint(start.checkpoint, place=torch_path)
        if not isinstance(path, Path):
            return Seen(start)
        saved = read_saved(path, start.checkpoint)
        tensors = taken_by_mmengine(saved.content) if saved.by_torch else {}
        loadable(tensors, start.checkpoint)
        check_size(tensors, saved.size, start.checkpoint, copied=False)
        check_finite(tensors, start.checkpoint)
    except CheckpointError as error:
        return Seen(start, problem=str(error))
    if start.prefix:
        inside = f'{start.prefix.removesuffix(".")}.'
        tensors = {
            name.removeprefix(inside): value
            for name, value in tensors.items()
            if name.startswith(inside)
        }
    try:
        return Seen(start, saved, lay_over(net, tensors))
    except Exception:  # of classes that convert what they load, and need its values
        return Seen(start, saved)
