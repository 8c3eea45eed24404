"""Why weights do not fit, and the line to write."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from torch import Tensor

from ..names.dialect import is_computed
from ..names.kinds import differ, kind_of, source_of
from .frozen import frozen_problem
from .init_cfg import Terms
from .matching import Match, all_prefixes, match
from .report import LoadReport, percent, some
from .roles import Role, permitted, role_of, unfilled, useless
from .surplus import surplus
from .variants import fitting_variant, is_same_net, namesake, variant_of

if TYPE_CHECKING:
    from ..reading.reader import Checkpoint
    from .target import Target

_LEAST = 0.95
_SHOWN_ROLES = 10


@dataclass(frozen=True)
class _Case:
    """A file laid over a net, and what of it is not in order."""

    backbone: Target
    report: LoadReport
    found: Match
    state_dict: Mapping[str, Tensor]
    prefix: str | None
    terms: Terms
    roles: list[Role]
    extras: list[str]
    deeper: list[str]
    frozen: str
    cure: tuple[str, ...]

    @property
    def name(self) -> str:
        return type(self.backbone).__name__


def refusal(
    backbone: Target,
    report: LoadReport,
    found: Match,
    fitting: Collection[str],
    source: Checkpoint,
    prefix: str | None,
    terms: Terms,
) -> str:
    """Say why weights are not those of a backbone.

    Args:
        backbone: That the weights are for.
        report: Of what would be loaded.
        found: What of the file was found.
        fitting: Keys of the backbone that would be loaded.
        source: The file.
        prefix: That was asked for.
        terms: What is accepted.

    Returns:
        The message: what would be loaded, the cause, and what to write; empty if the
        weights are to be loaded.
    """
    state_dict = source.state_dict
    extras = surplus(backbone, found, state_dict)
    deeper = [name for name in _between(found, state_dict) if name not in extras]
    spared = permitted(found.unexpected, terms.allow_unexpected)
    problem, cure = frozen_problem(backbone, fitting)
    case = _Case(
        backbone,
        report,
        found,
        state_dict,
        prefix,
        terms,
        _refused_roles(backbone, fitting, terms),
        [name for name in extras if name not in spared],
        [name for name in deeper if name not in spared],
        '' if terms.allow_random_frozen else problem,
        cure,
    )
    missing = [*report.missing, *(entry.name for entry in report.mismatched)]
    bound = _bounded(backbone, fitting, permitted(missing, terms.allow_missing))
    least = _LEAST if terms.min_coverage is None else terms.min_coverage
    if bound < least:
        return _too_little(case, bound, least)
    problems = _problems(case)
    if problems:
        return '\n'.join([str(report), *problems, *_acceptance(case)])
    return _needless(terms, missing, found.unexpected)


def _refused_roles(
    backbone: Target, fitting: Collection[str], terms: Terms
) -> list[Role]:
    roles = []
    for role in unfilled(backbone, fitting):
        keys = set(role.keys) - permitted(role.keys, terms.allow_missing)
        if keys and (role.is_empty or terms.min_coverage is None):
            roles.append(role)
    return roles


def _bounded(
    backbone: Target, fitting: Collection[str], spared: Collection[str]
) -> float:
    """Share that is loaded of what is not permitted by name to be missing."""
    sizes = {
        key: value.numel()
        for key, value in backbone.state_dict().items()
        if not is_computed(key) and key not in spared
    }
    loaded = sum(size for key, size in sizes.items() if key in fitting)
    return loaded / sum(sizes.values()) if loaded != sum(sizes.values()) else 1.0


def _too_little(case: _Case, bound: float, least: float) -> str:
    backbone, report, state_dict = case.backbone, case.report, case.state_dict
    cause = (
        _prefix(backbone, report, state_dict)
        or _other_names(case)
        or _other_kind(backbone, state_dict)
        or _other_size(backbone, state_dict, exactly=True)
        or _namesake(case)
        or _other_size(backbone, state_dict)
    )
    text = (
        f'{percent(bound)} of the parameters of {case.name} would be loaded, at least '
        f'{least:.0%} are needed.\n{report}\n{cause or _unknown(report, state_dict)}'
    )
    # The file of another net has no place here, whatever happens to fit.
    return '\n'.join([text, *([] if cause else _acceptance(case, bound))])


def _problems(case: _Case) -> list[str]:
    problems = []
    if case.deeper:
        size = _other_size(case.backbone, case.state_dict)
        if size is not None:
            problems.append(
                f'The file has blocks that {case.name} lacks, between those it has: '
                f'{some(case.deeper)}. {size}'
            )
    if case.extras:
        counts = _counted(case.extras)
        problems.append(
            f'The file has more for the blocks of {case.name} than it takes: {counts}. '
            f'{_whose(case)}'
        )
    if case.roles:
        more = len(case.roles) - _SHOWN_ROLES
        shown = ', '.join(map(str, case.roles[:_SHOWN_ROLES]))
        problems.append(
            f'The file lacks what {case.name} needs, which would keep random values: '
            f'{shown}{f", ... and {more} more" if more > 0 else ""}'
            + ('' if case.extras else f'. {_whose(case)}')
        )
    if case.frozen:
        problems.append(
            f'{case.frozen}. Write a checkpoint that has them, or '
            f'{", ".join(case.cure)} in the backbone'
        )
    return problems


def _counted(names: Sequence[str]) -> str:
    """List roles of names of a file, with how many tensors each has."""
    roles: dict[str, int] = {}
    for name in names:
        roles[role_of(name)] = roles.get(role_of(name), 0) + 1
    return some([f'{r} ({n} tensor{"s" * (n > 1)})' for r, n in roles.items()], 'roles')


def _whose(case: _Case) -> str:
    """Say of which net a file is, as far as it tells."""
    if not case.found.unexpected and not case.report.mismatched:
        return 'It has only a part of this net: write a checkpoint of all of it'
    mine = variant_of(case.backbone)
    return (
        _namesake(case)
        or _other_size(case.backbone, case.state_dict, exactly=True)
        or _other_kind_as_spelled(case)
        or 'The file is of another net, or has other names: write a checkpoint of '
        + (f'a {mine}' if mine else 'this net')
    )


def _other_names(case: _Case) -> str | None:
    if not is_same_net(case.backbone, case.state_dict):
        return None
    mine = variant_of(case.backbone)
    there = source_of(case.state_dict)
    names = f'the names of {there}' if there else f'others ({_first(case.state_dict)})'
    own = _library(case.backbone)
    return (
        f'Cause: other names. The file has the same net under {names}, which '
        f'{case.name} does not read: write a checkpoint of '
        f'{"a " + mine if mine else "it"} under '
        + (
            f'the names of {own}'
            if own
            else f'its names ({_first(_names(case.backbone))})'
        )
    )


def _library(backbone: Target) -> str | None:
    """Name the library whose names the nets of a class have."""
    names = (dialect.name for dialect in backbone.dialects)
    return next((name for name in names if name in ('timm', 'torchvision')), None)


def _first(names: Iterable[str]) -> str:
    return f'{", ".join(islice(names, 3))}, ...'


def _namesake(case: _Case) -> str | None:
    mine = variant_of(case.backbone) if case.report.coverage else None
    theirs = namesake(mine, case.found.prefix, case.state_dict) if mine else None
    if theirs is None or theirs == mine:
        return None
    here = type(case.backbone).__name__ == 'TIMMBackbone'
    kind = '' if here else "type='mmdet_backbones.TIMMBackbone', "
    return (
        f'The file is of a {theirs}, the net is a {mine}: write {kind}'
        f"model_name='{theirs}' in the backbone, or a checkpoint of a {mine}"
    )


def _acceptance(case: _Case, bound: float = 1.0) -> list[str]:
    """The line that accepts a file as it is; none if nothing of it is loaded."""
    report, terms = case.report, case.terms
    if report.coverage == 0:
        return []
    arguments = []
    if case.prefix is not None:
        arguments.append(f'prefix={case.prefix!r}')
    least = terms.min_coverage
    if bound < (_LEAST if least is None else least) or any(
        not role.is_empty for role in case.roles
    ):
        least = int(min(bound, report.coverage) * 100) / 100
    if least is not None:
        arguments.append(f'min_coverage={least}')
    missing = [*terms.allow_missing, *(r.name for r in case.roles if r.is_empty)]
    extras = sorted({role_of(name) for name in (*case.extras, *case.deeper)})
    unexpected = [*terms.allow_unexpected, *extras]
    for name, patterns in (
        ('allow_missing', missing),
        ('allow_unexpected', unexpected),
    ):
        if patterns:
            arguments.append(f'{name}={patterns}')
    if case.frozen or terms.allow_random_frozen:
        arguments.append('allow_random_frozen=True')
    return [
        "To accept the file as it is write init_cfg=dict(type='Pretrained', "
        f"checkpoint='{report.source}', {', '.join(arguments)})"
    ]


def _needless(terms: Terms, missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Refuse permissions that nothing needs: they would hide the next mistake."""
    for name, patterns, names, what in (
        ('allow_missing', terms.allow_missing, missing, 'that is missing in the file'),
        ('allow_unexpected', terms.allow_unexpected, unexpected, 'that is left over'),
    ):
        idle = useless(names, patterns)
        if idle:
            kept = [pattern for pattern in patterns if pattern not in idle]
            return (
                f'{name} permits nothing by {", ".join(map(repr, idle))}: no tensor '
                f'{what} has such a name. Write '
                + (f'{name}={kept}' if kept else f'no {name}')
            )
    return ''


