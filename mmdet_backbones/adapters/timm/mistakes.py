"""Which argument a net of timm does not take, and what to write in its place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import timm

from ...errors import ArgumentError, ArgumentTypeError
from ..structure import RefusedError, Size, WholeStructure, one_line
from .nets import NORM_NAMES, Options

# Examines the net with other arguments; raises whatever the net raises.
Examine = Callable[[Options], WholeStructure]

# Patches, patches of patches, and windows of them, as timm's families have them.
_MULTIPLES = (1, 2, 4, 8, 14, 16, 28, 32, 48, 56, 64, 96, 112, 128, 224, 256)


def refused(model_name: str, reason: str) -> RefusedError:
    """Say why a net is no backbone, whatever its arguments are."""
    return RefusedError(f"timm's '{model_name}' cannot be a backbone: {reason}")


def explained(
    examine: Examine, model_name: str, options: Options, error: Exception
) -> Exception:
    """Say why a net could not be examined, by trying it without its arguments.

    Args:
        examine: Examines the net with other arguments.
        model_name: As in ``timm.create_model``.
        options: Its arguments.
        error: What the net raised with them.

    Returns:
        What to raise: it names the argument and what to write.
    """
    if not options:
        reason = str(error) if isinstance(error, RefusedError) else one_line(error)
        return refused(model_name, reason)
    for name, value in options:
        others = tuple(option for option in options if option[0] != name)
        try:
            without = examine(others)
        except Exception:  # whatever the net raises: something else is wrong, or more
            continue
        if name == 'img_size' and 'unexpected keyword' not in str(error):
            return _other_size(examine, model_name, others, value, without, error)
        if name == 'norm_layer' and isinstance(error, KeyError):
            return ArgumentError(
                f'timm has no normalisation {value!r}: leave out norm_layer, or write '
                f"one of {', '.join(NORM_NAMES)}, one of timm's names, or a class",
                dict(norm_layer=None),
            )
        unknown = ArgumentTypeError if isinstance(error, TypeError) else ArgumentError
        return unknown(
            f"timm's '{model_name}' does not take {name}={value!r} "
            f'({one_line(error)}): leave out {name}',
            {name: None},
        )
    if 'in_chans' not in dict(options):
        try:
            examine(())
        except Exception as plain:  # whatever a net raises that is no backbone at all
            return explained(examine, model_name, (), plain)
    given = ', '.join(f'{name}={value!r}' for name, value in options)
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(
        f"timm's '{model_name}' cannot be built with {given}: {one_line(error)}"
    )


def _other_size(
    examine: Examine,
    model_name: str,
    others: Options,
    given: Size,
    without: WholeStructure,
    error: Exception,
) -> Exception:
    found = nearest_sizes(examine, model_name, others, given, len(without.levels))
    shown = ' or '.join(f'img_size={size}' for size in found)
    settings: dict[str, Any] = dict(img_size=found[0] if found else None)
    if without.sizes.fixed is None:
        settings = dict(img_size=None)
        cure = 'leave out img_size, as the net takes images of any size then'
        cure += f', or write {shown}' if shown else ''
    elif found:
        cure = f'write {shown}'
    else:
        cure = f'leave out img_size, which makes it {without.sizes.fixed}'
    is_square = len(found) > 1 and all(height == width for height, width in found)
    return ArgumentError(
        f"timm's '{model_name}' does not take img_size={given} ({one_line(error)})"
        f'{", only squares" if is_square else ""}: {cure}',
        settings,
    )


def nearest_sizes(
    examine: Examine, model_name: str, others: Options, given: Size, count: int
) -> list[Size]:
    """Find image sizes that a net takes, by building it for them.

    Args:
        examine: Examines the net with other arguments.
        model_name: As in ``timm.create_model``.
        others: Its arguments but for ``img_size``.
        given: Height and width that were asked for.
        count: Number of levels that the net has to have.

    Returns:
        The given size if it is one; or else the nearest of at least these sides and
        the nearest of at most these, as far as there are any.
    """

    def works(size: Size) -> bool:
        try:
            found = examine((*others, ('img_size', size)))
        except Exception:  # whatever a net raises for a size that it does not take
            return False
        return len(found.levels) >= count

    if works(given):
        return [given]
    cfg: Any = timm.get_pretrained_cfg(model_name)
    declared = cfg.input_size[-2:] if cfg is not None else ()
    multiples = sorted({*_MULTIPLES, *declared})
    larger = _candidates(given, multiples, up=True)
    smaller = _candidates(given, multiples, up=False)
    found = [next(filter(works, sizes), None) for sizes in (larger, smaller)]
    return [size for size in found if size is not None]


def _candidates(given: Size, multiples: list[int], up: bool) -> list[Size]:
    """Sizes of whole multiples and squares of these, by area, nearest first."""

    def rounded(side: int, multiple: int) -> int:
        return side + -side % multiple if up else side - side % multiple

    side = max(given) if up else min(given)
    sizes = {
        (rounded(height, multiple), rounded(width, multiple))
        for height, width in (given, (side, side))
        for multiple in multiples
    }
    possible = [size for size in sizes if all(size) and size != given]
    return sorted(possible, key=lambda size: (math.prod(size), size), reverse=not up)
