"""What a benchmark runs: a backbone alone, or a detector with it; random weights."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..catalog.entries import find
from ..check.trial import random_detector, synthetic_batch
from ..errors import UserError, explain
from ..inference.fusion import fuse_for_inference
from ..shapes.counting import counting


@dataclass(frozen=True)
class Settings:
    """How nets are run.

    Attributes:
        size: Height and width of the images in pixels.
        batch: Number of images.
        train: Run forward and backward instead of forward alone; no optimiser.
        device: ``'cpu'`` or ``'cuda'``.
        channels_last: Whether weights and images are in that memory format.
        fuse: Whether batch normalisation is folded into convolutions.
        detector: Config that the backbones are put into, or None for them alone.
        rounds: How often each net is timed.
    """

    size: tuple[int, int] = (640, 640)
    batch: int = 1
    train: bool = False
    device: str = 'cpu'
    channels_last: bool = False
    fuse: bool = False
    detector: str | None = None
    rounds: int = 10

    def problems(self) -> list[str]:
        """Name everything that cannot be run."""
        found = []
        if min(*self.size, self.batch, self.rounds) < 1:
            found.append(
                '--size, --batch and --rounds must be positive, got '
                f'{self.size[0]} x {self.size[1]}, {self.batch} and {self.rounds}'
            )
        if self.train and self.fuse:
            found.append('--fuse is for inference: leave out --train or --fuse')
        if self.device not in ('cpu', 'cuda'):
            found.append(f"--device must be cpu or cuda, got '{self.device}'")
        elif self.device == 'cuda' and not torch.cuda.is_available():
            found.append('--device cuda: torch sees no GPU here; write --device cpu')
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return asdict(self)


@dataclass(frozen=True)
class PreparedNet:
    """One net that is ready to run.

    Attributes:
        name: Of the backbone.
        net: The backbone or the detector.
        step: Runs it once on a batch; waits for nothing.
    """

    name: str
    net: nn.Module
    step: Callable[[], Any]

    @property
    def parameters(self) -> int:
        """Numbers that training changes or froze; folded nets have fewer."""
        return sum(parameter.numel() for parameter in self.net.parameters())


def build_net(name: str, settings: Settings) -> PreparedNet:
    """Build a net and its synthetic images; no weights are read.

    Args:
        name: Of a backbone of the catalog.
        settings: How it is run.

    Raises:
        UserError: If there is no such backbone, the detector does not take it, or it
            does not take images of that size.
    """
    try:
        if settings.detector is None:
            return _alone(name, settings)
        return _in_detector(name, settings)
    except UserError as error:
        raise error if name in str(error) else UserError(f'{name}: {error}') from error
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        height, width = settings.size
        raise UserError(
            f'{name} does not run on images of {height} x {width}: '
            f'{explain(error) or type(error).__name__}'
        ) from error


def count_flops(net: PreparedNet, settings: Settings) -> int:
    """Count the operations of one image, a multiply-add as two.

    Convolutions and matrix products of a step; of forward and backward if trained.
    """
    with counting(net.net, settings.train) as counter:
        net.step()
    return counter.get_total_flops() // settings.batch


def _alone(name: str, settings: Settings) -> PreparedNet:
    from ..registry import MODELS

    entry = find(name)
    net = MODELS.build({**entry.config, **entry.every_level, 'init_cfg': None})
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(settings.batch, 3, *settings.size, generator=generator)
    images = _formatted(images.to(settings.device), settings)
    _prepare(net, settings, example=(images,))

    def forward() -> Any:
        with torch.inference_mode():
            return net(images)

    def train() -> None:
        net.zero_grad(set_to_none=True)
        sum(level.float().mean() for level in net(images)).backward()

    prepared = PreparedNet(name, net, train if settings.train else forward)
    prepared.step()
    return prepared


def _in_detector(name: str, settings: Settings) -> PreparedNet:
    return in_detector(name, _swapped_model(name, str(settings.detector)), settings)


def in_detector(name: str, model: Any, settings: Settings) -> PreparedNet:
    """Build a detector with random weights and synthetic images.

    Args:
        name: Of its backbone.
        model: Of its config, under the default scope that the config has.
        settings: How it is run.
    """
    net = random_detector(model)
    _prepare(net, settings)
    boxes = [3] * settings.batch
    batch = synthetic_batch(model, settings.size, boxes, settings.device)
    batch = net.data_preprocessor(batch, False)
    batch['inputs'] = _formatted(batch['inputs'], settings)

    def predict() -> Any:
        with torch.inference_mode():
            return net(**batch, mode='predict')

    def train() -> None:
        net.zero_grad(set_to_none=True)
        # Some heads write into the samples.
        samples = copy.deepcopy(batch['data_samples'])
        losses = net(inputs=batch['inputs'], data_samples=samples, mode='loss')
        net.parse_losses(losses)[0].backward()

    prepared = PreparedNet(name, net, train if settings.train else predict)
    prepared.step()
    return prepared


def _swapped_model(name: str, detector: str) -> Any:
    from ..swap.swapping import SwapOptions, save

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'one.py'
        # Levels of some nets alone would be projected, which hides what width costs.
        swapped = save(SwapOptions(detector, name, out, keep_width=True))
        config = Config.fromfile(swapped)
    init_default_scope(config.get('default_scope', 'mmdet'))
    return config.model


def _prepare(
    net: nn.Module, settings: Settings, example: tuple[Tensor, ...] | None = None
) -> None:
    if settings.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.to(settings.device)
    # mmdet's own nets return None from train().
    net.train(settings.train)
    if settings.fuse:
        fuse_for_inference(net, inplace=True, example=example)


def _formatted(images: Tensor, settings: Settings) -> Tensor:
    if settings.channels_last:
        return images.contiguous(memory_format=torch.channels_last)
    return images
