"""How long the detector takes with each candidate, measured before anything trains."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..check.config import check_config
from ..check.findings import describe, errors_of
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

    The detector is the one that would be trained, with random weights, folded as
    ``predict`` runs it, on one synthetic image.

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
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmdet')):
        net: PreparedNet = in_detector(candidate.name, config.model, settings)
        (times,) = time_rounds([net], settings)
    return statistics.median(times)
