"""The checkpoints of a work folder, and which of them a training can go on with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from torch import nn

from ..errors import CheckpointError
from ..files import FILE, what_is
from ..weights.loading.report import some
from ..weights.loading.unchecked import taken_by_mmengine
from ..weights.names.dialect import is_computed
from ..weights.reading.reader import read_saved
from ..weights.reading.values import check_finite

Shapes = Mapping[str, tuple[int, ...]]
# Of the checkpoints that are passed over.
_TOLD = 3
_LONGEST_PATH = 4096
_ADDRESS = re.compile(r'[a-z][\w:]*://\S+$')
_OF_HUB = ('log_scalars', 'runtime_info', 'resumed_keys')


class Progress(NamedTuple):
    """How far the training came that wrote a checkpoint.

    Attributes:
        path: Of the checkpoint.
        iteration: Steps, of all epochs.
        epoch: Whole epochs.
    """

    path: Path
    iteration: int = 0
    epoch: int = 0

    def __str__(self) -> str:
        return f"'{self.path}' (epoch {self.epoch}, iteration {self.iteration})"


@dataclass(frozen=True)
class Newest:
    """What a training in a work folder goes on with.

    Attributes:
        found: The checkpoint that came furthest and is whole; None without any.
        skipped: Those that came further by their names, and why they are not taken.
    """

    found: Progress | None = None
    skipped: dict[Path, str] = field(default_factory=dict)

    @property
    def reasons(self) -> str:
        """Why those that came further are not taken."""
        texts = [f"'{path}' {why}" for path, why in self.skipped.items()]
        more = len(texts) - _TOLD
        return '; '.join(texts[:_TOLD]) + (f'; and {more} more' if more > 0 else '')


def shapes_of(net: nn.Module) -> Shapes:
    """Names and shapes that a checkpoint of a detector has."""
    return {k: tuple(v.shape) for k, v in net.state_dict().items()}


@dataclass(frozen=True)
class WorkFolder:
    """Where the hook of a config puts checkpoints, and what it puts into them.

    Attributes:
        folders: Those that may have some.
        templates: Their names; that of the hook first.
        needed: Keys that a training which goes on needs.
        shards: Whether checkpoints may be folders, which only the strategy that wrote
            them can read.
    """

    folders: tuple[Path, ...]
    templates: tuple[str, ...]
    needed: tuple[str, ...]
    shards: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], work_dir: str | None = None) -> WorkFolder:
        """Read it from a config.

        Args:
            config: All of it.
            work_dir: The work folder; that of the config if left out.
        """
        hook = _hook(config)
        folders, work = [], work_dir or config.get('work_dir')
        if work:
            folders.append(Path(work))
            out = str(hook.get('out_dir') or work)
            if '://' not in out and out != work:
                folders.insert(0, Path(out, Path(work).name))
        by_epoch = hook.get('by_epoch', True)
        usual = ('epoch_{}.pth', 'iter_{}.pth')
        own = hook.get('filename_tmpl') or usual[0 if by_epoch else 1]
        needed = ['message_hub']
        needed += ['optimizer'] if hook.get('save_optimizer', True) else []
        schedules = hook.get('save_param_scheduler', True)
        if schedules and config.get('param_scheduler'):
            needed.append('param_schedulers')
        templates = tuple(dict.fromkeys([own, *usual]))
        shards = config.get('strategy') is not None
        return cls(tuple(folders), templates, tuple(needed), shards)

    def _checkpoints(self) -> Iterator[list[tuple[int, Path]]]:
        """Checkpoints and the numbers in their names, the largest first, by template.

        The last one is the one that ``last_checkpoint`` names, if it has another name.
        """
        known = []
        for template in self.templates:
            yield (found := self._named(template))
            known += [path for _, path in found]
        noted = self._noted()
        if noted is not None and noted not in known:
            yield [(0, noted)]

    @property
    def paths(self) -> list[Path]:
        """All that looks like a checkpoint, the largest numbers first, by template."""
        return [path for group in self._checkpoints() for _, path in group]

    @property
    def is_empty(self) -> bool:
        """Whether nothing in it looks like a checkpoint."""
        return not any(self._checkpoints())

    def _named(self, template: str) -> list[tuple[int, Path]]:
        parts = map(re.escape, re.split(r'\{[^}]*\}', template))
        pattern = re.compile(r'(\d+)'.join(parts))
        files = [p for folder in self.folders for p in _listed(folder)]
        matches = ((pattern.fullmatch(path.name), path) for path in files)
        return sorted(
            ((int(m[1]), path) for m, path in matches if m and m.groups()), reverse=True
        )

    def _noted(self) -> Path | None:
        """The file that ``last_checkpoint`` names, wherever the folder was then."""
        for folder, text in self._notes():
            name = text.replace('\\', '/').rpartition('/')[2]
            if name and '://' not in text and _is_there(folder / name):
                return folder / name
        return None

    def _notes(self) -> Iterator[tuple[Path, str]]:
        for folder in self.folders:
            note = folder / 'last_checkpoint'
            if note.is_file():
                with note.open('rb') as file:
                    text = file.read(_LONGEST_PATH).decode(errors='replace')
                yield folder, text.strip('\0 \r\n\t')

    @property
    def address(self) -> str | None:
        """What ``last_checkpoint`` names if it is not on this machine's disks."""
        texts = (text for _, text in self._notes())
        return next((text for text in texts if _ADDRESS.match(text)), None)

    def newest(self, shapes: Shapes | None = None) -> Newest:
        """Find the checkpoint that came furthest and is whole.

        Args:
            shapes: Of the tensors that it must have; left out, those of any net.
        """
        found: list[Progress] = []
        skipped: dict[Path, str] = {}
        for group in self._checkpoints():
            for number, path in group:
                try:
                    progress = self.progress(path, shapes)
                except CheckpointError as error:
                    skipped[path] = str(error).removeprefix(f"'{path}' ")
                    continue
                found.append(progress)
                # A file that was renamed may hide one that came further.
                if number in progress[1:]:
                    break
        best = max(found, key=lambda progress: progress[1:], default=None)
        return Newest(best, skipped)

    def progress(self, path: Path, shapes: Shapes | None = None) -> Progress:
        """Read how far a checkpoint is, if it is whole and of a net.

        Args:
            path: Of the checkpoint.
            shapes: As for :meth:`newest`.

        Raises:
            CheckpointError: If a training cannot go on with it.
        """
        if self.shards and path.is_dir():
            number = int((re.findall(r'\d+', path.stem) or [0])[-1])
            return Progress(path, number, number)
        if (found := what_is(path)) != FILE:
            raise CheckpointError(f"'{path}' is {found}")
        saved = read_saved(path, str(path))
        content: Any = saved.content if saved.by_torch else None
        if problem := self.problem(content, shapes):
            raise CheckpointError(f"'{path}' {problem}")
        check_finite(taken_by_mmengine(content), str(path))
        meta = content['meta']
        return Progress(path, meta['iter'], meta['epoch'])

    def problem(self, content: Any, shapes: Shapes | None = None) -> str:
        """Say why a training cannot go on with what a file holds; empty if it can.

        Args:
            content: As it was saved.
            shapes: As for :meth:`newest`.
        """
        if not isinstance(content, Mapping):
            return 'is no checkpoint of a training'
        meta = content.get('meta')
        counts = [meta.get(k) for k in ('epoch', 'iter')] if _is_dict(meta) else [None]
        if not all(type(count) is int and count >= 0 for count in counts):
            return (
                'does not say how far a training came (meta.epoch and meta.iter): it '
                'can be loaded, and not be resumed'
            )
        parts = {key: content.get(key) for key in ('state_dict', *self.needed)}
        if isinstance(parts.get('param_schedulers'), list):
            parts.pop('param_schedulers')
        lacking = [key for key, part in parts.items() if not _is_dict(part)]
        hub = content.get('message_hub')
        if _is_dict(hub) and not all(_is_dict(hub.get(key)) for key in _OF_HUB):
            lacking.append('message_hub')
        if lacking:
            return (
                f'has no {", ".join(lacking)}, which a training needs to go on: it can '
                'be loaded, and not be resumed'
            )
        return _other_net(content, shapes) if shapes is not None else ''


