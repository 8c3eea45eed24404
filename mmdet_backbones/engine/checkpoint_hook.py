"""Checkpoints that are there as a whole, and the last of them at any moment."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    is_main_process,
    master_only,
)
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint

from ..arguments import arguments_of
from ..errors import UserError, explain
from ..files import remove_leftovers, whole_file, write_atomically
from ..registry import HOOKS
from .resuming import last_whole

# In a checkpoint: names of the files that it takes the place of.
_REPLACED = 'replaced_ckpts'
# And the iteration of the last validation before it was saved.
_VALIDATED = 'validated_iter'
# Of an optimiser's state, of the shape of the parameter; of its groups, by its kind.
_AS_PARAMETERS = {'momentum_buffer', 'exp_avg', 'exp_avg_sq'}
_OF_KINDS = {'momentum', 'betas', 'alpha', 'rho', 'lambd', 'etas', 'lr_decay'}


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """Save checkpoints as mmengine's ``CheckpointHook`` does, and lose none.

    A checkpoint is written under another name, brought to the disk, and renamed; only
    then those that it replaces are removed. So while one is written there is room
    needed for one more than ``max_keep_ckpts``, and for two best ones. What a killed
    run left behind is removed by the next one. The command ``train`` takes this hook in
    the place of mmengine's.

    Folders that are not on this machine's disks (``s3://``) and checkpoints that are
    folders (of DeepSpeed, or sharded ones) are written as mmengine writes them; but
    there, too, the older ones are removed last.

    Args:
        on_write_error: What to do when a checkpoint cannot be written because the disk
            is full, a quota is reached or the folder is gone: ``'stop'`` the training
            with one message, or ``'continue'`` without this checkpoint and try again
            when the next one is due. Either way the last whole one stays.
        **kwargs: Those of ``CheckpointHook``.

    Raises:
        ValueError: If ``on_write_error`` is neither.
        TypeError: If ``CheckpointHook`` does not take an argument.
    """

    def __init__(self, on_write_error: str = 'stop', **kwargs: Any) -> None:
        if on_write_error not in ('stop', 'continue'):
            raise ValueError(
                f"on_write_error must be 'stop' or 'continue', got {on_write_error!r}"
            )
        # mmengine keeps those that it does not know, and fails when it saves first.
        known, _ = arguments_of(CheckpointHook)
        for name in kwargs.keys() - known.keys():
            near = get_close_matches(name, known, n=1)
            hint = f'; write {near[0]}' if near else ''
            raise TypeError(f'SafeCheckpointHook takes no argument {name!r}{hint}')
        super().__init__(**kwargs)
        self.file_backend: Any = None
        # Whether a checkpoint has been read, and all that it is for is not set yet.
        self.loading = False
        self.on_write_error = on_write_error

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and finish what a run that was killed had begun there."""
        self.loading = False
        _forget_what_cannot_be(runner.message_hub.runtime_info)
        super().before_train(runner)
        backend = getattr(self.file_backend, 'client', self.file_backend)
        self._local = isinstance(backend, LocalBackend)
        self._find_moved(runner)
        if self._local and is_main_process():
            for folder in {str(self.out_dir), runner.work_dir}:
                remove_leftovers(Path(folder))
            self._remove_replaced(runner)
        self.file_backend = _RemovesLater(self.file_backend)
        if self.save_best and _owes_validation(runner):
            runner.logger.info('validating once more: the run before did not get to it')
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Save the best checkpoint, and note that this one was validated."""
        if self.file_backend is None:
            return  # Runner.val() alone: nothing was trained, so nothing is new
        runner.message_hub.update_info(_VALIDATED, runner.iter)
        super().after_val_epoch(runner, metrics)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse the state of another optimiser, which would fail steps later."""
        self.loading = True
        meta = checkpoint.get('meta')
        if isinstance(meta, dict):
            # mmengine would run the code of this config of its first versions.
            meta.pop('config', None)
        wrapper, state = runner.optim_wrapper, checkpoint.get('optimizer')
        if not runner._resume or not isinstance(wrapper, OptimWrapper) or not state:
            return
        if hasattr(runner, 'strategy'):
            return  # shards of parameters are other groups
        own = wrapper.optimizer.param_groups
        if not _fits(state, own):
            raise UserError(
                'the state of the optimiser in the checkpoint is of another one than '
                f'the {type(wrapper.optimizer).__name__} of the config with its '
                f'{len(own)} groups of parameters: write optim_wrapper as it was, or '
                'load_from and resume = False, which starts at the first epoch with '
                'these weights'
            )

    def _find_moved(self, runner: Runner) -> None:
        """Look for the best checkpoints here, wherever the folder was before.

        The paths in a checkpoint are absolute; after a copy of the folder mmengine
        would remove files of the original.
        """
        info = runner.message_hub.runtime_info
        several = getattr(self, 'best_ckpt_path_dict', None)
        here: dict[str, str] = {}
        for key in [k for k in info if k.startswith('best_ckpt')]:
            name = str(info[key]).replace('\\', '/').rpartition('/')[2]
            # A name that is none of ours is none that may be removed.
            name = name if name.startswith('best_') else 'best_'
            here[key] = self.file_backend.join_path(self.out_dir, name)
        # Every process has to come to the same, also where the folder is not shared.
        there = [{key: self.file_backend.exists(path) for key, path in here.items()}]
        broadcast_object_list(there)
        for key in here:
            path: str | None = here[key] if there[0][key] else None
            if path is not None:
                info[key] = path
            else:
                # Else nothing that is less good than a lost file would be kept.
                info.pop(key)
                info.pop(key.replace('best_ckpt', 'best_score'), None)
            indicator = key.removeprefix('best_ckpt').removeprefix('_')
            if several is not None and indicator in several:
                several[indicator] = path
            elif hasattr(self, 'best_ckpt_path') and not indicator:
                self.best_ckpt_path = path

    def _remove_replaced(self, runner: Runner) -> None:
        """Remove what the checkpoint that this run goes on from replaced."""
        kept = {*self._best_paths(), *self._regular_paths()}
        start = self.filename_tmpl.partition('{')[0] or 'best_'
        for given in runner.message_hub.runtime_info.get(_REPLACED) or []:
            name = Path(str(given)).name
            path = self.file_backend.join_path(self.out_dir, name)
            ours = name.startswith(('best_', start)) and path not in kept
            if ours and self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _best_paths(self) -> list[str]:
        paths = [
            getattr(self, 'best_ckpt_path', None),
            *getattr(self, 'best_ckpt_path_dict', {}).values(),
        ]
        return [str(path) for path in paths if path]

    def _regular_paths(self) -> list[str]:
        steps = getattr(self, 'keep_ckpt_ids', ())
        names = [self.filename_tmpl.format(step) for step in steps]
        return [self.file_backend.join_path(self.out_dir, name) for name in names]

    def _save_checkpoint(self, runner: Runner) -> None:
        with self._all_or_nothing(runner) as saving:
            super()._save_checkpoint(saving)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        wanted = [name for name in self.save_best or () if name != 'auto']
        for name in wanted:
            if name not in metrics:
                raise UserError(
                    f'default_hooks.checkpoint.save_best={name!r} is no metric of the '
                    f'validation: write one of {", ".join(map(repr, metrics))}'
                )
        with self._all_or_nothing(runner) as saving:
            super()._save_best_checkpoint(saving, metrics)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save one, and note in it which ones it replaces; they are removed later."""
        hub, backend = runner.message_hub, self.file_backend
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                name = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                backend.remove(backend.join_path(self.out_dir, name))
            self.keep_ckpt_ids.append(step)
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        hub.update_info(_REPLACED, [Path(path).name for path in backend.noted])
        name = self.filename_tmpl.format(step)
        self.last_ckpt = backend.join_path(self.out_dir, name)
        hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
        )
        if is_main_process():
            try:
                note = Path(runner.work_dir, 'last_checkpoint')
                write_atomically(note, str(self.last_ckpt), durable=True)
            except OSError as error:  # it is found without the note
                runner.logger.warning("'%s' cannot be written: %s", note, error)

    @contextmanager
    def _all_or_nothing(self, runner: Runner) -> Iterator[Any]:
        """Save, then remove what was replaced; or leave all as it was, and tell."""
        names = ('last_ckpt', 'keep_ckpt_ids', 'best_ckpt_path', 'best_ckpt_path_dict')
        own = {n: copy.copy(getattr(self, n)) for n in names if hasattr(self, n)}
        info = runner.message_hub.runtime_info
        before = dict(info)
        saving = _Saving(runner, self._local and _writes_files(runner))
        try:
            yield saving
        except _NotSavedError as error:
            for name, value in own.items():
                setattr(self, name, value)
            info.clear()
            info.update(before)
            self.file_backend.noted.clear()
            for path in saving.new:
                path.unlink(missing_ok=True)
            self._tell(runner, str(error))
        else:
            kept = {*self._best_paths(), *self._regular_paths(), str(self.last_ckpt)}
            self.file_backend.remove_noted(kept)

    def _tell(self, runner: Runner, problem: str) -> None:
        message = f'no checkpoint could be written to {self.out_dir}: {problem}'
        if is_main_process():
            message += f'; {last_whole(runner.cfg, runner.work_dir)}'
        if Path(runner.work_dir).is_dir():
            free = shutil.disk_usage(Path(runner.work_dir)).free / 1e6
            message += f'. {free:.0f} MB are free there'
        if self.on_write_error == 'continue':
            runner.logger.error('%s. The training goes on', message)
            return
        if not is_main_process():  # one message is enough
            raise SystemExit(1)
        raise UserError(
            f'{message}: make room (while one is written, for one more than is kept) '
            'and start again with --resume. With '
            "default_hooks.checkpoint.on_write_error='continue' a training goes on"
        )

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str | None) -> None:
        """As mmengine does it, but for a file that is there as a whole."""
        if not self._local or ckpt_path is None or Path(ckpt_path).is_dir():
            if ckpt_path is not None:
                super()._publish_model(runner, ckpt_path)
            return
        checkpoint = _load_checkpoint(str(ckpt_path))
        published = {k: v for k, v in checkpoint.items() if k in self.published_keys}
        digest = hashlib.sha256(pickle.dumps(published)).hexdigest()
        path = Path(ckpt_path)
        final = path.with_name(f'{path.stem}-{digest[:8]}.pth')
        with whole_file(final, durable=True) as partial:
            torch.save(published, partial)
        left = [key for key in checkpoint if key not in published]
        runner.logger.info('%s is published as %s, without %s', path, final, left)


def _forget_what_cannot_be(info: dict[str, Any]) -> None:
    """Drop notes of a checkpoint that no hook has written."""
    for key in list(info):
        value = info[key]
        if key.startswith('best_score') and not isinstance(value, (int, float)):
            del info[key]
    for key, kind in (('keep_ckpt_ids', int), (_REPLACED, str)):
        given = info.get(key)
        whole = isinstance(given, list) and all(type(one) is kind for one in given)
        if key in info and not whole:
            del info[key]


def _fits(state: dict[str, Any], own: list[dict[str, Any]]) -> bool:
    """Whether an optimiser with these groups can go on with the state of another."""
    try:
        saved = state['param_groups']
        if [_kind_of(group) for group in saved] != [_kind_of(group) for group in own]:
            return False
        numbers = [number for group in saved for number in group['params']]
        parameters = [parameter for group in own for parameter in group['params']]
        return all(
            value.shape == parameter.shape
            for number, parameter in zip(numbers, parameters, strict=True)
            for name, value in state['state'].get(number, {}).items()
            if name in _AS_PARAMETERS and value is not None
        )
    except (TypeError, KeyError, AttributeError):
        return False


def _kind_of(group: dict[str, Any]) -> tuple[int, set[str]]:
    return len(group['params']), _OF_KINDS & group.keys()


class _NotSavedError(Exception):
    """A process could not write its part of a checkpoint."""


class _RemovesLater:
    """A file backend that notes what shall be removed, and removes it when told."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.noted: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        if path not in self.noted:
            self.noted.append(path)

    rmtree = remove

    def remove_noted(self, kept: set[str]) -> None:
        for path in self.noted if is_main_process() else ():
            if path in kept:
                continue
            if self._backend.isfile(path):
                self._backend.remove(path)
            elif self._backend.isdir(path):
                self._backend.rmtree(path)
        self.noted.clear()


