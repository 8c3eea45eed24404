"""Known-bad environments: a snapshot goes in, findings with their cure come out.

Every rule is a pure function of the snapshot. The version rules are here, the rules
about what was tried in a subprocess in ``doctor_probe_rules``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mmdet_backbones.compat.doctor.snapshot import ONEDL, UPSTREAM, Snapshot

ERROR = 'error'
WARNING = 'warning'

UPSTREAM_SET = '-r requirements.txt -c requirements/constraints.txt'
ONEDL_SET = '-r requirements/onedl.txt'

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
#: Distribution -> first version allowed, first version that is not.
RANGES = {
    'mmdet': ('3.3.0', '3.4'),
    'mmcv': ('2.0.0', '2.2.0'),
    'mmcv-lite': ('2.0.0', '2.2.0'),
    'mmcv-full': ('2.0.0', '2.2.0'),
    'mmengine': ('0.10.5', '1.0'),
    'mmpretrain': ('1.2.0', '1.3'),
    'onedl-mmdetection': ('3.5.0', '3.6'),
    'onedl-mmcv': ('2.3.0', '2.4'),
    'onedl-mmengine': ('0.10.8', '1.0'),
    'onedl-mmpretrain': ('1.3.0', '1.4'),
    'torch': ('2.5', '3'),
    'timm': ('1.0.20', '1.1'),
}
_CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
_PAIR = (
    'pip uninstall -y torch torchvision && pip install '
    f'torch=={TESTED["torch"]} torchvision=={TESTED["torchvision"]}'
)
#: Lines that install the tested torch and torchvision from one index.
TORCH_PAIR = (_PAIR, f'{_PAIR} --index-url {_CPU_INDEX}  # without a GPU')
#: What nothing works without; the others stop only the backbones taken from them.
REQUIRED = ('mmdet', 'mmcv', 'mmengine', 'torch', 'torchvision', 'numpy', 'pycocotools')
OPTIONAL = ('mmpretrain', 'timm')


@dataclass(frozen=True)
class Finding:
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


def release(version: str) -> tuple[int, ...]:
    """Read the numbers a version starts with: ``2.14.1+cu130`` is (2, 14, 1)."""
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(map(int, match.group().split('.'))) if match else ()


def python_version(snapshot: Snapshot) -> Iterator[Finding]:
    if not (3, 10) <= release(snapshot.python) < (3, 13):
        yield Finding(
            ERROR,
            'python-version',
            f'Python 3.10, 3.11 or 3.12 is needed, this is {snapshot.python}.',
            (_new_environment('3.11', UPSTREAM_SET),),
        )


def missing_packages(snapshot: Snapshot) -> Iterator[Finding]:
    family = ONEDL if snapshot.onedl() and not snapshot.upstream() else UPSTREAM
    for severity, names, effect in (
        (ERROR, REQUIRED, 'Nothing works'),
        (WARNING, OPTIONAL, 'Its backbones cannot be built'),
    ):
        missing = [name for name in names if not _provided(snapshot, name)]
        if missing:
            wanted = [_install_name(name, family) for name in missing]
            yield Finding(
                severity,
                'missing-packages',
                f'{effect} without {", ".join(missing)}: not installed.',
                ('pip install ' + ' '.join(wanted),),
            )


def _provided(snapshot: Snapshot, name: str) -> bool:
    carriers = (name, *UPSTREAM.get(name, ()), *ONEDL.get(name, ()))
    return any(snapshot.has(carrier) for carrier in carriers)


def _install_name(name: str, family: Mapping[str, tuple[str, ...]]) -> str:
    names = (*family.get(name, ()), name)
    tested = next((n for n in names if n in TESTED), name)
    return f'{tested}=={TESTED[tested]}' if tested in TESTED else tested


def mixed_families(snapshot: Snapshot) -> Iterator[Finding]:
    upstream, onedl = snapshot.upstream(), snapshot.onedl()
    if not (upstream and onedl):
        return
    both = [
        f'{name} (the files now there are of {snapshot.on_disk.get(name) or "neither"})'
        for name in UPSTREAM
        if set(UPSTREAM[name]) & set(upstream) and set(ONEDL[name]) & set(onedl)
    ]
    python = '.'.join(map(str, release(snapshot.python)[:2]))
    overwritten = f' Installed over each other: {", ".join(both)}.' if both else ''
    yield Finding(
        ERROR,
        'mixed-families',
        'Upstream and onedl packages share their import names and may not stand in '
        f'one environment: found {snapshot.shown(*upstream)} together with '
        f'{snapshot.shown(*onedl)}.{overwritten} Uninstalling one family deletes '
        'files of the other, so only a new environment is clean.',
        (_new_environment(python, UPSTREAM_SET), _new_environment(python, ONEDL_SET)),
    )


def _new_environment(python: str, wanted: str) -> str:
    folder = '.venv-new'
    return f'python{python} -m venv {folder} && {folder}/bin/pip install {wanted}'


def overwritten_files(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.upstream() and snapshot.onedl():
        return
    for name, declared in snapshot.on_disk.items():
        names = (*UPSTREAM[name], *ONEDL[name])
        installed = [n for n in names if snapshot.has(n)]
        if any(_declares(declared, n, snapshot.versions[n]) for n in installed):
            continue
        found = f'are those of {declared}' if declared else 'are gone'
        yield Finding(
            ERROR,
            'overwritten-files',
            f'{snapshot.shown(*installed)} is installed, but the files of the package '
            f'{name} {found}: another distribution was installed over it or '
            'uninstalled after it.',
            tuple(
                f'pip install --force-reinstall --no-deps {n}=={_known(snapshot, n)}'
                for n in installed
            ),
        )


def _declares(declared: str | None, distribution: str, version: str) -> bool:
    if declared is None:
        return False
    number = declared.partition(' ')[2]
    # The onedl forks declare a name and take the version from its metadata.
    return release(number) == release(version) if number else declared == distribution


def _known(snapshot: Snapshot, name: str) -> str:
    version = snapshot.versions[name]
    return version if release(version) else TESTED.get(name, version)


def several_mmcv(snapshot: Snapshot) -> Iterator[Finding]:
    found = [name for name in UPSTREAM['mmcv'] if snapshot.has(name)]
    if len(found) > 1:
        yield Finding(
            ERROR,
            'several-mmcv',
            'One of mmcv and mmcv-lite may be installed, not both, since they write '
            f'the same files: found {snapshot.shown(*found)}.',
            (lite_instead(*found),),
        )


def lite_instead(*installed: str) -> str:
    """Write the line that puts mmcv without operators in the place of another."""
    return (
        f'pip uninstall -y {" ".join(installed)} && '
        f'pip install --no-cache-dir mmcv-lite=={TESTED["mmcv-lite"]}'
    )


def unsupported_versions(snapshot: Snapshot) -> Iterator[Finding]:
    for name, (first, end) in RANGES.items():
        version = snapshot.versions.get(name)
        if version is None or release(first) <= release(version) < release(end):
            continue
        carried = next((m for m in UPSTREAM if name in (*UPSTREAM[m], *ONEDL[m])), name)
        supported = f'{name} >= {first}, < {end} is supported, found {version}'
        if name in UPSTREAM['mmcv']:
            problem = f'{supported}: mmdet 3.3.0 refuses to be imported with it.'
            yield Finding(ERROR, 'mmcv-version', problem, (lite_instead(name),))
            continue
        yield Finding(
            WARNING if carried in OPTIONAL else ERROR,
            'unsupported-version',
            f'{supported}.',
            TORCH_PAIR if name == 'torch' else (f'pip install {name}=={TESTED[name]}',),
        )


def pkg_resources(snapshot: Snapshot) -> Iterator[Finding]:
    # The onedl fork of mmengine asks importlib.metadata instead.
    if not snapshot.has('mmengine'):
        return
    version = snapshot.versions.get('setuptools')
    if version is not None and release(version) < (82,) and snapshot.has_pkg_resources:
        return
    if version is None and snapshot.has_pkg_resources:
        return
    found = f'setuptools {version}' if version else 'no setuptools'
    yield Finding(
        ERROR,
        'no-pkg-resources',
        f'mmengine {snapshot.versions["mmengine"]} needs pkg_resources for bases such '
        "as _base_ = 'mmdet::...'; setuptools 82 removed it. Allowed is setuptools "
        f'< 82, found {found}.',
        ('pip install "setuptools<82"',),
    )


VERSION_RULES = (
    python_version,
    mixed_families,
    overwritten_files,
    missing_packages,
    several_mmcv,
    unsupported_versions,
    pkg_resources,
)
