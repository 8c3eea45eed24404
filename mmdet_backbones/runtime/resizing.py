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
        UserError: If OpenCV is not installed, and the interpolation is not bilinear or
            Pillow is not installed either.
    """
    try:
        import cv2
    except ModuleNotFoundError:
        if interpolation == 'bilinear':
            return _with_pillow(image, height, width)
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


def _with_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise UserError(
            'images are resized by OpenCV or Pillow, and none of them is installed: '
            'write\n  pip install pillow'
        ) from None
    # Pillow's resize() smooths what it makes smaller, its transform() does not.
    matrix = (image.shape[1] / width, 0, 0, 0, image.shape[0] / height, 0)
    resized = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(resized)
