"""How long the training of a swapped config takes, for its header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from ..runs.costs import Costs, measure_costs

# Forward, and backward to the maps and to the weights.
_PASSES = 3
# Operations a second: of one core in docs/speed.md (EfficientNet-Lite0 40, ResNets 63
# GFLOP/s) beside 0.15 s of optimiser and small operations (0.2 s a step of YOLOX-tiny
# at 128 pixels in docs/recipes.md, of which 0.07 s are operations), and of an H100 in
# Faster R-CNN's step on 2 x 800 x 1088 pixels (75 ms, in TF32), whose 2,000 launches
# take 60 ms of whatever size the images are.
_CORE, _CORES, _CPU_STEP = 45e9, 2, 0.15
_GPU, _GPU_STEP = 28e12, 0.06


def needs(config: Config, images: int, iterations: int) -> str:
    """Tell how many iterations a training has, and how long they take.

    Args:
        config: All of it.
        images: That are trained on.
        iterations: On one GPU.
    """
    said = f'Needs: {iterations:,} iterations with {images:,} images'
    costs = measure_costs(config)
    batch = (config.get('train_dataloader') or {}).get('batch_size')
    if not costs.flops or not batch:
        return f'{said}.'
    step = _PASSES * batch * (costs.flops + _second_stage(config.model, costs))
    cpu = iterations * (step / (_CORE * _CORES) + _CPU_STEP)
    gpu = iterations * max(step / _GPU, _GPU_STEP)
    return (
        f'{said}, about {_span(cpu)} on two CPU cores and {_span(gpu)} on an H100, '
        f'estimated from {step / 1e9:,.0f} GFLOPs each, without validation.'
    )


def _second_stage(model: Mapping[str, Any], costs: Costs) -> int:
    """Operations of the second stage for one image of the training."""
    trained = (model.get('train_cfg') or {}).get('rcnn') or {}
    first = trained[0] if isinstance(trained, list) else trained
    regions = (first.get('sampler') or {}).get('num') or 0
    return int(regions) * costs.flops_per_region


def _span(seconds: float) -> str:
    """A length of time in the unit that a person would take."""
    if seconds < 90:
        return f'{max(seconds, 1):.0f} seconds'
    if seconds < 90 * 60:
        return f'{seconds / 60:.0f} minutes'
    return f'{seconds / 3600:,.0f} hours'
