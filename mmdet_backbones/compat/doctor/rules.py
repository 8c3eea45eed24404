"""Known-bad environments: a snapshot goes in, findings with their cure come out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mmdet_backbones.commands import TOOLS, command
from mmdet_backbones.compat.doctor.snapshot import LATE, ONEDL, UPSTREAM, Snapshot

try:
    from packaging.specifiers import SpecifierSet
except ModuleNotFoundError:  # which is then a finding, and versions stay unjudged
    SpecifierSet = None  # type: ignore[assignment, misc]

ERROR = 'error'
WARNING = 'warning'
#: Versions that this package is tested with; cures install these.
TESTED = {
    'mmdet': '3.3.0',
    'mmcv-lite': '2.1.0',
    'mmengine': '0.10.7',
    'mmpretrain': '1.2.0',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmcv': '2.3.6',
    'onedl-mmengine': '0.10.12',
    'onedl-mmpretrain': '1.3.6',
    'torch': '2.14.1',
    'torchvision': '0.29.1',
    'timm': '1.0.31',
}
#: Distribution -> versions allowed.
RANGES = {
    'mmdet': '>=3.3.0,<3.4',
    'mmcv': '>=2.0.0,<2.2.0',
    'mmcv-lite': '>=2.0.0,<2.2.0',
    'mmcv-full': '>=2.0.0,<2.2.0',
    'mmengine': '>=0.10.5,<1.0',
    'mmpretrain': '>=1.2.0,<1.3',
    'onedl-mmdetection': '>=3.5.0,<3.6',
    'onedl-mmcv': '>=2.3.0,<2.4',
    'onedl-mmengine': '>=0.10.8,<1.0',
    'onedl-mmpretrain': '>=1.3.0,<1.4',
    'torch': '>=2.5,<3',
    'timm': '>=1.0.20,<1.1',
}
_SETS = ('-r requirements.txt -c requirements/constraints.txt',
         '-r requirements/onedl.txt')  # fmt: skip
_PAIR = (
    'pip uninstall -y torch torchvision && pip install '
    f'torch=={TESTED["torch"]} torchvision=={TESTED["torchvision"]}'
)
# From one index, the second one without a GPU.
_TORCH_PAIR = (_PAIR, f'{_PAIR} --index-url https://download.pytorch.org/whl/cpu')
_NEEDED = ('mmdet', 'mmcv', 'mmengine', 'torch', 'torchvision', 'numpy', 'pycocotools',
           'lazy_loader', 'packaging')  # fmt: skip
_OPTIONAL = {
    'mmpretrain': 'Its backbones cannot be built',
    'timm': 'Its backbones cannot be built',
    'defusedxml': "Folders in Pascal VOC's format cannot be read",
}
_NO_MODULE = re.compile(r"No module named '(\w+)")
_CARRIERS = {'cv2': 'opencv-python', 'PIL': 'pillow', 'sklearn': 'scikit-learn'}
# Trial -> what its failure means, and the cure. One cause breaks many imports: the
# first failure speaks.
_REINSTALL = 'pip install --force-reinstall --no-deps --no-cache-dir'
_BROKEN = {
    'torch': ('a library that it needs is missing or of another version', _TORCH_PAIR),
    'numpy': ('its files are of several versions', (f'{_REINSTALL} numpy',)),
    # libGL and its like come with a desktop; the headless build needs none.
    'cv2': ('it does not fit numpy, or needs a desktop', (
        'pip uninstall -y opencv-python && pip install opencv-python-headless',)),
    'pycocotools': ('it does not fit numpy', (f'{_REINSTALL} pycocotools',)),
}  # fmt: skip
_LAST = ('mmdet_backbones', 'mmdet', 'mmcv.ops', 'mmpretrain')


@dataclass(frozen=True)
class EnvironmentFinding:
    """One thing that is wrong with an environment.

    Attributes:
        severity: ``error`` (something does not work) or ``warning``.
        id: Short name of the kind of finding, for scripts.
        problem: What is allowed and what was found.
        cure: Lines to type; each one alone is a cure.
    """

    severity: str
    id: str
    problem: str
    cure: tuple[str, ...]


_Findings = Iterator[EnvironmentFinding]


def _error(kind: str, problem: str, *cure: str) -> EnvironmentFinding:
    return EnvironmentFinding(ERROR, kind, problem, cure)


def _warning(kind: str, problem: str, *cure: str) -> EnvironmentFinding:
    return EnvironmentFinding(WARNING, kind, problem, cure)


def fits(version: str, allowed: str) -> bool:
    """Tell whether a version is in a range, such as ``>=2.5,<3``."""
    return SpecifierSet is None or SpecifierSet(allowed).contains(version, True)


def torchvision_for(torch: str) -> str:
    """Give the torchvision series of a torch: 2.14.1 goes with 0.29."""
    major, minor = (int(n) for n in [*re.findall(r'\d+', torch), '0', '0'][:2])
    return f'0.{minor + 15}' if major >= 2 else f'0.{minor + 1}'


def _environments(found: Snapshot) -> _Findings:
    python, onedl = found.python, found.onedl()
    if not fits(python, '>=3.10,<3.13'):
        problem = f'Python 3.10, 3.11 or 3.12 is needed, this is {python}.'
        yield _error('python-version', problem, _new_environment('3.11', _SETS[0]))
    if found.upstream() and onedl:
        yield _error(
            'mixed-families',
            'Upstream and onedl packages share their import names and may not stand in '
            f'one environment: found {found.shown(*found.upstream())} together with '
            f'{found.shown(*onedl)}. Uninstalling one family deletes files of the '
            'other, so only a new environment is clean.',
            *(_new_environment('.'.join(python.split('.')[:2]), s) for s in _SETS),
        )


def _new_environment(python: str, wanted: str) -> str:
    folder = '.venv-new'
    return f'python{python} -m venv {folder} && {folder}/bin/pip install {wanted}'


def _missing_packages(found: Snapshot) -> _Findings:
    family = ONEDL if found.onedl() and not found.upstream() else UPSTREAM

    def missing(name: str) -> bool:
        carriers = (name, *UPSTREAM.get(name, ()), *ONEDL.get(name, ()))
        return not any(map(found.has, carriers))

    needed = list(filter(missing, _NEEDED))
    if needed:
        yield _error(
            'missing-packages',
            f'Nothing works without {", ".join(needed)}: not installed.',
            'pip install ' + ' '.join(_pinned(*family.get(n, ()), n) for n in needed),
        )
    for name in filter(missing, _OPTIONAL):
        problem = f'{_OPTIONAL[name]} without {name}: not installed.'
        line = f'pip install {_pinned(*family.get(name, ()), name)}'
        yield _warning('missing-packages', problem, line)


def _pinned(*names: str) -> str:
    tested = next((name for name in names if name in TESTED), None)
    return f'{tested}=={TESTED[tested]}' if tested else names[-1]


def _missing_dependencies(found: Snapshot) -> _Findings:
    # What is installed for those that are missing brings its own with it.
    if any(finding.severity == ERROR for finding in _missing_packages(found)):
        return
    needed_by: dict[str, list[str]] = {}
    for trial in found.trials:
        match = _NO_MODULE.search(found.error(trial))
        # The others are told by rules of their own.
        if match and match[1] not in ('pkg_resources', *_NEEDED, *_OPTIONAL):
            needed_by.setdefault(match[1], []).append(trial)
    for module, trials in needed_by.items():
        yield _error(
            'missing-dependency',
            f'{", ".join(trials)} cannot be imported without the package {module}, '
            'which is not installed.',
            f'pip install {_CARRIERS.get(module, module.replace("_", "-"))}',
        )


def _versions(found: Snapshot) -> _Findings:
    several = [name for name in UPSTREAM['mmcv'] if found.has(name)]
    if len(several) > 1:
        yield _error(
            'several-mmcv',
            'One of mmcv and mmcv-lite may be installed, not both, since they write '
            f'the same files: found {found.shown(*several)}.',
            _lite_instead_of(*several),
        )
    for name in filter(found.has, RANGES):
        version = found.versions[name]
        if fits(version, RANGES[name]):
            continue
        supported = (
            RANGES[name].replace('=', '= ').replace('<', '< ').replace(',', ', ')
        )
        problem = f'{name} {supported} is supported, found {version}'
        if name in UPSTREAM['mmcv']:
            problem += ': mmdet 3.3.0 refuses to be imported with it.'
            yield _error('mmcv-version', problem, _lite_instead_of(name))
            continue
        cure = _TORCH_PAIR if name == 'torch' else (f'pip install {_pinned(name)}',)
        optional = name.removeprefix('onedl-') in _OPTIONAL
        kind = _warning if optional else _error
        yield kind('unsupported-version', f'{problem}.', *cure)


def _lite_instead_of(*installed: str) -> str:
    return (
        f'pip uninstall -y {" ".join(installed)} && '
        f'pip install --no-cache-dir {_pinned("mmcv-lite")}'
    )


def _pkg_resources(found: Snapshot) -> _Findings:
    # The onedl fork of mmengine asks importlib.metadata instead.
    version = found.versions.get('setuptools')
    gone = not found.has_pkg_resources or (version and not fits(version, '<82'))
    if found.has('mmengine') and gone:
        yield _error(
            'no-pkg-resources',
            f'mmengine {found.versions["mmengine"]} needs pkg_resources for bases such '
            "as _base_ = 'mmdet::...'; setuptools 82 removed it. Allowed is setuptools "
            f'< 82, found {f"setuptools {version}" if version else "no setuptools"}.',
            'pip install "setuptools<82"',
        )


def _failure(found: Snapshot, trial: str) -> str:
    """Return how a trial failed, unless only a package is missing."""
    error = found.error(trial)
    return '' if _NO_MODULE.search(error) else error


def _broken_libraries(found: Snapshot) -> _Findings:
    for trial, (reason, cure) in _BROKEN.items():
        error = _failure(found, trial)
        if error:
            shown = found.shown(*dict.fromkeys((_CARRIERS.get(trial, trial), 'numpy')))
            problem = f'import {trial} fails with {shown}, {reason}: {error}'
            yield _error(f'{trial}-import', problem, *cure)
            return
    yield from _torch_pair(found)
    yield from _compiled_operators(found)
    error = _failure(found, 'mmpretrain')
    known = fits(found.versions.get('transformers', '0'), '<4.53')
    if error and not known and found.has('pycocotools') and found.works('torchvision'):
        # mmdet_backbones leaves the multimodal nets out.
        yield _warning(
            'mmpretrain-transformers',
            'import mmpretrain.models fails where pycocotools and transformers >= 4.53 '
            'are both installed, unless mmdet_backbones is imported before it; found '
            f'{found.shown("pycocotools", "transformers")}: {error}',
            'pip install "transformers<4.53"',
            'pip uninstall -y transformers',
        )


def _torch_pair(found: Snapshot) -> _Findings:
    if not (found.has('torch') and found.has('torchvision')):
        return
    error = _failure(found, 'torchvision')
    wanted = torchvision_for(found.versions['torch'])
    versions = [found.version(name) or '' for name in ('torch', 'torchvision')]
    tags = {tag for version in versions if (tag := version.partition('+')[2])}
    if error or len(tags) > 1 or not versions[1].startswith(f'{wanted}.'):
        effect = (
            f'Importing torchvision fails, and with it timm and mmpretrain: {error}'
            if error
            else 'torchvision can be imported, but it was made for another torch.'
        )
        yield (_error if error else _warning)(
            'torch-torchvision',
            f'{found.shown("torch")} goes with torchvision {wanted}.* of the same '
            f'build, both from the same index. Found {found.shown("torchvision")}. '
            f'{effect}',
            *_TORCH_PAIR,
        )


def _compiled_operators(found: Snapshot) -> _Findings:
    error = _failure(found, 'extension')
    if error:
        onedl = f'pip install --no-cache-dir {_pinned("onedl-mmcv")}'
        cures = {
            'onedl-mmcv': f'pip uninstall -y onedl-mmcv && {onedl}',
            'mmcv': _lite_instead_of('mmcv'),
        }
        left_over = f"rm '{found.extension}'"
        yield _error(
            'stale-operators',
            f'The compiled operators {found.extension} do not work with '
            f'{found.shown("torch")}; usually they were built for another torch and '
            f"taken from pip's cache: {error}",
            next((line for name, line in cures.items() if found.has(name)), left_over),
        )
    elif found.extension is None and found.has('mmcv') and not found.onedl():
        yield _error(
            'mmcv-without-operators',
            f'mmcv {found.versions["mmcv"]} is the distribution with compiled '
            'operators, but mmcv._ext is not in it: it was built where torch could '
            'not be seen. Install mmcv-lite, for which mmdet_backbones serves the '
            'operators, or build mmcv again.',
            _lite_instead_of('mmcv'),
            f'bash {TOOLS / "build_compiled_mmcv.sh"} python',
        )


def _late_trials(found: Snapshot) -> _Findings:
    for trial, error in found.trials.items():
        if error.startswith(LATE):
            yield _warning(
                'probe-timeout',
                f'The probe {trial} was {error}, as on a first run from a slow '
                'disk; what it would have shown is unknown.',
                f'{command("doctor")}  # once more',
            )


def _unexplained(found: Snapshot, findings: Sequence[EnvironmentFinding]) -> _Findings:
    tested = f'pip install {_SETS[1] if found.onedl() else _SETS[0]}'
    for trial in _LAST:
        error = found.error(trial)
        if error and not any(error in finding.problem for finding in findings):
            problem = (
                f'import {trial} fails, and no rule of the doctor says why: {error}'
            )
            yield _error('failed-import', problem, tested)
            return


_RULES: tuple[Callable[[Snapshot], _Findings], ...] = (
    _environments,
    _missing_packages,
    _missing_dependencies,
    _versions,
    _pkg_resources,
    _broken_libraries,
    _late_trials,
)


def judge(snapshot: Snapshot) -> list[EnvironmentFinding]:
    """Apply every rule to a snapshot, errors first."""
    findings = [finding for rule in _RULES for finding in rule(snapshot)]
    if not any(finding.severity == ERROR for finding in findings):
        findings += _unexplained(snapshot, findings)
    return sorted(findings, key=lambda finding: finding.severity != ERROR)
