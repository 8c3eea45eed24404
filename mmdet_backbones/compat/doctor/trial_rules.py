"""Rules about what was tried in a subprocess, and what explains its failure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mmdet_backbones.compat.doctor.snapshot import Snapshot
from mmdet_backbones.compat.doctor.version_rules import (
    ERROR,
    ONEDL_SET,
    TESTED,
    TORCH_PAIR,
    UPSTREAM_SET,
    VERSION_RULES,
    WARNING,
    Finding,
    lite_instead,
    release,
)

_MMCV = '2.1.0'
_IMPORTS = {
    'numpy': 'import numpy',
    'cv2': 'import cv2',
    'pycocotools': 'import pycocotools',
    'mmdet_backbones': 'import mmdet_backbones',
    'mmdet': 'import mmdet',
    'mmcv.ops': 'import mmcv.ops',
    'mmpretrain': 'import mmpretrain.models',
}


def torch_import(snapshot: Snapshot) -> Iterator[Finding]:
    probe = snapshot.probe('torch')
    if probe.broken and snapshot.has('torch'):
        yield Finding(
            ERROR,
            'torch-import',
            f'{snapshot.shown("torch")} cannot be imported, a library that it needs '
            f'is missing or of another version: {probe.error}',
            TORCH_PAIR,
        )


def torch_pair(snapshot: Snapshot) -> Iterator[Finding]:
    if not (snapshot.has('torch') and snapshot.has('torchvision')):
        return
    if snapshot.probe('torch').broken:
        return
    broken = [p for p in map(snapshot.probe, ('torchvision', 'nms')) if p.broken]
    wanted = torchvision_for(snapshot.versions['torch'])
    fits = release(snapshot.versions['torchvision'])[:2] == release(wanted)
    tags = {_tag(snapshot, name) for name in ('torch', 'torchvision')} - {None}
    if not broken and fits and len(tags) < 2:
        return
    effect = (
        f'Importing torchvision fails, and with it timm and mmpretrain: '
        f'{broken[0].error}'
        if broken
        else 'torchvision can be imported, but it was made for another torch.'
    )
    yield Finding(
        ERROR if broken else WARNING,
        'torch-torchvision',
        f'{snapshot.shown("torch")} goes with torchvision {wanted}.* of the same '
        f'build, both from the same index. Found {_build(snapshot, "torch")} with '
        f'{_build(snapshot, "torchvision")}. {effect}',
        TORCH_PAIR,
    )


def torchvision_for(torch: str) -> str:
    """Give the torchvision series of a torch: 2.14.1 goes with 0.29."""
    major, minor = (*release(torch), 0, 0)[:2]
    return f'0.{minor + 15}' if major >= 2 else f'0.{minor + 1}'


def _tag(snapshot: Snapshot, name: str) -> str | None:
    return snapshot.builds.get(name, '').partition('+')[2] or None


def _build(snapshot: Snapshot, name: str) -> str:
    tag = _tag(snapshot, name) or ''
    kind = 'CPU build' if tag == 'cpu' else 'CUDA build' if tag[:2] == 'cu' else ''
    return f'{snapshot.shown(name)}{f" ({kind})" if kind else ""}'


def compiled_operators(snapshot: Snapshot) -> Iterator[Finding]:
    probe = snapshot.probe('extension')
    if probe.broken and not snapshot.probe('torch').broken:
        problem = (
            f'The compiled operators {snapshot.extension} do not work with '
            f'{snapshot.shown("torch")}; usually they were built for another torch and '
            f"taken from pip's cache: {probe.error}"
        )
        yield Finding(ERROR, 'stale-operators', problem, _rebuild(snapshot))
    elif snapshot.extension is None and snapshot.foreign_extensions:
        problem = (
            f'The compiled operators {snapshot.foreign_extensions[0]} are for another '
            f'Python than {snapshot.python}.'
        )
        yield Finding(ERROR, 'stale-operators', problem, _rebuild(snapshot))
    elif snapshot.extension is None and snapshot.has('mmcv') and not snapshot.onedl():
        yield Finding(
            ERROR,
            'mmcv-without-operators',
            f'mmcv {snapshot.versions["mmcv"]} is the distribution with compiled '
            'operators, but mmcv._ext is not in it: it was built where torch could '
            'not be seen. Install mmcv-lite, for which mmdet_backbones serves the '
            'operators, or build mmcv again.',
            _rebuild(snapshot),
        )


def _rebuild(snapshot: Snapshot) -> tuple[str, ...]:
    if snapshot.has('onedl-mmcv'):
        name = f'onedl-mmcv=={TESTED["onedl-mmcv"]}'
        return (
            f'pip uninstall -y onedl-mmcv && pip install --no-cache-dir {name}',
            *_delete_left_over(snapshot),
        )
    if not snapshot.has('mmcv'):
        return _delete_left_over(snapshot)
    flags = '--no-build-isolation --no-cache-dir'
    build = f'MMCV_WITH_OPS=1 pip install mmcv=={_MMCV} {flags} --no-binary mmcv'
    if release(snapshot.versions.get('torch', '0')) >= (2, 14):
        # mmcv 2.1.0 asks for C++17, with which the headers of torch 2.14 refuse.
        build = (
            f'pip download mmcv=={_MMCV} --no-deps --no-build-isolation --no-binary '
            f'mmcv && tar xf mmcv-{_MMCV}.tar.gz && sed -i s/c++17/c++20/ '
            f'mmcv-{_MMCV}/setup.py && MMCV_WITH_OPS=1 pip install '
            f'./mmcv-{_MMCV} {flags}'
        )
    return lite_instead('mmcv'), f'pip uninstall -y mmcv && {build}'


def _delete_left_over(snapshot: Snapshot) -> tuple[str, ...]:
    files = (snapshot.extension, *snapshot.foreign_extensions)
    return ('rm ' + ' '.join(f"'{path}'" for path in files if path),)


def mmpretrain_transformers(snapshot: Snapshot) -> Iterator[Finding]:
    probe = snapshot.probe('mmpretrain')
    transformers = release(snapshot.versions.get('transformers', '0'))
    if (
        probe.broken
        and transformers >= (4, 53)
        and snapshot.has('pycocotools')
        and not snapshot.probe('torchvision').broken
    ):
        yield Finding(
            ERROR,
            'mmpretrain-transformers',
            'import mmpretrain.models fails where pycocotools and transformers >= 4.53 '
            f'are both installed; found {snapshot.shown("pycocotools", "transformers")}'
            f': {probe.error}',
            ('pip install "transformers<4.53"', 'pip uninstall -y transformers'),
        )


def array_libraries(snapshot: Snapshot) -> Iterator[Finding]:
    numpy = snapshot.probe('numpy')
    if numpy.broken and snapshot.has('numpy'):
        yield _array_finding(snapshot, 'numpy', 'numpy', numpy.error)
        return
    opencv = 'opencv-python'
    if snapshot.probe('cv2').broken and snapshot.has(opencv):
        yield _array_finding(snapshot, 'cv2', opencv, snapshot.probe('cv2').error)
    if snapshot.probe('pycocotools').broken and snapshot.has('pycocotools'):
        error = snapshot.probe('pycocotools').error
        yield _array_finding(snapshot, 'pycocotools', 'pycocotools', error)


def _array_finding(snapshot: Snapshot, module: str, name: str, error: str) -> Finding:
    if module == 'cv2' and 'cannot open shared object file' in error:
        # libGL and its like come with a desktop; the headless build needs none.
        cure = f'pip uninstall -y {name} && pip install opencv-python-headless'
    else:
        cure = f'pip install --force-reinstall --no-deps --no-cache-dir {name}'
    found = snapshot.shown(*dict.fromkeys((name, 'numpy')))
    problem = f'import {module} fails with {found}: {error}'
    return Finding(ERROR, f'{module}-import', problem, (cure,))


def checkpoints(snapshot: Snapshot) -> Iterator[Finding]:
    probe = snapshot.probe('checkpoint')
    if probe.broken and not snapshot.probe('mmdet_backbones').broken:
        yield Finding(
            WARNING,
            'checkpoints',
            f'{snapshot.shown(*_engine(snapshot), "torch")} do not load their own '
            'training checkpoints, though mmdet_backbones names the classes in them: '
            f'no resume, no test: {probe.error}',
            (_tested_set(snapshot),),
        )


def _engine(snapshot: Snapshot) -> list[str]:
    return [name for name in ('mmengine', 'onedl-mmengine') if snapshot.has(name)]


def _tested_set(snapshot: Snapshot) -> str:
    return f'pip install {ONEDL_SET if snapshot.onedl() else UPSTREAM_SET}'


def unfinished(snapshot: Snapshot) -> Iterator[Finding]:
    for name, probe in snapshot.probes.items():
        if probe.outcome == 'timeout':
            yield Finding(
                WARNING,
                'probe-timeout',
                f'The probe {name} was {probe.error}, as on a first run from a slow '
                'disk; what it would have shown is unknown.',
                ('python tools/doctor.py  # once more',),
            )


def unexplained(snapshot: Snapshot) -> Iterator[Finding]:
    for name, statement in _IMPORTS.items():
        probe = snapshot.probe(name)
        if probe.broken:
            yield Finding(
                ERROR,
                'failed-import',
                f'{statement} fails, and no rule of the doctor says why: {probe.error}',
                (_tested_set(snapshot),),
            )
            return


Rule = Callable[[Snapshot], Iterable[Finding]]

RULES: tuple[Rule, ...] = (
    *VERSION_RULES,
    torch_import,
    array_libraries,
    torch_pair,
    compiled_operators,
    mmpretrain_transformers,
    unfinished,
)
# One cause breaks many imports: these speak only where nothing above has an error.
LAST_RULES: tuple[Rule, ...] = (checkpoints, unexplained)


def judge(snapshot: Snapshot) -> list[Finding]:
    """Apply every rule to a snapshot, errors first."""
    findings = [finding for rule in RULES for finding in rule(snapshot)]
    if not any(finding.severity == ERROR for finding in findings):
        findings += [finding for rule in LAST_RULES for finding in rule(snapshot)]
    return sorted(findings, key=lambda finding: finding.severity != ERROR)