def _other_net(content: Mapping[str, Any], shapes: Shapes) -> str:
    here = {n: shape for n, shape in shapes.items() if not is_computed(n)}
    there = {n: tuple(t.shape) for n, t in taken_by_mmengine(content).items()}
    wrong = [name for name, shape in here.items() if there.get(name) != shape]
    more = [name for name in there if name not in shapes and not is_computed(name)]
    if not wrong and not more:
        return ''
    fits = f'has {len(here) - len(wrong)} of the {len(here)} tensors of this detector'
    lost = f', not {some(wrong)}' if wrong else ''
    rest = f', and {len(more)} that it has not: {some(more)}' if more else ''
    return f'is of another net: it {fits}{lost}{rest}'


def _hook(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the hook that saves checkpoints."""
    hooks = [(config.get('default_hooks') or {}).get('checkpoint')]
    hooks += config.get('custom_hooks') or []
    for hook in hooks:
        if _is_dict(hook) and str(hook.get('type')).endswith('CheckpointHook'):
            return hook
    return {}


def _is_dict(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _listed(folder: Path) -> Iterator[Path]:
    try:
        if folder.is_dir():
            yield from folder.iterdir()
    except OSError as error:
        raise CheckpointError(f"'{folder}' cannot be read: {error.strerror}") from error


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # names that no file can have
        return False
