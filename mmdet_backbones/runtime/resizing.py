"""Images of any size to what the graph takes, as mmdet's Resize and Pad do it."""

from __future__ import annotations

import numpy as np

from ..errors import UserError
from .folder import ResizeRule


def size_for(rule: ResizeRule, height: int, width: int) -> tuple[int, int]:
    """Compute height and width in pixels of an image after resizing.

    With a kept ratio this is mmcv's: the longer side is at most the longer one of
    the rule, the shorter at most the shorter. A graph that takes one size only
    bounds it too, so an upright image becomes smaller in a graph for lying ones.
    """
    fixed = [side or 0 for side in rule.fixed]
    if not rule.keep_ratio:
        return fixed[0] or rule.scale[0], fixed[1] or rule.scale[1]
    factors = [
        max(rule.scale) / max(height, width),
        min(rule.scale) / min(height, width),
    ]
    factors += [
        most / side for most, side in zip(fixed, (height, width), strict=True) if most
    ]
    factor = min(factors)
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def padded_size(rule: ResizeRule, height: int, width: int) -> tuple[int, int]:
    """Compute height and width of what the graph takes for a resized image."""
    wanted = []
    for side, scale, fixed in zip((height, width), rule.scale, rule.fixed, strict=True):
        least = max(side, scale) if rule.pad else side
        wanted.append(fixed or -(-least // rule.divisor) * rule.divisor)
    return wanted[0], wanted[1]


def resize(
    image: np.ndarray, height: int, width: int, interpolation: str = 'bilinear'
) -> np.ndarray:
    """Resize an image as OpenCV does, by OpenCV where it is installed.

    Args:
        image: (H, W, 3) uint8.
        height: In pixels.
        width: In pixels.
        interpolation: Such as ``'bilinear'``.

    Returns:
        (height, width, 3) uint8. Without OpenCV each value is at most one away from
        what it would have been.

    Raises:
        UserError: If OpenCV is not installed, and the interpolation is not bilinear.
    """
    try:
        import cv2
    except ModuleNotFoundError:
        if interpolation == 'bilinear':
            return resize_bilinear(image, height, width)
        raise UserError(
            f"the detector resizes its images by '{interpolation}', which needs "
            'OpenCV: write\n  pip install opencv-python-headless'
        ) from None
    ways = {
        'bilinear': cv2.INTER_LINEAR,
        'nearest': cv2.INTER_NEAREST,
        'bicubic': cv2.INTER_CUBIC,
        'area': cv2.INTER_AREA,
        'lanczos': cv2.INTER_LANCZOS4,
    }
    return cv2.resize(image, (width, height), interpolation=ways[interpolation])


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bilinearly with numpy alone: the four nearest pixels, no smoothing."""
    above, below, down = _neighbours(image.shape[0], height)
    left, right, across = _neighbours(image.shape[1], width)
    down, across = down[:, None, None], across[:, None]
    rows = image[above] * (1 - down) + image[below] * down
    mixed = rows[:, left] * (1 - across) + rows[:, right] * across
    return (mixed + 0.5).astype(np.uint8)


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find for each new pixel the two old ones around its centre, and the share."""
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(centres).astype(int)
    share = (centres - first).astype(np.float32)
    return first.clip(0, old - 1), (first + 1).clip(0, old - 1), share
