"""From a config and an image to the picture of all levels."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..errors import UserError
from ..files import not_there, target_problem, write_atomically
from .detector import build_detector, check_device
from .levels import LevelView, view_levels
from .photograph import check_image, prepare

LONGEST = 640
_WIDTH = 2.9  # inches of one picture
_LINE = 0.15  # inches of one line of its title
_DPI = 110
_FONT, _LARGE = 8, 11  # points
_HEAT = 'inferno'
_BAD, _MARK = '#c00000', '#30d0ff'


@dataclass(frozen=True)
class DrawingOptions:
    """What to draw, and where to.

    Attributes:
        image: Path of the photograph.
        out: Path of the PNG.
        checkpoint: Of the detector, None for the weights that training starts from.
        device: To run on.
        longest: Longest side of the image for the detector, in pixels.
        force: Whether a file that is there may be replaced.
    """

    image: Path
    out: Path
    checkpoint: str | None = None
    device: str = 'cpu'
    longest: int = LONGEST
    force: bool = False


@dataclass(frozen=True)
class Visualization:
    """What was drawn.

    Attributes:
        views: Levels of the backbone, then of the neck.
        weights: What the weights of the detector are, in one line.
        size: Height and width of what the detector got.
        out: The PNG.
    """

    views: tuple[LevelView, ...]
    weights: str
    size: tuple[int, int]
    out: Path

    @property
    def faults(self) -> list[str]:
        """Every fault with its level."""
        return [
            f'{view.place} {view.number}: {fault}'
            for view in self.views
            for fault in view.faults
        ]


def problems_with(options: DrawingOptions) -> list[str]:
    """Return every reason why nothing can be drawn; none if it can."""
    found = [check_image(options.image), check_device(options.device)]
    ending = options.out.suffix
    endings = (ending if ending.lower() == '.png' else '.png',)
    found.append(target_problem(options.out, endings, options.force))
    checkpoint = options.checkpoint
    if checkpoint and '://' not in checkpoint:
        found.append(not_there(checkpoint, 'checkpoint'))
    if options.longest < 32:
        found.append(f'--size must be 32 pixels or more, got {options.longest}')
    return [problem for problem in found if problem is not None]


def visualize(cfg: Config, options: DrawingOptions) -> Visualization:
    """Draw the levels of a config's detector over an image.

    Args:
        cfg: The whole config.
        options: Without problems, see :func:`problems_with`.

    Raises:
        UserError: If the detector cannot be built or does not take the image.
        CheckpointError: If the checkpoint cannot be read.
        PretrainedWeightsError: If pretrained weights do not cover the backbone.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmdet'):
        detector, weights = build_detector(cfg, options.checkpoint, options.device)
    views, size, png = draw_detector(
        cfg, detector, weights, options.image, options.longest
    )
    write_atomically(options.out, png)
    return Visualization(tuple(views), weights, size, options.out)