def _prefix(
    backbone: Target, report: LoadReport, state_dict: Mapping[str, Tensor]
) -> str | None:
    expected = backbone.state_dict()
    wanted = sum(not is_computed(key) for key in expected)
    candidates = ['']
    for prefix in all_prefixes(state_dict):
        inside = sum(key.startswith(prefix) for key in state_dict)
        if 2 * inside >= wanted:
            candidates.append(prefix)
    found = match(state_dict, expected, backbone.dialects, candidates)
    coverage = found.coverage(expected)
    if coverage < 0.5 or coverage <= report.coverage:
        return None
    return (
        f"Cause: the prefix. Under '{found.prefix}' the file covers "
        f"{percent(coverage)}: write init_cfg=dict(type='Pretrained', "
        f"checkpoint='{report.source}', prefix='{found.prefix}')"
    )


def _other_kind(backbone: Target, state_dict: Mapping[str, Tensor]) -> str | None:
    here, there = kind_of(_names(backbone)), kind_of(state_dict)
    if not differ(here, there):
        return None
    text = f'Cause: another architecture. The file looks like a {there}, the net is a '
    text += f'{here}: write a checkpoint of a {here}'
    if (here, there) == ('ShuffleNetV2', 'ShuffleNetV1'):
        width = getattr(backbone, 'widen_factor', 1.0)
        text += (
            '. The checkpoint `shufflenet_v1_...` is not for V2; for example write '
            f"checkpoint='torchvision://shufflenet_v2_x{str(width).replace('.', '_')}'"
        )
    return text


