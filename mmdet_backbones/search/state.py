"""What a search knows, in one file that is whole at any time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_atomically
from ..own_data.for_config import read_folder
from ..runs.folders import SEARCH
from .candidates import Candidate
from .options import SearchOptions
from .training import versions
from .trial_config import TrialSpec

WAITING, RUNNING, FINISHED = 'unfinished', 'running', 'finished'
STOPPED, FAILED = 'stopped', 'failed'


@dataclass
class TrialRecord:
    """One trial and what it came to.

    Attributes:
        spec: What was trained.
        status: ``'running'``, ``'finished'`` (all epochs), ``'stopped'`` (others were
            better), ``'failed'`` or ``'unfinished'`` (the time was over).
        series: Epoch and AP after each validation.
        error: Why it failed.
        seconds: Of its processes.
        nodes: Of the cluster that it ran on.
    """

    spec: TrialSpec
    status: str = RUNNING
    series: dict[float, float] = field(default_factory=dict)
    error: str = ''
    seconds: float = 0.0
    nodes: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether it is not started again."""
        return self.status in (FINISHED, STOPPED, FAILED)

    @property
    def ap(self) -> float:
        """The best one."""
        return max(self.series.values(), default=0.0)

    @property
    def epoch(self) -> float:
        """The last one that was validated."""
        return max(self.series, default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        found = {**asdict(self), 'name': self.spec.name, 'ap': self.ap}
        return {**found, 'series': [list(point) for point in self.series.items()]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialRecord:
        """Read what :meth:`to_dict` gave, also out of JSON."""
        spec = TrialSpec(**{**data['spec'], 'size': tuple(data['spec']['size'])})
        kept = {key: data[key] for key in ('status', 'error', 'seconds', 'nodes')}
        return cls(spec, series={e: ap for e, ap in data['series']}, **kept)


@dataclass
class SearchState:
    """A search, as ``search.json`` in its folder tells it.

    Attributes:
        folder: Of the search.
        chosen: The options that decide which trainings there are.
        data: Hash of the data set.
        versions: Of the packages that trained.
        candidates: All, those that are left out as well.
        trials: By the name of the trial's folder.
        spent: Seconds of all runs together.
        winner: Name of the best trial, once there is one.
    """

    folder: Path
    chosen: dict[str, Any]
    data: str
    versions: dict[str, str] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    spent: float = 0.0
    winner: str | None = None

    @property
    def usable(self) -> list[Candidate]:
        """Candidates that are not left out."""
        return [found for found in self.candidates if not found.refused]

    def candidate_of(self, spec: TrialSpec) -> Candidate:
        """The candidate that a trial trains."""
        key = Candidate(spec.backbone, spec.size).key
        return next(found for found in self.candidates if found.key == key)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return dict(
            chosen=self.chosen,
            data=self.data,
            versions=self.versions,
            spent=round(self.spent, 1),
            winner=self.winner,
            candidates=[candidate.to_dict() for candidate in self.candidates],
            trials=[record.to_dict() for record in self.trials.values()],
        )

    def write(self) -> None:
        """Write the file, whole and durable."""
        text = json.dumps(self.to_dict(), indent=1) + '\n'
        write_atomically(self.folder / SEARCH, text, durable=True)


#: Gets a search and what just happened.
Shows = Callable[[SearchState, str], None]


class Clock:
    """What is left of the hours of a search, those of earlier runs counted.

    Args:
        state: Of the search; it keeps what is spent.
        hours: Of all runs together.
    """

    def __init__(self, state: SearchState, hours: float) -> None:
        self.state = state
        self.before = state.spent
        self.started = time.monotonic()
        self.seconds = 3600 * hours

    def note(self) -> None:
        """Write down what is spent."""
        self.state.spent = self.before + time.monotonic() - self.started

    def left(self) -> float:
        """Seconds."""
        self.note()
        return self.seconds - self.state.spent


def open_search(options: SearchOptions, resume: bool = False) -> SearchState:
    """Read the search of a folder, or begin one in it.

    Args:
        options: Of the search.
        resume: Whether there must be one already.

    Raises:
        UserError: If the folder holds another search, or something else.
    """
    path = options.out / SEARCH
    chosen, data = options.chosen(), digest_of(options.data)
    if not path.is_file():
        if resume:
            raise UserError(f"--resume: there is no search in '{options.out}'")
        if options.out.is_dir() and any(options.out.iterdir()):
            raise UserError(f"-o '{options.out}' holds something else: name another")
        return SearchState(options.out, chosen, data, versions())
    try:
        state = _read(path)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' is damaged ({type(error).__name__}: {error}): name another -o"
        ) from error
    differing = _differing(state, chosen, data)
    if differing:
        raise UserError(
            f"-o '{options.out}' holds a search with other settings, name another "
            f'folder or write them as they were: {"; ".join(differing)}'
        )
    return state


def _read(path: Path) -> SearchState:
    content = json.loads(path.read_text(encoding='utf-8'))
    candidates = [Candidate.from_dict(one) for one in content.pop('candidates')]
    records = [TrialRecord.from_dict(one) for one in content.pop('trials')]
    trials = {record.spec.name: record for record in records}
    return SearchState(path.parent, candidates=candidates, trials=trials, **content)


def _differing(state: SearchState, chosen: Mapping[str, Any], data: str) -> list[str]:
    found = [
        f'{name} was {state.chosen.get(name)}, is {value}'
        for name, value in chosen.items()
        if state.chosen.get(name) != value
    ]
    return found + (['the data have changed'] if data != state.data else [])


def digest_of(data: str) -> str:
    """Hash the annotations of a data set, and names and sizes of its images.

    Args:
        data: Its folder.

    Raises:
        UserError: If it is no data set.
    """
    folder = read_folder(data)
    digest = sha256()
    root = Path(folder.root)
    for split in (folder.train, folder.val):
        digest.update((root / split.annotations).read_bytes())
        for path in sorted((root / split.images).rglob('*')):
            if path.is_file():
                size = path.stat().st_size
                digest.update(f'{path.relative_to(root)} {size}\n'.encode())
    return digest.hexdigest()