def draw_detector(
    cfg: Config, detector: Any, weights: str, image: Path, longest: int = LONGEST
) -> tuple[list[LevelView], tuple[int, int], bytes]:
    """Draw the levels of a detector that is built, over an image.

    Args:
        cfg: The whole config.
        detector: Built from it, in eval mode.
        weights: What they are, in one line.
        image: Path of the photograph.
        longest: Longest side of the image for the detector, in pixels.

    Returns:
        The levels, height and width of what the detector got, and the PNG.

    Raises:
        UserError: If the detector does not take the image, or has no levels.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmdet'):
        photograph = prepare(cfg, detector, image, longest)
        size = (photograph.inputs.shape[2], photograph.inputs.shape[3])
        content = photograph.picture.shape[:2]
        try:
            views = view_levels(detector, photograph.inputs, content)
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            raise UserError(
                f'the detector does not take an image of {size[0]} x {size[1]} pixels: '
                f'{type(error).__name__}: {str(error).splitlines()[0]}'
            ) from error
    if not views:
        raise UserError('the backbone of this detector returns no maps to draw')
    names = [type(getattr(detector, part)).__name__ for part in ('backbone', 'neck')
             if getattr(detector, part, None) is not None]  # fmt: skip
    heading = f'{type(detector).__name__}: {" + ".join(names)}'
    notes = _notes(weights, size, image)
    return views, size, draw_levels(views, photograph.picture, heading, notes)


def _notes(weights: str, size: tuple[int, int], image: Path) -> list[str]:
    return [
        image.name,
        f'{size[0]} x {size[1]} pixels with padding',
        weights,
        'Above: mean of the absolute values over the channels, from 1st to 99th '
        'percentile of the level. One square is one value, drawn where the stride '
        'puts it.',
        "Below: gradient of the level's centre with regard to each pixel (its root); "
        'the blue square holds 90 % of it.',
    ]


def draw_levels(
    views: Sequence[LevelView], picture: np.ndarray, heading: str, notes: Sequence[str]
) -> bytes:
    """Draw :func:`levels_figure`, as a PNG."""
    figure = levels_figure(views, picture, heading, notes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=_DPI)
    return buffer.getvalue()


def levels_figure(
    views: Sequence[LevelView], picture: np.ndarray, heading: str, notes: Sequence[str]
) -> Figure:
    """Draw every level twice: its energy, and its effective receptive field.

    Each value of the energy is drawn as the square of pixels that the declared stride
    gives it, so that with a wrong stride it leaves the image or does not fill it.

    Args:
        views: As :func:`~mmdet_backbones.pictures.levels.view_levels` gives them.
        picture: The image without its padding, of shape (h, w, 3), RGB, 0 to 255.
        heading: What is to be seen.
        notes: Lines for the corner: weights, sizes.
    """
    places = list(dict.fromkeys(view.place for view in views))
    text = fitted('\n'.join(notes), _WIDTH, _FONT)
    figure, grid = _grid(views, places, picture, len(text.splitlines()))
    width, height = figure.get_size_inches()
    heading = fitted(heading, width, _LARGE)
    figure.set_size_inches(width, height + 1.5 * _LINE * heading.count('\n'))
    figure.suptitle(heading, fontsize=_LARGE)
    _draw_image(grid[0, 0], picture)
    _write_notes(grid[1, 0], text)
    for view in views:
        row = 2 * places.index(view.place)
        _draw_energy(grid[row, view.number + 1], view, picture)
        _draw_field(grid[row + 1, view.number + 1], view, picture)
    return figure


def _grid(
    views: Sequence[LevelView],
    places: Sequence[str],
    picture: np.ndarray,
    notes: int,
) -> tuple[Figure, np.ndarray]:
    """Lay out two rows for each place, with a first column for the image."""
    columns = 1 + max(view.number for view in views) + 1
    height = _WIDTH * picture.shape[0] / picture.shape[1]
    heights = []
    for place in places:
        titles = [_title(view) for view in views if view.place == place]
        lines = max(len(title.splitlines()) for title in titles)
        heights += [height + lines * _LINE, height + _LINE]
    heights[1] = max(heights[1], notes * _LINE)
    # Figure without pyplot: no global state, no window, no other backend's turn.
    figure = Figure(
        figsize=(_WIDTH * columns, sum(heights) + 0.15 * len(heights) + 0.4),
        layout='constrained',
    )
    grid = figure.subplots(len(heights), columns, height_ratios=heights)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def scaled(values: np.ndarray) -> np.ndarray:
    """Scale a map to 0 ... 1 between its 1st and 99th percentile.

    What is not finite stays so; a map without any contrast becomes 0.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.full(values.shape, np.nan, np.float32)
    low, high = np.percentile(finite, (1, 99))
    if high - low <= 1e-6 * np.abs(finite).max():
        low, high = finite.min(), finite.max()
    spread = high - low
    if spread <= 1e-6 * np.abs(finite).max():
        return np.where(np.isfinite(values), 0.0, np.nan)
    return np.clip((values - low) / spread, 0, 1)


