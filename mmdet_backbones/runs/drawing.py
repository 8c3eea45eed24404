"""An image with the truth and with detections, side by side; no text is cut off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_TRUTH, _FOUND = (90, 255, 90), (255, 190, 60)
_GAP = 12
# Heights above a picture: with one line of caption, and of each further line.
_CAPTION, _LINE = 30, 22
# Of a caption in few lines, beside a picture that is narrower.
_LEAST_WIDTH = 240

# Left, top, right and bottom.
Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class LabelledBox:
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
    truth: Sequence[LabelledBox],
    found: Sequence[LabelledBox],
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
    size = (max(1, round(image.width * zoom)), max(1, round(image.height * zoom)))
    width = max(size[0], _LEAST_WIDTH)
    font = ImageFont.load_default(18 if size[0] > 400 else 13)
    lines = [wrapped(caption, font.getlength, width - 12) for caption in captions]
    above = _CAPTION + _LINE * (max(map(len, lines)) - 1)
    both = Image.new('RGB', (2 * width + _GAP, above + size[1]), 'white')
    for left, boxes, colour, text in (
        (0, truth, _TRUTH, lines[0]),
        (width + _GAP, found, _FOUND, lines[1]),
    ):
        canvas = Image.new('RGB', (width, above + size[1]), 'white')
        picture = image.resize(size)
        ranked = sorted(boxes, key=lambda box: box.score)
        corners = [_zoomed(box.corners, zoom) for box in ranked]
        for rectangle in corners:
            ImageDraw.Draw(picture).rectangle(rectangle, outline=colour, width=2)
        canvas.paste(picture, (0, above))
        _write_labels(canvas, [box.text for box in ranked], corners, colour, above)
        for number, line in enumerate(text):
            ImageDraw.Draw(canvas).text((6, 4 + _LINE * number), line, 'black', font)
        both.paste(canvas, (left, 0))
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


def wrapped(text: str, measure: Callable[[str], float], width: float) -> list[str]:
    """Break a text into lines, between words and within those that are too long.

    Args:
        text: One line.
        measure: Gives the width of a text.
        width: That no line exceeds, unless one letter does.
    """
    lines = ['']
    for word in text.split():
        joined = f'{lines[-1]} {word}' if lines[-1] else word
        if measure(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append('')
        for letter in word:
            if lines[-1] and measure(lines[-1] + letter) > width:
                lines.append('')
            lines[-1] += letter
    return lines


def _zoomed(corners: Rectangle, zoom: float) -> Rectangle:
    x0, y0, x1, y1 = (zoom * value for value in corners)
    return x0, y0, max(x0, x1), max(y0, y1)


def _write_labels(
    canvas: Image.Image,
    texts: Sequence[str],
    corners: Sequence[Rectangle],
    colour: tuple[int, int, int],
    above: int,
) -> None:
    """Write into the boxes, the last on top."""
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(12)
    labels = []
    for text, (x0, y0, x1, y1) in zip(texts, corners, strict=True):
        _, _, width, height = draw.textbbox((0, 0), text, font, stroke_width=1)
        labels.append(((x0, y0 + above, x1, y1 + above), (width, height)))
    area = (0, above, canvas.width, canvas.height)
    places = place_labels(labels[::-1], area)[::-1]
    for text, place in zip(texts, places, strict=True):
        draw.text(place, text, colour, font, stroke_width=1, stroke_fill='black')


def place_labels(
    labels: Sequence[tuple[Rectangle, tuple[float, float]]], area: Rectangle
) -> list[tuple[float, float]]:
    """Find places for labels: inside the area, and beside each other if that can be.

    Args:
        labels: What is labelled, and the size of the label; the first choose first.
        area: Left, top, right and bottom of what is drawn on.

    Returns:
        Left and top of each label.
    """
    taken: list[Rectangle] = []
    for (x0, y0, x1, y1), (width, height) in labels:
        inside, right = (x0 + 3, y0 + 1), x1 - width - 3
        wishes = (
            inside,
            (x0, y0 - height - 1),
            (x0 + 3, y1 - height - 3),
            (x0, y1 + 1),
            (right, y0 + 1),
            (right, y1 - height - 3),
        )
        room = (area[2] - width - 1, area[3] - height - 1)
        moved = [
            (max(area[0] + 1, min(x, room[0])), max(area[1] + 1, min(y, room[1])))
            for x, y in wishes
        ]
        rectangles = [(x, y, x + width, y + height) for x, y in moved]
        free = (r for r in rectangles if not any(_overlap(r, t) for t in taken))
        taken.append(next(free, rectangles[0]))
    return [(x, y) for x, y, _, _ in taken]


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return (
        one[0] < other[2]
        and other[0] < one[2]
        and one[1] < other[3]
        and other[1] < one[3]
    )
