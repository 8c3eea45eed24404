"""From a config and an image to the picture of all levels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..errors import UserError
from ..files import write_atomically
from .detector import build_detector, check_device
from .levels import LevelView, view_levels
from .photograph import check_image, prepare

LONGEST = 640


@dataclass(frozen=True)
class Order:
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


def problems_with(order: Order) -> list[str]:
    """Return every reason why an order cannot be carried out; none if it can."""
    found = [check_image(order.image), check_device(order.device), _place(order)]
    checkpoint = order.checkpoint
    if checkpoint and '://' not in checkpoint and not Path(checkpoint).is_file():
        found.append(f"there is no checkpoint '{checkpoint}'")
    if order.longest < 32:
        found.append(f'--size must be 32 pixels or more, got {order.longest}')
    return [problem for problem in found if problem is not None]


def _place(order: Order) -> str | None:
    out = order.out
    if out.suffix.lower() != '.png':
        return f"-o must end in .png, got '{out}'"
    if out.is_dir():
        return f"-o '{out}' is a folder: name a file in it"
    if out.exists() and not order.force:
        return f"-o '{out}' is there already: --force replaces it"
    near = next(parent for parent in out.absolute().parents if parent.exists())
    return None if near.is_dir() else f"-o '{out}': '{near}' is a file"


def visualize(cfg: Config, order: Order) -> Visualization:
    """Draw the levels of a config's detector over an image.

    Args:
        cfg: The whole config.
        order: Without problems, see :func:`problems_with`.

    Raises:
        UserError: If the detector cannot be built or does not take the image.
        CheckpointError: If the checkpoint cannot be read.
        PretrainedWeightsError: If pretrained weights do not cover the backbone.
    """
    from .drawing import draw_levels

    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmdet'):
        detector, weights = build_detector(cfg, order.checkpoint, order.device)
        photograph = prepare(cfg, detector, order.image, order.longest)
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
    png = draw_levels(views, photograph.picture, heading, _notes(weights, size, order))
    try:
        write_atomically(order.out, png)
    except OSError as error:
        raise UserError(f"-o '{order.out}' cannot be written: {error}") from error
    return Visualization(tuple(views), weights, size, order.out)


def _notes(weights: str, size: tuple[int, int], order: Order) -> list[str]:
    return [
        order.image.name,
        f'{size[0]} x {size[1]} pixels with padding',
        weights,
        'Above: mean of the absolute values over the channels, from 1st to 99th '
        'percentile of the level. One square is one value, drawn where the stride '
        'puts it.',
        "Below: gradient of the level's centre with regard to each pixel (its root); "
        'the blue square holds 90 % of it.',
    ]
