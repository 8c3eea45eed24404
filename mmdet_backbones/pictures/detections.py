"""Draws what was found beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_TRUTH, _FOUND = (90, 255, 90), (255, 190, 60)
_GAP = 12
_CAPTION = 30


@dataclass(frozen=True)
class Box:
    """A box to draw.

    Attributes:
        corners: Left, top, right and bottom, in pixels of the image.
        text: What is written into its corner.
        score: The surer of two boxes is drawn on top.
    """

    corners: tuple[float, float, float, float]
    text: str = ''
    score: float = 1.0


def draw_beside(
    image: Image.Image,
    truth: Sequence[Box],
    found: Sequence[Box],
    captions: tuple[str, str],
    zoom: float = 1.0,
) -> Image.Image:
    """Draw an image twice: left with the truth, right with what was found.

    Args:
        image: RGB.
        truth: Annotated boxes.
        found: Detections.
        captions: What is written above the left and the right picture.
        zoom: Pixels of the picture for each of the image.

    Returns:
        Both, with a gap.
    """
    left = _with_boxes(image, truth, _TRUTH, captions[0], zoom)
    right = _with_boxes(image, found, _FOUND, captions[1], zoom)
    both = Image.new('RGB', (2 * left.width + _GAP, left.height), 'white')
    both.paste(left, (0, 0))
    both.paste(right, (left.width + _GAP, 0))
    return both


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Put pictures below each other."""
    size = (
        max(picture.width for picture in pictures),
        sum(picture.height for picture in pictures) + _GAP * (len(pictures) - 1),
    )
    sheet = Image.new('RGB', size, 'white')
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + _GAP
    return sheet


def _with_boxes(
    image: Image.Image,
    boxes: Sequence[Box],
    colour: tuple[int, int, int],
    caption: str,
    zoom: float,
) -> Image.Image:
    size = [max(1, round(side * zoom)) for side in image.size]
    picture = image.resize((size[0], size[1]))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12)
    for box in sorted(boxes, key=lambda box: box.score):
        x0, y0, x1, y1 = (zoom * value for value in box.corners)
        draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=2)
        place = (x0 + 3, y0 + 1)
        draw.text(place, box.text, colour, font, stroke_width=1, stroke_fill='black')
    canvas = Image.new('RGB', (size[0], size[1] + _CAPTION), 'white')
    canvas.paste(picture, (0, _CAPTION))
    large = ImageFont.load_default(18 if size[0] > 400 else 13)
    ImageDraw.Draw(canvas).text((6, 4), caption, 'black', large)
    return canvas
