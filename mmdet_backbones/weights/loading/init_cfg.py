"""What ``init_cfg`` of a part of a config says about pretrained weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import ArgumentTypeError


@dataclass(frozen=True)
class Terms:
    """What of a net may stay without weights, and what of a file may be left over.

    Attributes:
        min_coverage: Smallest accepted share of the parameters, 0 to 1. None stands
            for 0.95 and for a file that lacks no tensor; with a number a part of the
            tensors of a role may be missing.
        allow_missing: Roles or names of tensors, as ``fnmatch`` takes them, that the
            file may lack.
        allow_unexpected: The same of tensors of the file that find no place.
        allow_random_frozen: Accept that frozen stages, or statistics that
            ``norm_eval`` keeps fixed, are not in the file.

    Raises:
        TypeError: If a list of patterns is none.
        ValueError: If ``min_coverage`` is not in [0, 1].
    """

    min_coverage: float | None = None
    allow_missing: tuple[str, ...] = ()
    allow_unexpected: tuple[str, ...] = ()
    allow_random_frozen: bool = False

    def __post_init__(self) -> None:
        if self.min_coverage is not None and not 0 <= self.min_coverage <= 1:
            raise ValueError(
                f'min_coverage must be from 0 to 1, got {self.min_coverage}'
            )
        for name in ('allow_missing', 'allow_unexpected'):
            given = getattr(self, name)
            listed = isinstance(given, (list, tuple))
            if not listed or not all(isinstance(entry, str) for entry in given):
                raise TypeError(
                    f'{name} must be a list of names or patterns, got {given!r}: write '
                    f"{name}=['blocks.*.gamma']"
                )
            object.__setattr__(self, name, tuple(given))

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Terms:
        """Read them from an entry of ``init_cfg``, which may say more."""
        return cls(**{key: entry[key] for key in _TERMS if key in entry})


_TERMS = tuple(Terms.__dataclass_fields__)
MMENGINE_ARGUMENTS = ('checkpoint', 'prefix', 'map_location')
ARGUMENTS = (*MMENGINE_ARGUMENTS, *_TERMS)


# Classes of mmdet that read the checkpoint themselves, whatever the type.
_TYPE_IS_IMPLIED = (
    'PyramidVisionTransformer',
    'PyramidVisionTransformerV2',
    'SwinTransformer',
)


def init_cfg_of(part: Mapping[str, Any]) -> Any:
    """Return ``init_cfg`` of a part of a config, with a type that its class implies."""
    given = part.get('init_cfg')
    kind = part.get('type', '')
    if isinstance(kind, type):
        kind = f'{kind.__module__.partition(".")[0]}.{kind.__name__}'
    name = str(kind).removeprefix('mmdet.')
    if name in _TYPE_IS_IMPLIED and isinstance(given, dict) and 'checkpoint' in given:
        return {'type': 'Pretrained', **given}
    return given


def split_entries(init_cfg: Any) -> tuple[list[dict], list[dict]]:
    """Tell entries about pretrained weights from other initialisers.

    Args:
        init_cfg: As mmengine's ``BaseModule`` takes it.

    Returns:
        The ``Pretrained`` entries, and all others.

    Raises:
        TypeError: If it is no dict with a ``type``, nor a list of such.
    """
    entries = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    pretrained: list[dict] = []
    others: list[dict] = []
    for entry in entries if init_cfg else ():
        if not isinstance(entry, dict) or 'type' not in entry:
            source = entry if isinstance(entry, str) else '<path or http address>'
            right = dict(init_cfg=dict(type='Pretrained', checkpoint=source))
            raise ArgumentTypeError(
                'init_cfg must be a dict with a type or a list of such, got '
                f"{entry!r}: write init_cfg=dict(type='Pretrained', "
                f"checkpoint='{source}')",
                right if init_cfg == source else None,
            )
        name = getattr(entry['type'], '__name__', entry['type'])
        is_pretrained = name in ('Pretrained', 'PretrainedInit')
        (pretrained if is_pretrained else others).append(entry)
    return pretrained, others


def split_init_cfg(init_cfg: Any) -> tuple[list[dict[str, Any]], list[dict]]:
    """Separate the arguments of :func:`load_pretrained` from other initialisers.

    Args:
        init_cfg: As mmengine's ``BaseModule`` takes it.

    Returns:
        The arguments of each ``Pretrained`` entry, and all other entries.

    Raises:
        TypeError: If a ``Pretrained`` entry has no or unknown arguments, or
            ``init_cfg`` is no dict with a ``type``, nor a list of such.
    """
    pretrained, others = split_entries(init_cfg)
    found = []
    for entry in pretrained:
        arguments = {key: value for key, value in entry.items() if key != 'type'}
        unknown = [key for key in arguments if key not in ARGUMENTS]
        if unknown or 'checkpoint' not in arguments:
            raise TypeError(
                "init_cfg=dict(type='Pretrained') takes checkpoint, and optionally "
                f'{", ".join(ARGUMENTS[1:])}; got {", ".join(arguments) or "nothing"}'
            )
        found.append(arguments)
    return found, others


def drop_pretrained(
    part: dict[str, Any], unless: Callable[[dict], bool] = lambda entry: False
) -> list[dict]:
    """Take the pretrained weights out of the ``init_cfg`` of a part of a config.

    Args:
        part: Changed in place.
        unless: Tells which entries stay.

    Returns:
        The entries that were taken out.

    Raises:
        TypeError: As :func:`split_entries`.
    """
    pretrained, others = split_entries(init_cfg_of(part))
    dropped = [entry for entry in pretrained if not unless(entry)]
    if dropped:
        kept = [entry for entry in pretrained if entry not in dropped]
        part['init_cfg'] = [*others, *kept] or None
    return dropped