def fitted(text: str, inches: float, fontsize: float) -> str:
    """Break the lines of a text so that they have room in a width.

    Args:
        text: Lines, each of which is broken for itself.
        inches: Width that there is.
        fontsize: In points.
    """
    # Words in matplotlib's font are seldom wider than this share of their height.
    most = int(inches * 72 / (0.6 * fontsize))
    lines = [line for whole in text.splitlines() for line in textwrap.wrap(whole, most)]
    return '\n'.join(lines)


def _draw_image(axes: Any, picture: np.ndarray) -> None:
    axes.imshow(picture)
    axes.set_title('image, as the detector gets it', fontsize=_FONT)


def _write_notes(axes: Any, text: str) -> None:
    axes.text(0, 1, text, va='top', fontsize=_FONT, transform=axes.transAxes)


def _background(axes: Any, picture: np.ndarray) -> None:
    """Show the image in grey, dimmed, and nothing outside it."""
    grey = picture.mean(2) / 255
    axes.imshow(0.25 + 0.5 * grey, cmap='gray', vmin=0, vmax=1)
    axes.set(xlim=(-0.5, picture.shape[1] - 0.5), ylim=(picture.shape[0] - 0.5, -0.5))


def _draw_energy(axes: Any, view: LevelView, picture: np.ndarray) -> None:
    _background(axes, picture)
    rows, columns = view.size
    if view.stride is not None:
        extent = (0, columns * view.stride, rows * view.stride, 0)
    else:
        extent = (0, view.field.shape[1], view.field.shape[0], 0)
    axes.imshow(
        scaled(view.energy),
        cmap=_HEAT,
        vmin=0,
        vmax=1,
        alpha=0.75,
        interpolation='nearest',
        extent=tuple(side - 0.5 for side in extent),
    )
    # imshow widened the axes to the map.
    axes.set(xlim=(-0.5, picture.shape[1] - 0.5), ylim=(picture.shape[0] - 0.5, -0.5))
    axes.set_title(_title(view), fontsize=_FONT)
    if view.faults:
        axes.title.set(color=_BAD)
        axes.add_patch(_frame(picture, _BAD))


def _title(view: LevelView) -> str:
    said = f'said by {view.declared_by}' if view.declared_by else 'measured'
    idle = f', {view.idle} idle' if view.idle else ''
    lines = [
        f'{view.place} {view.number}: {view.channels} channels{idle}',
        f'{view.size[0]} x {view.size[1]}, stride {view.stride} ({said})',
        *view.faults,
    ]
    return fitted('\n'.join(lines), _WIDTH, _FONT)


def _draw_field(axes: Any, view: LevelView, picture: np.ndarray) -> None:
    _background(axes, picture)
    if not view.reach:
        axes.set_title('no gradient reaches the image', fontsize=_FONT, color=_BAD)
        return
    shown = view.field[: picture.shape[0], : picture.shape[1]]
    # The root, as the field falls off like a Gaussian and its rim would not be seen.
    strength = np.sqrt(shown / max(float(np.percentile(shown, 99.9)), 1e-30)).clip(0, 1)
    axes.imshow(strength, cmap=_HEAT, alpha=0.25 + 0.75 * strength, vmin=0, vmax=1)
    row, column = view.centre
    corner = (column - view.reach / 2, row - view.reach / 2)
    axes.add_patch(
        Rectangle(corner, view.reach, view.reach, fill=False, color=_MARK, lw=1)
    )
    axes.set_title(f'receptive field: 90 % in {view.reach} px', fontsize=_FONT)


def _frame(picture: np.ndarray, colour: str) -> Rectangle:
    height, width = picture.shape[:2]
    return Rectangle((-0.5, -0.5), width, height, fill=False, color=colour, lw=4)
