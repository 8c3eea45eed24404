"""Which backbones come into question, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from ..catalog.conditions import fits_licence
from ..catalog.entries import find
from ..catalog.entry import Entry
from ..catalog.figures import Figures, read_figures
from ..catalog.listing import list_backbones
from ..catalog.published import usual_of
from ..errors import UserError

#: Of weights that a user names: nobody else knows what may be done with them.
OWN = "the user's own"


@dataclass(frozen=True)
class Candidate:
    """A backbone for images of one size.

    Attributes:
        name: Of the catalog.
        size: Height and width of the images.
        params: Of the backbone without any head; None if nobody counted them.
        licence: Of the weights that training starts from; None if it starts from none.
        milliseconds: Of the detector with it for one image, None if not measured.
        refused: Why it is left out; empty if it is not.
        weights: Where training starts from, as ``init_cfg`` takes it, or None.
        top1: Accuracy on ImageNet-1k in percent, None if it is not told.
    """

    name: str
    size: tuple[int, int]
    params: int | None = None
    licence: str | None = None
    milliseconds: float | None = None
    refused: str = ''
    weights: str | None = None
    top1: float | None = None

    @property
    def key(self) -> str:
        """Name and size, which no two candidates share."""
        return f'{self.name}@{self.size[0]}x{self.size[1]}'

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Candidate:
        """Read what :meth:`to_dict` gave, also out of JSON."""
        return cls(**{**data, 'size': tuple(data['size'])})


@dataclass(frozen=True)
class Wishes:
    """What a backbone has to be.

    Attributes:
        patterns: Names, or globs of names (``'timm/*lite*'``).
        licence: As :func:`~mmdet_backbones.catalog.conditions.fits_licence` takes it.
        max_params: Parameters without any head.
        no_weights: Whether trainings start from random values.
        checkpoints: Files of weights by name of a backbone, instead of the usual ones.
    """

    patterns: tuple[str, ...]
    licence: str | None = None
    max_params: int | None = None
    no_weights: bool = False
    checkpoints: Mapping[str, str] | None = None


def find_candidates(
    wishes: Wishes, sizes: Sequence[tuple[int, int]]
) -> list[Candidate]:
    """Look backbones up in the catalog; nothing is built.

    Args:
        wishes: What they have to be.
        sizes: Heights and widths of images.

    Returns:
        One for each backbone and size, those that are left out as well. The most
        promising come first: accurate ones, then large ones.

    Raises:
        UserError: If a name or a glob means no backbone, or weights are named for none
            of them.
    """
    named: dict[str, tuple[Entry | None, Figures | None, str]] = {}
    problems = []
    for pattern in wishes.patterns:
        try:
            for name, known in _named(pattern):
                named.setdefault(name, known)
        except UserError as error:
            problems.append(str(error))
    given = wishes.checkpoints or {}
    problems += [
        f"--checkpoint names weights of '{name}', which is no backbone of the search: "
        f'write --backbones {name}, or another name'
        for name in given
        if name not in named and not problems
    ]
    if problems:
        raise UserError('\n'.join(problems))
    found = [
        _candidate(name, entry, figures, refused, wishes, size)
        for name, (entry, figures, refused) in named.items()
        for size in sizes
    ]
    return sorted(found, key=_promise)


def _promise(candidate: Candidate) -> tuple[bool, float, int]:
    top1 = inf if candidate.top1 is None else -candidate.top1
    return bool(candidate.refused), top1, -(candidate.params or 0)


def _named(
    pattern: str,
) -> Iterator[tuple[str, tuple[Entry | None, Figures | None, str]]]:
    """Backbones that a name or a glob means, with figures and why they cannot be."""
    figures = read_figures()
    if not any(sign in pattern for sign in '*?['):
        entry = find(pattern)
        source = figures.get(entry.source)
        # Another tag of weights is another name of the same net.
        bare = entry.name if entry.source != 'timm' else entry.name.partition('.')[0]
        known = source.models.get(bare) if source else None
        broken = (known.refused or known.failed or '') if known else ''
        yield pattern, (entry, known, broken)
        return
    listing = list_backbones(pattern)
    for row in listing.rows:
        yield row.entry.name, (row.entry, row.figures, '')
    for name, reason in listing.refused.items():
        yield name, (None, None, reason)


def _candidate(
    name: str,
    entry: Entry | None,
    known: Figures | None,
    refused: str,
    wishes: Wishes,
    size: tuple[int, int],
) -> Candidate:
    own = (wishes.checkpoints or {}).get(name)
    usual = None if wishes.no_weights or entry is None else entry.weights
    weights = own or usual
    licence = OWN if own else _licence(entry, known) if usual else None
    params = known.parameters if known else None
    reasons = [refused] if refused else []
    if entry is not None and not refused:
        reasons += _unmet(params, licence, wishes)
        if weights is None and not wishes.no_weights:
            reasons.append(
                'there are no known weights of it: --no-weights trains all from '
                f'random values, --checkpoint {name}=FILE.pth starts from a file'
            )
    return Candidate(
        name,
        size,
        params=params,
        licence=licence,
        refused='; '.join(reasons),
        weights=weights,
        top1=known.top1 if known and weights == usual else None,
    )


def _licence(entry: Entry | None, known: Figures | None) -> str | None:
    if known is not None and entry is not None and '.' not in entry.name:
        return known.licence
    usual = usual_of(entry) if entry is not None else None
    return usual.licence if usual else None


def _unmet(params: int | None, licence: str | None, wishes: Wishes) -> Iterator[str]:
    most, wanted = wishes.max_params, wishes.licence
    if most is not None and params is None:
        yield f'nobody counted its parameters, and --max-params is {most / 1e6:g}M'
    elif most is not None and params is not None and params > most:
        yield f'{params / 1e6:.1f}M parameters, --max-params is {most / 1e6:g}M'
    named = licence not in (OWN, None)
    if wanted is not None and named and not fits_licence(licence, wanted):
        yield f'the licence of its weights is {licence}, --licence is {wanted}'
