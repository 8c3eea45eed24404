"""What a swap is asked for, and what cannot be asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..files import target_problem
from ..own_data.for_config import DataFolder
from ..weights import locate_checkpoint

# Nothing is left at the deepest stride of smaller images.
SMALLEST_SIDE = 32
RECIPES = ('fitting', 'base')


@dataclass(frozen=True)
class SwapOptions:
    """What to swap.

    Attributes:
        base: Path of a detector's config, or ``mmdet::folder/name.py``.
        name: Of a backbone of the catalog.
        out: File of the new config.
        strides: Of the levels to use; those of the base if left out.
        checkpoint: Weights of the backbone; the usual ones if left out.
        data: Folder of a data set in COCO's format or Pascal VOC's.
        num_classes: Of the heads; as many as the data has if left out.
        force: Whether ``out`` may be replaced.
        epochs: To train; those of the base, or what few images need, if left out.
        batch: Images per iteration and GPU; those of the base if left out.
        size: Height and width of the images; those of the base if left out.
        lr: Learning rate for the batch of one GPU; that of the recipe if left out.
        no_weights: Whether the backbone starts from random values.
        keep_width: Whether a neck gets as wide as the backbone, whatever it costs.
        frozen_stages: Of the backbone, -1 for none; as in the base if left out.
        recipe: ``'fitting'`` to backbone, data and length, or ``'base'`` for the
            optimiser, rates and hooks of the base.
    """

    base: str
    name: str
    out: Path
    strides: tuple[int, ...] | None = None
    checkpoint: str | None = None
    data: str | None = None
    num_classes: int | None = None
    force: bool = False
    epochs: int | None = None
    batch: int | None = None
    size: tuple[int, int] | None = None
    lr: float | None = None
    no_weights: bool = False
    keep_width: bool = False
    frozen_stages: int | None = None
    recipe: str = 'fitting'


def mistakes_in(options: SwapOptions, folder: DataFolder | None) -> list[str]:
    """Name what is wrong with options as such.

    Args:
        options: What to swap.
        folder: The data set of its own, if it has one.
    """
    target = target_problem(options.out, ('.py',), options.force)
    problems = [target] if target else []
    if (
        '::' not in options.base
        and options.out.resolve() == Path(options.base).resolve()
    ):
        problems.append(
            f"'{options.out}' is the base, which the new config inherits from: write "
            'another name after -o'
        )
    if not options.base.isprintable():
        # It stands in the new config, and in a comment of it.
        problems.append(f'a config without control characters, got {options.base!r}')
    count = options.num_classes
    if count is not None and count < 1:
        problems.append(f'--num-classes must be a positive integer, got {count}')
    if folder is not None and count is not None and count != len(folder.classes):
        problems.append(
            f"--num-classes {count}: '{folder.root}' has {len(folder.classes)} classes "
            f'({", ".join(folder.classes[:5])}...): leave --num-classes out'
        )
    if options.checkpoint is not None:
        try:
            locate_checkpoint(options.checkpoint)
        except CheckpointError as error:
            problems.append(f'--checkpoint: {error}')
    return [*problems, *_wrong_numbers(options)]


def _wrong_numbers(options: SwapOptions) -> Iterator[str]:
    if options.recipe not in RECIPES:
        yield f'--recipe is {" or ".join(RECIPES)}, got {options.recipe!r}'
    if options.no_weights and options.checkpoint is not None:
        yield '--no-weights and --checkpoint contradict each other: leave one out'
    for flag, value in (('--epochs', options.epochs), ('--batch', options.batch)):
        if value is not None and value < 1:
            yield f'{flag} must be a positive integer, got {value}'
    if options.lr is not None and not 0 < options.lr < math.inf:
        yield f'--lr must be a positive number, got {options.lr}'
    if options.size is not None and min(options.size) < SMALLEST_SIDE:
        given = ' '.join(map(str, options.size))
        yield (
            '--size is height and width in pixels, a number each of '
            f'{SMALLEST_SIDE} or more, got {given}'
        )
