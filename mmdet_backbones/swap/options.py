"""What a swap is asked for, and what cannot be asked for."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UserError
from ..files import target_problem
from ..levels import FrozenStages
from ..own_data.for_config import DataFolder
from ..weights import locate_checkpoint

# Nothing is left at the deepest stride of smaller images.
SMALLEST_SIDE = 32
RECIPES = ('fitting', 'base')
NECKS = ('sfp', 'adapter')
# Arguments of backbones that other flags decide.
_DECIDED = {
    'type': 'another name of a backbone',
    'model_name': 'another name of a backbone',
    'out_strides': '--strides',
    'out_indices': '--strides',
    'out_image': '--neck adapter',
    'init_cfg': '--checkpoint',
    'pretrained': '--checkpoint or --no-weights',
    'checkpoint_path': '--checkpoint',
}


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
        frozen_stages: Stages of it without training, as its own argument; as far as
            those of the base if left out.
        keep_width: Whether a neck gets as wide as the backbone, whatever it costs.
        neck: Pyramid for the one map of a plain ViT: ``'sfp'``, ViTDet's simple feature
            pyramid, or ``'adapter'``, which also looks at the image; the first if left
            out.
        backbone_options: Arguments of the backbone's class, ``NAME=VALUE`` each.
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
    frozen_stages: FrozenStages | None = None
    keep_width: bool = False
    neck: str | None = None
    backbone_options: tuple[str, ...] = ()
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


def backbone_arguments(options: SwapOptions) -> dict[str, Any]:
    """Read what is asked of the backbone's class.

    Args:
        options: What to swap.

    Returns:
        Values by argument; text that is no Python value is taken as it is.

    Raises:
        UserError: Lists what is no ``NAME=VALUE``, and what other flags decide.
    """
    found, problems = {}, []
    for text in options.backbone_options:
        name, equals, value = text.partition('=')
        if not equals or not name.isidentifier() or not value:
            problems.append(
                '--backbone-option takes NAME=VALUE, such as window_size=14 or '
                f'"global_blocks=[2,5,8,11]", got {text!r}'
            )
        elif name in _DECIDED:
            problems.append(f'--backbone-option {name}: write {_DECIDED[name]} instead')
        elif name in found:
            problems.append(f'--backbone-option {name} stands there twice: keep one')
        else:
            try:
                found[name] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                found[name] = value
    if problems:
        raise UserError('; '.join(problems))
    return found


def _wrong_numbers(options: SwapOptions) -> Iterator[str]:
    if options.recipe not in RECIPES:
        yield f'--recipe is {" or ".join(RECIPES)}, got {options.recipe!r}'
    if options.neck is not None and options.neck not in NECKS:
        yield f'--neck is {" or ".join(NECKS)}, got {options.neck!r}'
    if options.neck is not None and options.strides is not None:
        yield (
            '--neck makes maps of the strides of the base, --strides asks for levels '
            'of the backbone: leave one out'
        )
    if options.no_weights and options.checkpoint is not None:
        yield '--no-weights and --checkpoint contradict each other: leave one out'
    if options.no_weights and options.frozen_stages not in (None, -1):
        yield (
            f'--frozen-stages {options.frozen_stages} would keep the random values of '
            '--no-weights: leave one out'
        )
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
