"""What a training starts from: decided once, for all of its processes."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..detector_config.whole_checkpoints import Newest, Shapes, WorkFolder, shapes_of
from ..errors import CheckpointError, UserError, explain
from ..files import ABSENT, FOLDER, FULL, not_there, path_of, what_is
from ..weights.reading.reader import read_saved
from ..weights.reading.sources import bring


def set_resume(cfg: Config, resume: str | None) -> None:
    """Go on from the newest checkpoint (``'auto'``) or from a given one.

    Without a checkpoint ``'auto'`` starts as the config says, with ``load_from``.

    Raises:
        UserError: If the given checkpoint is not there.
    """
    if resume is None:
        return
    if resume != 'auto' and (problem := no_checkpoint(cfg, resume)):
        raise UserError(f'--resume: {problem}')
    if resume == 'auto' and cfg.get('load_from') and WorkFolder.of(cfg).is_empty:
        cfg.resume = False
        return
    cfg.resume = True
    cfg.load_from = None if resume == 'auto' else resume


def no_checkpoint(cfg: Config, given: str) -> str | None:
    """Say why there is no checkpoint at a path; None if there is, or for an address."""
    path = path_of(given)
    # Of a run that shards its parameters it is a folder.
    sharded = cfg.get('strategy') is not None and what_is(path) == FOLDER
    return None if '://' in given or sharded else not_there(path, 'checkpoint')


@contextmanager
def telling_where_to_go_on(runner: Runner) -> Iterator[None]:
    """Train within it, so that what ends a training says from where it goes on.

    Raises:
        UserError: If the disk is full, or the state of a checkpoint is of another kind
            than it should be.
    """
    try:
        yield
    except OSError as error:
        refuse_full_disk(error, runner.cfg, runner.work_dir)
        raise
    except UserError:
        raise
    except Exception as error:
        if runner._resume and any(getattr(h, 'loading', False) for h in runner.hooks):
            raise UserError(
                f"'{runner._load_from}' cannot be resumed, its state does not fit the "
                f'config ({type(error).__name__}: {explain(error)}): write the config '
                'as it was, or load_from and resume = False, which starts at the first '
                'epoch with these weights'
            ) from error
        raise


def refuse_full_disk(error: OSError, cfg: Config, work_dir: str) -> None:
    """Say from where to go on, if a disk is full; other errors are left alone.

    Raises:
        UserError: If it is.
    """
    if error.errno in (*FULL, errno.EROFS):
        raise UserError(
            f'{error.filename or work_dir} cannot be written: '
            f'{os.strerror(error.errno)}; {last_whole(cfg, work_dir)}. Make room '
            'there, and start again with --resume'
        ) from error


def last_whole(cfg: Config, work_dir: str) -> str:
    """Name the checkpoint that a training which stops here goes on with."""
    found = WorkFolder.of(cfg, work_dir).newest().found
    if found is None:
        return 'there is no whole checkpoint yet'
    return f'the last whole checkpoint is {found}'


def settle_start(runner: Runner, force: bool = False) -> None:
    """Choose the checkpoint that a training goes on with, in the first process.

    Args:
        runner: Built, and not started; its ``_resume`` and ``_load_from`` are set.
        force: Whether a training that starts anew may overwrite checkpoints.

    Raises:
        UserError: If it is no whole checkpoint of this detector, or if the training
            would overwrite others that came further.
    """
    answer: list[Any] = [runner._resume, runner._load_from, '']
    given = str(runner._load_from or '')
    if given.startswith(('http://', 'https://')) and runner._resume:
        answer[1] = str(bring(given).path)  # in every process
    if is_main_process():
        try:
            answer[:2] = _decide(runner, answer[1], force)
        except (UserError, CheckpointError) as error:
            answer[2] = str(error)
    broadcast_object_list(answer)
    resume, start, problem = answer
    local = isinstance(start, str) and '://' not in start
    lost = bool(local and what_is(path_of(start)) == ABSENT) and not problem
    if any(all_gather_object(lost)):
        problem = (
            f"the process that trains beside the first one does not find '{start}': "
            'the work folder must be one that all machines see; name it with --work-dir'
        )
    if problem:
        if not is_main_process():  # one message is enough
            raise SystemExit(1)
        raise UserError(problem)
    runner._resume, runner._load_from = resume, start


def _decide(runner: Runner, given: str | None, force: bool) -> tuple[bool, str | None]:
    """Find out whether to go on, and what to load."""
    folder = WorkFolder.of(runner.cfg, runner.work_dir)
    if given and '://' not in given and not runner._resume:
        read_saved(path_of(given), given)
    if not runner._resume:
        if not force:
            _refuse_to_overwrite(folder)
        return False, given
    shapes = _shapes(runner)
    newest = folder.newest(shapes)
    if given:
        refuse_older(folder, newest, given, shapes)
        return True, given
    if newest.skipped:
        print_log(f'not resumed: {newest.reasons}', 'current', logging.WARNING)
    if newest.found is None and folder.address:
        return True, folder.address
    if newest.found is None:
        if newest.skipped:
            raise UserError(
                f'no checkpoint in {runner.work_dir} can be resumed: {newest.reasons}. '
                'To start anew name another folder, --work-dir PATH'
            )
        print_log('there is no checkpoint to resume yet', 'current')
        return False, None
    print_log(f'going on from {newest.found}', 'current')
    return True, str(newest.found.path)


def refuse_older(
    folder: WorkFolder, newest: Newest, given: str, shapes: Shapes | None
) -> None:
    """Make sure that nothing which came further is overwritten.

    Args:
        folder: The work folder.
        newest: What is in it.
        given: The checkpoint that shall be resumed.
        shapes: Of the detector, if they are known.

    Raises:
        UserError: If there is a whole checkpoint that came further.
        CheckpointError: If the given one cannot be resumed.
    """
    if '://' in given:
        return
    progress = folder.progress(path_of(given), shapes)
    found = newest.found
    if found is not None and found[1:] > progress[1:]:
        raise UserError(
            f'{progress} shall be resumed, and {found} came further: it would be '
            'overwritten. Write --resume (load_from = None) to go on with that one, '
            'or another folder, --work-dir PATH'
        )


def _refuse_to_overwrite(folder: WorkFolder) -> None:
    found = folder.newest().found or folder.address
    if found is not None:
        raise UserError(
            f'a training that starts anew would overwrite {found} and those before: '
            'write --resume to go on with it, another folder, --work-dir PATH, or '
            '--force to overwrite them'
        )


def _shapes(runner: Runner) -> Shapes | None:
    model = runner.model
    if not isinstance(model, nn.Module):
        from ..detector_config.detector import DetectorConfig

        model = DetectorConfig(runner.cfg).whole
    elif is_model_wrapper(model):
        model = model.module
    return None if model is None else shapes_of(model)