def _other_kind_as_spelled(case: _Case) -> str | None:
    # Some names tell a kind in one dialect only.
    spelled = case.found.dialect.spell(case.backbone.state_dict())
    if not differ(kind_of(spelled.values()), kind_of(case.state_dict)):
        return None
    return _other_kind(case.backbone, case.state_dict)


def _names(backbone: Target) -> list[str]:
    """Names of the backbone as its source has them, without wrappers."""
    names = list(backbone.state_dict())
    for dialect in backbone.dialects:
        if dialect.name in ('timm', 'torchvision'):
            return list(dialect.spell(names).values())
    return names


def _other_size(
    backbone: Target, state_dict: Mapping[str, Tensor], exactly: bool = False
) -> str | None:
    if kind_of(state_dict) is None:
        return None
    found = fitting_variant(backbone, state_dict, exactly)
    if found is None:
        return None
    name, arguments = found
    mine = variant_of(backbone)
    if mine == name:
        return None
    return (
        f'Cause: another width or depth. The file is a {name}, the net '
        f'{f"a {mine}" if mine else "is none"}: write {arguments} in the backbone, or '
        f'a checkpoint of {"a " + mine if mine else "the net"}'
    )


def _between(found: Match, state_dict: Mapping[str, Tensor]) -> list[str]:
    """Blocks of a deeper net, in whose file a shallow one finds all it needs."""
    used = {name for entry in found.found.values() for name in entry.names}
    blocks = {block for name in used for block in _blocks(name)}
    containers = {container for container, _ in blocks}
    order = list(state_dict)
    last = max((i for i, name in enumerate(order) if name in used), default=-1)
    rest = {found.prefix + name for name in found.unexpected}
    return [
        name.removeprefix(found.prefix)
        for name in order[:last]
        if name in rest
        and any(b not in blocks and b[0] in containers for b in _blocks(name))
    ]


def _blocks(name: str) -> list[tuple[str, str]]:
    """Numbers in the name of a parameter, each with what stands before it."""
    parts = name.split('.')
    return [
        ('.'.join(parts[:i]), part)
        for i, part in enumerate(parts)
        if part.isdigit() and i
    ]


def _unknown(report: LoadReport, state_dict: Mapping[str, Tensor]) -> str:
    loaded = any(stage.tensors for stage in report.stages.values())
    if report.mismatched and 2 * len(report.mismatched) > len(report.missing):
        return 'Cause: the names fit and the shapes do not, another width or depth'
    if not loaded:
        return f'Cause: no name fits. The file has {_first(state_dict)}: another net'
    return 'Cause: the file has only a part of this net'
