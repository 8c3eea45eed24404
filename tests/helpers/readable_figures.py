"""What is measured of drawn figures: no text is cut off, none lies over another."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

# Margins of fonts are part of their boxes.
_SLACK = 1.0


def visible_texts(figure: Figure) -> list[Text]:
    """All texts that a drawn figure shows, without ticks that are not drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    hidden = set()
    for axes in figure.axes:
        for axis, limits in (
            (axes.xaxis, axes.get_xlim()),
            (axes.yaxis, axes.get_ylim()),
        ):
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                shown = min(limits) <= tick.get_loc() <= max(limits)
                if not (shown and axes.axison):
                    hidden |= {tick.label1, tick.label2}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


def boxes(figure: Figure) -> dict[str, tuple[float, float, float, float]]:
    """Left, bottom, right and top of every text, in pixels."""
    found = {}
    for number, text in enumerate(visible_texts(figure)):
        # Not that of an annotation, which has its arrow.
        box = Text.get_window_extent(text)
        found[f'{number}: {text.get_text()}'] = (box.x0, box.y0, box.x1, box.y1)
    return found


def assert_readable(figure: Figure) -> None:
    """Fail if a text reaches out of the figure or over another text."""
    found = boxes(figure)
    width, height = figure.bbox.size
    outside = {
        name: box
        for name, box in found.items()
        if box[0] < -_SLACK
        or box[1] < -_SLACK
        or box[2] > width + _SLACK
        or box[3] > height + _SLACK
    }
    assert outside == {}, (width, height)
    over = [
        (one, other)
        for (one, a), (other, b) in combinations(found.items(), 2)
        if a[0] + _SLACK < b[2]
        and b[0] + _SLACK < a[2]
        and a[1] + _SLACK < b[3]
        and b[1] + _SLACK < a[3]
    ]
    assert over == []
