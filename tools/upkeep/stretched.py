"""Detectors with random weights that find something: synthetic, nothing is trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmdet_backbones.check.trial import random_detector
from mmdet_backbones.deploy.evidence import blocks

# The last layers of heads: those that score, and those that place boxes.
_SCORING = re.compile(
    r'(retina|conv|atss|gfl|tood|rtm)_(cls|centerness|obj)|convs_pred|conv_(cls|obj)'
    r'|heatmap_head|cls_score|object_pred|cls_convs|rpn_cls|fc_cls|cls_branches|cls_embed'
)
_PLACING = re.compile(
    r'(retina|conv|atss|gfl|tood|rtm)_reg|bbox_pred|reg_convs|wh_head|offset_head'
    r'|rpn_reg|fc_reg|reg_branches'
)


def stretched(config: Config, size: tuple[int, int], seed: int = 0) -> Any:
    """Build the detector of a config whose scores differ from place to place.

    Args:
        config: All of it.
        size: Height and width of the noise that the layers are fitted to.
        seed: Of the weights.
    """
    torch.manual_seed(seed)
    init_default_scope(config.get('default_scope', 'mmdet'))
    detector = random_detector(config.model)
    detector.eval()
    stretch(detector, size)
    return detector


@torch.no_grad()
def stretch(detector: Any, size: tuple[int, int]) -> None:
    """Give the last layers of the heads outputs of a useful mean and spread."""
    layers = {
        layer: (-1.5, 1.5) if _SCORING.search(name) else (None, 0.3)
        for name, layer in detector.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
        and layer.bias is not None
        and (_SCORING.search(name) or _PLACING.search(name))
    }
    seen: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}
    hooks = [
        layer.register_forward_hook(lambda m, _, out: seen[m].append(out.flatten()))
        for layer in layers
    ]
    # In turn: one behind another sees what the first one became.
    for layer, (mean, spread) in layers.items():
        for found in seen.values():
            found.clear()
        detect(detector, [blocks(size, 0)])
        if not seen[layer]:
            continue
        values = torch.cat(seen[layer])
        factor = spread / values.std().clamp(min=1e-6)
        layer.weight.mul_(factor)
        middle = (values.mean() - layer.bias.mean()) * factor
        if mean is None:
            layer.bias.mul_(factor)
        else:
            layer.bias.fill_(mean - middle)
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def detect(detector: Any, images: list[np.ndarray], canvas=None) -> list[Any]:
    """What mmdet's own ``predict`` finds in RGB images of any size.

    Args:
        detector: In eval mode.
        images: (H, W, 3) each.
        canvas: Height and width that they are padded to, as in a batch with a larger
            one.
    """
    from mmdet.structures import DetDataSample

    inputs = [torch.from_numpy(i[..., ::-1].copy()).permute(2, 0, 1) for i in images]
    samples = []
    for image in images:
        size = image.shape[:2]
        sample = DetDataSample(metainfo=dict(img_id=0, scale_factor=(1.0, 1.0)))
        sample.set_metainfo(dict(img_shape=size, ori_shape=size, pad_shape=size))
        sample.set_metainfo(dict(border=[0, size[0], 0, size[1]]))
        samples.append(sample)
    if canvas is not None:
        inputs.append(torch.zeros(3, *canvas, dtype=torch.uint8))
        samples.append(samples[0].clone())
        samples[-1].set_metainfo(dict(img_shape=canvas))
    data = detector.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
    found = detector(**data, mode='predict')
    return [one.pred_instances for one in found[: len(images)]]


def swapped(base: str, backbone: str, folder: Path) -> Config:
    """The config of a detector of mmdet on another backbone."""
    from mmdet_backbones.swap.swapping import SwapOptions, save

    out = folder / 'swapped.py'
    save(SwapOptions(f'mmdet::{base}', backbone, out, force=True, no_weights=True))
    return Config.fromfile(out)


def as_trained(config: Config, folder: Path, size: tuple[int, int]) -> Path:
    """Save a stretched detector as a training would leave it.

    Args:
        config: All of it.
        folder: For ``epoch_1.pth`` and the config beside it.
        size: Height and width of the noise that the layers are fitted to.

    Returns:
        The config.
    """
    path = folder / 'stretched.py'
    config.load_from = None
    config.dump(path)
    weights = stretched(config, size).state_dict()
    torch.save(dict(state_dict=weights, meta={}), folder / 'epoch_1.pth')
    return path
