"""What a detector is predicted with: its config and checkpoint, or an exported folder.

A user names one thing, and the rest lies beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..commands import command
from ..detector_config.read import read_by_name
from ..detector_config.whole_checkpoints import WorkFolder
from ..engine.launch import require_model
from ..engine.testing import set_checkpoint
from ..errors import CheckpointError, UserError, printable
from ..files import FOLDER, path_of, what_is
from ..runs.logs import read_log
from ..runs.records import config_of
from ..runtime.folder import DESCRIPTION
from ..weights.reading.reader import read_saved
from .exported import ENGINES

_WEIGHTS = ('.pth', '.pt', '.ckpt', '.bin', '.safetensors')
# Of the checkpoints that are passed over.
_TOLD = 3


@dataclass(frozen=True)
class Trained:
    """A detector as its training left it.

    Attributes:
        config: With ``load_from``, and nothing to resume.
        checkpoint: Path or address.
        notes: What a user should know of the choice.
    """

    config: Config
    checkpoint: str
    notes: tuple[str, ...] = ()


def find_trained(model: str, checkpoint: str | None = None) -> Trained:
    """Find config and checkpoint of a detector.

    Args:
        model: Path of a config, ``mmdet::folder/name.py``, or a work folder.
        checkpoint: Path or address; left out, the best of the work folder that is
            whole, or else the newest.

    Raises:
        UserError: If there is none, or the config is no detector's.
    """
    path = path_of(model)
    if path.suffix in _WEIGHTS:
        near = path.parent if str(path.parent) != '.' else Path('WORK_FOLDER')
        raise UserError(
            f"'{model}' is a checkpoint, which does not say what net it is of: name "
            f'its config or work folder first, {near} --checkpoint {model}'
        )
    if path.suffix in ENGINES:
        raise UserError(
            f"'{model}' has no {DESCRIPTION} beside it, which says what it takes and "
            'gives: name a folder that holds both'
        )
    folders = [path]
    if what_is(path) == FOLDER:
        config, notes = config_of(path, read_log(path))
        if config is None:
            raise UserError(
                f"'{model}' is neither a work folder nor an exported detector: "
                f'{"; ".join(notes)}, and no {DESCRIPTION}. Name a config, with '
                '--checkpoint FILE'
            )
    else:
        config = read_by_name(model)
        folders = [Path(config.get('work_dir') or Path('work_dirs', path.stem))]
        folders += [] if '::' in model else [path.parent]
    require_model(config)
    # A config that a training dumped may say that it goes on.
    config.resume = False
    if checkpoint is None:
        chosen, passed = _choose(config, folders, model)
        notes = [] if not passed else [f"'{chosen}' is taken, as {passed}"]
        checkpoint = str(chosen)
    else:
        notes = []
    set_checkpoint(config, checkpoint)
    return Trained(config, checkpoint, tuple(notes))


def _choose(config: Config, folders: list[Path], model: str) -> tuple[Path, str]:
    """Choose a checkpoint, and say why better ones are passed over."""
    passed: dict[Path, str] = {}
    for path in _candidates(config, folders):
        try:
            read_saved(path, str(path))
        except CheckpointError as error:
            passed[path] = str(error)
        else:
            return path, _some(passed)
    searched = ', '.join(dict.fromkeys(f"'{folder}'" for folder in folders))
    told = f': {_some(passed)}' if passed else ''
    first = '' if what_is(path_of(model)) == FOLDER else (
        f', or train it first: {command("train")} {model}'
    )  # fmt: skip
    raise UserError(
        f'there is no whole checkpoint in {searched}{told}. Write --checkpoint '
        f'FILE{first}'
    )


def _candidates(config: Config, folders: list[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for folder in folders:
        work = WorkFolder.of(config, str(folder))
        best = [p for inside in work.folders for p in inside.glob('best_*.pth')]
        best.sort(key=lambda path: _numbers(path)[-1:], reverse=True)
        found |= dict.fromkeys([*best, *work.paths])
    return [path for path in found if path.is_file()]


def _numbers(path: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r'\d+', path.stem)]


def _some(passed: dict[Path, str]) -> str:
    texts = [printable(why, 300) for why in passed.values()]
    more = len(texts) - _TOLD
    return '; '.join(texts[:_TOLD]) + (f'; and {more} more' if more > 0 else '')
