"""One training as its work directory tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..detector_config.detector import DetectorConfig
from ..detector_config.read import read_by_name
from ..detector_config.tree import dataset_of, type_name
from ..detector_config.weights import pretrained_of
from ..engine.hooks import PretrainedReportHook
from ..errors import UserError
from ..weights.loading.report import percent
from .costs import Costs, measure_costs
from .logs import Log, read_log

_VARIANT = ('model_name', 'variant', 'arch', 'depth')


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: Of its work directory.
        work_dir: The directory.
        problem: Why there is nothing to compare; empty if there is.
        detector: Its class.
        backbone: Class and variant of its backbone.
        metric: Name of what is compared.
        series: Step and value of the metric after each validation.
        unit: What a step is: ``'epoch'`` or ``'iteration'``.
        reached: Last step of the training.
        planned: Steps that the config asks for; None if it does not say.
        seconds: Time of the training's iterations, without validation.
        memory: Largest memory of the accelerator, in MB; None without one.
        costs: Parameters and operations.
        data: Annotations of the validation.
        pretrained: What the backbone started from, and how much of it was loaded.
        checkpoint: The best one that was kept, or the last; None if none is there.
        notes: What could not be read.
    """

    name: str
    work_dir: str
    problem: str = ''
    detector: str = ''
    backbone: str = ''
    metric: str | None = None
    series: tuple[tuple[int, float], ...] = ()
    unit: str = 'epoch'
    reached: int = 0
    planned: int | None = None
    seconds: float = 0.0
    memory: float | None = None
    costs: Costs = field(default_factory=Costs)
    data: str = ''
    pretrained: str = ''
    checkpoint: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and value of the best validation, the first of equal ones."""
        return max(self.series, key=lambda point: point[1], default=None)

    @property
    def last(self) -> tuple[int, float] | None:
        """Step and value of the last validation."""
        return self.series[-1] if self.series else None

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes, with best and last."""
        named: dict[str, Any] = {}
        for key, point in (('best', self.best), ('last', self.last)):
            named[key] = None if point is None else dict(step=point[0], value=point[1])
        return {**asdict(self), **named}


def read_run(work_dir: Path, metric: str | None = None, with_costs: bool = True) -> Run:
    """Read one work directory.

    Args:
        work_dir: As mmengine's Runner leaves it.
        metric: What to compare, as it is logged; the usual AP if left out.
        with_costs: Build the detector to count parameters and operations.

    Returns:
        The training; with a ``problem`` if no validation of it can be compared.
    """
    log = read_log(work_dir)
    run = Run(work_dir.name, str(work_dir), unit=log.unit)
    cfg, notes = config_of(work_dir, log)
    if cfg is not None:
        run = _with_config(run, cfg)
    chosen = log.metric(metric)
    countable = with_costs and cfg is not None and log.iterations
    costs = measure_costs(cfg) if countable and cfg is not None else Costs()
    if costs.problem:
        notes.append(costs.problem)
    run = replace(
        run,
        metric=chosen,
        series=tuple(log.series(chosen, run.unit)) if chosen else (),
        reached=log.iterations if run.unit == 'iteration' else log.epoch or 0,
        seconds=log.seconds,
        memory=log.memory,
        costs=costs,
        checkpoint=_checkpoint(work_dir),
        notes=tuple(notes),
    )
    loaded = _loaded(work_dir)
    run = replace(run, pretrained=loaded or run.pretrained)
    return replace(run, problem='' if run.series else _reason(run, log, metric))


def _reason(run: Run, log: Log, metric: str | None) -> str:
    """Say why there is no value to compare."""
    if not log.files:
        return 'no work directory of a training: */vis_data/scalars.json is missing'
    if not log.iterations:
        return (
            'only validated, not trained'
            if log.untrained
            else 'stopped before the first iteration was logged'
        )
    if not log.validations and log.empty:
        return 'its validations found nothing at all'
    if not log.validations:
        of = f' of {run.planned}' if run.planned else ''
        return f'no validation finished: stopped in {run.unit} {run.reached}{of}'
    names = ', '.join(dict.fromkeys(n for v in log.validations for n in v.metrics))
    what = f"'{metric}'" if metric else 'AP'
    return f'its validations have no finite {what}; they have {names}'


def config_of(work_dir: Path, log: Log) -> tuple[Config | None, list[str]]:
    """Read the config that the last run used, or say why that fails.

    Args:
        work_dir: As mmengine's Runner leaves it.
        log: What was logged in it.
    """
    beside = [path.with_name('config.py') for path in reversed(log.files)]
    dumped = sorted(work_dir.glob('*.py'), key=lambda path: path.stat().st_mtime)
    for path in [*beside, *reversed(dumped)]:
        if path.is_file():
            cfg, notes = _read(path)
            if cfg is None or isinstance(cfg.get('model'), Mapping):
                return cfg, notes
    return None, ['there is no config in it']


def _read(path: Path) -> tuple[Config | None, list[str]]:
    try:
        return read_by_name(str(path)), []
    except UserError as error:
        note = str(error).splitlines()[0]
    try:
        # Without the modules of its author most of it can still be told.
        return Config.fromfile(path, import_custom_modules=False), [note]
    except Exception:  # said above
        return None, [note]


def _with_config(run: Run, cfg: Config) -> Run:
    config = DetectorConfig(cfg)
    loop = cfg.get('train_cfg') or {}
    iterations = loop.get('max_iters')
    backbone = config.backbone
    try:
        weights = pretrained_of(backbone)
    except TypeError:  # an init_cfg that is none
        weights = None
    return replace(
        run,
        detector=type_name(config.model),
        backbone=_describe(backbone),
        unit='iteration' if iterations else run.unit,
        planned=iterations or loop.get('max_epochs'),
        data=_annotations(cfg),
        pretrained=weights.checkpoint if weights else '',
    )


def _describe(backbone: Mapping[str, Any]) -> str:
    variant = next((backbone[key] for key in _VARIANT if key in backbone), '')
    return f'{type_name(backbone)} {variant}'.strip()


def _annotations(cfg: Config) -> str:
    dataset = dataset_of(cfg, 'val')
    named = dataset.get('ann_file') or ''
    return str(Path(dataset.get('data_root') or '', named)) if named else ''


def _loaded(work_dir: Path) -> str:
    """Say what the report of the loaded weights says; nothing if there is none."""
    try:
        text = (work_dir / PretrainedReportHook.file_name).read_text(encoding='utf-8')
        reports = list(json.loads(text).values())
        return ', '.join(f'{r["source"]} ({percent(r["coverage"])})' for r in reports)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return ''


def _checkpoint(work_dir: Path) -> str | None:
    def number(path: Path) -> int:
        return int(re.findall(r'\d+', path.stem)[-1])

    best = [path for path in work_dir.glob('best_*.pth') if re.search(r'\d', path.stem)]
    every = [*work_dir.glob('epoch_*.pth'), *work_dir.glob('iter_*.pth')]
    every = [path for path in every if re.search(r'\d', path.stem)]
    for files in (best, every):
        if files:
            return str(max(files, key=number))
    return None