class _Saving:
    """A Runner whose checkpoints get their names when they are whole."""

    def __init__(self, runner: Runner, whole: bool) -> None:
        self._runner = runner
        self._whole = whole
        self.new: list[Path] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(
        self, out_dir: str, filename: str, *args: Any, **kwargs: Any
    ) -> None:
        with _together():
            if not self._whole or not is_main_process():
                self._runner.save_checkpoint(out_dir, filename, *args, **kwargs)
                return
            path = Path(out_dir, filename)
            new = not path.exists()
            with whole_file(path, durable=True) as partial:
                self._runner.save_checkpoint(out_dir, partial.name, *args, **kwargs)
            if new:
                self.new.append(path)


@contextmanager
def _together() -> Iterator[None]:
    """Go on in every process of a run, or in none, if one of them cannot write."""
    error: Exception | None = None
    try:
        yield
    except Exception as caught:  # the others have to know of any
        error = caught
    problems = all_gather_object(None if error is None else _reason(error))
    if error is not None and not isinstance(error, OSError):
        raise error
    for problem in problems:
        if problem:
            raise _NotSavedError(problem) from error


def _reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else explain(error)


def _writes_files(runner: Runner) -> bool:
    """Whether checkpoints are files of the first process, and no folders."""
    strategy = getattr(runner, 'strategy', None)
    if strategy is None:
        return True
    from mmengine._strategy import SingleDeviceStrategy

    is_full = getattr(strategy, '_is_full_state_dict', lambda: True)
    return isinstance(strategy, SingleDeviceStrategy) and bool(is_full())


def _owes_validation(runner: Runner) -> bool:
    """Whether a run was killed after an epoch, and before it knew how good that was."""
    loop, done = runner.train_loop, runner.message_hub.runtime_info.get(_VALIDATED)
    if runner.val_loop is None or not runner.iter or done == runner.iter:
        return False
    loop._decide_current_val_interval()
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    now, end = (
        (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    )
    return now >= loop.val_begin and (now % loop.val_interval == 0 or now == end)


def use_safe_checkpoints(config: Config) -> None:
    """Let the hook of this package do what the config asks of mmengine's.

    Args:
        config: The whole config.
    """
    if not config.get('default_hooks'):
        config.default_hooks = {}
    if 'checkpoint' not in config.default_hooks:
        # What a Runner does without being told.
        config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    hooks = [config.default_hooks.checkpoint, *(config.get('custom_hooks') or ())]
    for hook in hooks:
        if isinstance(hook, dict) and _is_mmengines(hook.get('type')):
            hook['type'] = f'mmdet_backbones.{SafeCheckpointHook.__name__}'


def _is_mmengines(kind: Any) -> bool:
    if isinstance(kind, str):
        return kind.rpartition('.')[2] == CheckpointHook.__name__
    return kind is CheckpointHook
