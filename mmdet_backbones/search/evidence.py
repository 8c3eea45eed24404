"""How well a linear model explains labels by features, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Noise against signal, as parts of the largest eigenvalue of the features.
_LOWEST, _HIGHEST, _POINTS = 1e-9, 1e6, 121
_REFINEMENTS = 4


def log_evidence(features: np.ndarray, targets: np.ndarray) -> float:
    """Maximise the evidence of a Bayesian linear regression over both its precisions.

    The quantity of LogME (`arXiv 2102.11005 <https://arxiv.org/abs/2102.11005>`_,
    section 4.1): the log density of the targets where weights have the prior
    N(0, 1 / alpha) and noise is N(0, 1 / beta), integrated over the weights, at the
    best alpha and beta. For a given alpha / beta the best beta is known, so that one
    number is left to look for, and no fixed point that may not be reached.

    Args:
        features: (N, D).
        targets: (N,).

    Returns:
        The log evidence of all N.

    Raises:
        ValueError: If a number is not finite, or the shapes do not fit.
    """
    features, targets = np.asarray(features, float), np.asarray(targets, float)
    if features.ndim != 2 or targets.shape != features.shape[:1] or not len(targets):
        raise ValueError(
            'features are (N, D) and targets (N,), N above 0, got '
            f'{features.shape} and {targets.shape}'
        )
    if not (np.isfinite(features).all() and np.isfinite(targets).all()):
        raise ValueError('features and targets must be finite numbers')
    left, values, _ = np.linalg.svd(features, full_matrices=False)
    return _best(
        values**2, (left.T @ targets) ** 2, float(targets @ targets), len(left)
    )


def _best(spectrum: np.ndarray, along: np.ndarray, total: float, count: int) -> float:
    """Maximise over the ratio of the precisions, on finer and finer grids."""
    # What no direction of the features can explain.
    outside = max(total - along.sum(), 0.0)
    scale = float(spectrum.max(initial=0.0)) or 1.0
    low, high = np.log(_LOWEST * scale), np.log(_HIGHEST * scale)
    best = -np.inf
    for _ in range(1 + _REFINEMENTS):
        grid = np.linspace(low, high, _POINTS)
        ratio = np.exp(grid)[:, None]
        noise = outside + (along * ratio / (spectrum + ratio)).sum(1)
        noise = np.maximum(noise, np.finfo(float).tiny)
        volume = np.log1p(spectrum / ratio).sum(1)
        found = -0.5 * (count * np.log(2 * np.pi * np.e * noise / count) + volume)
        place = int(found.argmax())
        best = max(best, float(found[place]))
        step = grid[1] - grid[0]
        low, high = grid[place] - step, grid[place] + step
    return best


def transferability(
    groups: Sequence[np.ndarray], labels: Sequence[np.ndarray]
) -> float:
    """Score features by how sure they make a linear model of the labels.

    Args:
        groups: Features (N_g, D_g): of boxes of one size, that one level shows.
        labels: (N_g,) of each group.

    Returns:
        By how much the log evidence of a box is above that of noise alone, the mean
        over the labels: 0 where the features say nothing, higher is better. On the
        same boxes the order is that of LogME. Features and targets are taken from
        their mean, as a constant explains nothing.

    Raises:
        ValueError: If there are fewer than two labels, or as :func:`log_evidence`.
    """
    known = np.unique(np.concatenate([np.asarray(part) for part in labels]))
    if len(known) < 2:
        raise ValueError(f'two labels or more can be told apart, got {len(known)}')
    count = sum(len(part) for part in labels)
    total = 0.0
    for features, part in zip(groups, labels, strict=True):
        centred = features - features.mean(0)
        for label in known:
            targets = (part == label).astype(float)
            # Of a label that a group lacks, or has alone, there is nothing to explain.
            if 0 < targets.sum() < len(targets):
                targets -= targets.mean()
                total += log_evidence(centred, targets) - _of_noise(targets)
    return total / (count * len(known))


def _of_noise(targets: np.ndarray) -> float:
    count = len(targets)
    return -0.5 * count * np.log(2 * np.pi * np.e * (targets @ targets) / count)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Correlate the ranks of two rows of numbers, as Spearman does.

    Args:
        one: Such as the guesses.
        other: Such as the APs, in the same order.

    Returns:
        From -1 to 1; None if fewer than three pairs, or all numbers of a row are equal.

    Raises:
        ValueError: If the rows are not equally long.
    """
    if len(one) != len(other):
        raise ValueError(f'{len(one)} numbers cannot be paired with {len(other)}')
    if len(one) < 3:
        return None
    first, second = _ranks(one), _ranks(other)
    if not (first.std() and second.std()):
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(numbers: Sequence[float]) -> np.ndarray:
    """Rank numbers from 0; equal ones share the mean of their places."""
    values = np.asarray(numbers, float)
    below = (values[None] < values[:, None]).sum(1)
    return below + ((values[None] == values[:, None]).sum(1) - 1) / 2
