"""How long the detector takes with each candidate, measured before anything trains."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from ..check.config import check_config
from ..check.findings import describe, errors_of
from ..check.trial import random_detector
from ..detector_config.read import read_by_name
from ..errors import CheckpointError, PretrainedWeightsError, UserError, explain
from ..speed.nets import PreparedNet, Settings, in_detector
from ..speed.timing import time_rounds
from ..weights.reading.sources import bring
from .candidates import Candidate
from .options import SearchOptions
from .training import TrialOrder
from .trial_config import TrialSpec, write_trial_config


def measure_candidate(
    candidate: Candidate, options: SearchOptions, order: TrialOrder
) -> Candidate:
    """Swap, check and time a candidate; a slow or a broken one is left out.

    The detector is the one that would be trained, with random weights, on one
    synthetic image: folded as ``predict`` runs it, or exported.

    Args:
        candidate: Without a reason to be left out.
        options: Of the search.
        order: Of its trials.

    Returns:
        It, measured or refused.
    """
    try:
        config = _checked(candidate, order)
        seconds = time_candidate(candidate, config, options)
    except Exception as error:  # of whatever a backbone does in a detector
        told = isinstance(error, (UserError, CheckpointError, PretrainedWeightsError))
        text = str(error) if told else f'{type(error).__name__}: {explain(error)}'
        return replace(candidate, refused=text)
    found = round(1e3 * seconds, 2)
    refused = ''
    if options.latency is not None and found > options.latency:
        refused = (
            f'{found:g} ms on {options.device}, --latency is {options.latency:g} ms'
        )
    return replace(candidate, milliseconds=found, refused=refused)


def _checked(candidate: Candidate, order: TrialOrder) -> Config:
    """The config of the first trial of a candidate.

    Raises:
        UserError: If it cannot be had, or the check finds that it cannot be trained.
        CheckpointError: If its weights are not here and cannot be downloaded.
    """
    spec = TrialSpec(candidate.name, candidate.size)
    if candidate.weights is not None:
        bring(candidate.weights)
    with TemporaryDirectory() as folder:
        out = Path(folder, 'candidate.py')
        write_trial_config(spec, order.swap_options(spec, out, order.epochs))
        config = read_by_name(str(out))
    wrong = errors_of(check_config(config))
    if wrong:
        raise UserError(describe(wrong))
    return config


def time_candidate(
    candidate: Candidate, config: Config, options: SearchOptions
) -> float:
    """Time the detector of a config on one image.

    Returns:
        Seconds, the median of the rounds.
    """
    settings = Settings(
        size=candidate.size, device=options.device, fuse=True, rounds=options.rounds
    )
    with (
        DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmdet')),
        TemporaryDirectory() as folder,
    ):
        if options.latency_of == 'torch':
            net = in_detector(candidate.name, config.model, settings)
        else:
            net = _exported(candidate, config, options.latency_of, Path(folder))
        (times,) = time_rounds([net], settings)
    return statistics.median(times)


def _exported(
    candidate: Candidate, config: Config, engine: str, folder: Path
) -> PreparedNet:
    """The detector as `export` writes it, from pixels to boxes.

    Raises:
        UserError: If it cannot be exported.
    """
    # Importing what only this needs takes seconds.
    from ..deploy import ExportOptions, export
    from ..deploy.evidence import blocks
    from ..runtime import load

    given, weights, out = folder / 'detector.py', folder / 'random.pth', folder / engine
    config.dump(given)
    torch.save(dict(state_dict=random_detector(config.model).state_dict()), weights)
    # What random weights find is no matter: the trained one is proven when exported.
    options = ExportOptions(
        str(given),
        out,
        engine,
        size=candidate.size,
        checkpoint=str(weights),
        force=True,
    )
    detector = load(export(options))
    image = blocks(candidate.size, 0)
    return PreparedNet(candidate.name, nn.Identity(), lambda: detector.predict([image]))
