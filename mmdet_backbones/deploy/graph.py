"""A detector from pixels to boxes as one module that ``torch.export`` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .decoding import Decoder
from .suppression import Found


@dataclass(frozen=True)
class ImageRules:
    """How a detector wants its images.

    Attributes:
        mean: Subtracted from each channel, in the order of the net.
        std: Divides each channel.
        order: ``'RGB'`` or ``'BGR'``, of the net.
        fill: Value of each channel outside the image, after normalisation.
        clip_to_canvas: Whether boxes may reach into the padding, as where the pipeline
            pads images and mmdet takes that for their size.
        centred: Whether the image lies in the middle of its padding.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    order: str = 'BGR'
    fill: tuple[float, ...] = (0.0, 0.0, 0.0)
    clip_to_canvas: bool = False
    centred: bool = False


class Preprocessing(nn.Module):
    """Pixels as a file has them, made into what the net takes.

    Args:
        rules: How the net wants them.
    """

    mean: Tensor
    std: Tensor
    fill: Tensor

    def __init__(self, rules: ImageRules) -> None:
        super().__init__()
        self.flip = rules.order == 'BGR'
        self.centred = rules.centred
        for name in ('mean', 'std', 'fill'):
            values = torch.tensor(getattr(rules, name), dtype=torch.float32)
            self.register_buffer(name, values.view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Normalise, and fill what lies outside of the images.

        Args:
            images: (N, H, W, 3) uint8, RGB, each in the top left corner.
            sizes: (N, 2) int64, height and width of each without padding.

        Returns:
            (N, 3, H, W) float32.
        """
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)
        if self.flip:
            pixels = pixels[:, [2, 1, 0]]
        pixels = (pixels - self.mean) / self.std
        inside = self._inside(sizes, 0, pixels.shape[2])[:, :, None]
        inside = inside & self._inside(sizes, 1, pixels.shape[3])[:, None, :]
        pixels = torch.where(inside[:, None], pixels, self.fill)
        return self._centre(pixels, sizes) if self.centred else pixels

    @staticmethod
    def _inside(sizes: Tensor, axis: int, length: int) -> Tensor:
        return (
            torch.arange(length, device=sizes.device)[None] < sizes[:, axis : axis + 1]
        )

    @staticmethod
    def _centre(pixels: Tensor, sizes: Tensor) -> Tensor:
        """Move images to where their middle is that of the padded image."""
        for axis in (2, 3):
            length = pixels.shape[axis]
            start = length // 2 - sizes[:, axis - 2 : axis - 1] // 2
            # What goes out at one end is padding, and comes in at the other.
            places = torch.arange(length, device=sizes.device)[None] - start
            places = torch.where(places < 0, places + length, places)
            shape = [-1, 1, length, 1] if axis == 2 else [-1, 1, 1, length]
            pixels = pixels.gather(axis, places.view(shape).expand(pixels.shape))
        return pixels


class DetectorGraph(nn.Module):
    """Preprocessing, net, decoding and suppression in one pass.

    Args:
        model: A detector of mmdet in eval mode.
        decoder: From its maps to boxes.
        rules: How it wants its images.
        half: Whether the net, not what stands around it, computes in float16.
    """

    def __init__(
        self, model: Any, decoder: Decoder, rules: ImageRules, half: bool = False
    ) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(rules)
        self.detector = model.half() if half else model
        self.decoder = decoder
        self.half_net = half
        self.clip_to_canvas = rules.clip_to_canvas

    def forward(self, images: Tensor, sizes: Tensor) -> Found:
        """Detect.

        Args:
            images: (N, H, W, 3) uint8, RGB, resized, each in the top left corner.
            sizes: (N, 2) int64, height and width of each without padding.

        Returns:
            As :meth:`.decoding.Decoder.forward`, in pixels of the resized images.
        """
        pixels = self.preprocessing(images, sizes)
        if self.half_net:
            pixels = pixels.half()
        padded = (pixels.shape[2], pixels.shape[3])
        if self.clip_to_canvas:
            sides = [torch.full_like(sizes[:, :1], side) for side in padded]
            sizes = torch.cat(sides, dim=1)
        features = self.detector.extract_feat(pixels)
        return self.decoder(features, sizes, padded)
