"""The rules of the environment doctor, over snapshots that are made up."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mmdet_backbones.compat.doctor import explain
from mmdet_backbones.compat.doctor.rules import (
    RANGES,
    TESTED,
    fits,
    judge,
    torchvision_for,
)
from mmdet_backbones.compat.doctor.snapshot import TRIALS, Snapshot

ROOT = Path(__file__).parents[2]
COMMON = {
    'torch': '2.14.1',
    'torchvision': '0.29.1',
    'timm': '1.0.31',
    'setuptools': '81.0.0',
    'numpy': '2.4.6',
    'opencv-python': '5.0.0',
    'pycocotools': '2.0.11',
    'lazy_loader': '0.6',
    'packaging': '26.4',
    'defusedxml': '0.7.1',
}
UPSTREAM = {
    **COMMON,
    'mmdet': '3.3.0',
    'mmcv-lite': '2.1.0',
    'mmengine': '0.10.7',
    'mmpretrain': '1.2.0',
}
ONEDL = {
    **COMMON,
    'onedl-mmdetection': '3.5.1',
    'onedl-mmcv': '2.3.6',
    'onedl-mmengine': '0.10.12',
    'onedl-mmpretrain': '1.3.6',
}
NMS = 'RuntimeError: operator torchvision::nms does not exist'
SYMBOL = 'ImportError: _ext.so: undefined symbol: _ZN2at4_ops'


def snapshot(base=UPSTREAM, without=(), errors=None, **changes):
    """Make the snapshot of a working environment with a few things changed."""
    fields = {k: changes.pop(k) for k in list(changes) if k in Snapshot.__annotations__}
    versions = {**base, **{k.replace('_', '-'): v for k, v in changes.items()}}
    return Snapshot(
        python=fields.pop('python', '3.11.7'),
        versions={
            k.replace('lazy-loader', 'lazy_loader'): v
            for k, v in versions.items()
            if k not in without
        },
        trials={**dict.fromkeys(TRIALS, ''), **(errors or {})},
        **fields,
    )


CASES = {
    'mmcv too new': (
        snapshot(without=['mmcv-lite'], mmcv='2.2.0', extension='_ext.so'),
        'mmcv-version',
        ['2.2.0', '< 2.2.0', 'pip uninstall -y mmcv', 'mmcv-lite==2.1.0'],
    ),
    'mmcv without _ext': (
        snapshot(without=['mmcv-lite'], mmcv='2.1.0', torch='2.13.0'),
        'mmcv-without-operators',
        ['mmcv-lite==2.1.0', 'tools/build_compiled_mmcv.sh'],
    ),
    'mmcv and mmcv-lite': (
        snapshot(mmcv='2.1.0', extension='_ext.so'),
        'several-mmcv',
        ['mmcv 2.1.0 and mmcv-lite 2.1.0', 'pip uninstall -y mmcv mmcv-lite &&'],
    ),
    'setuptools 82': (
        snapshot(setuptools='82.0.1', has_pkg_resources=False),
        'no-pkg-resources',
        ['setuptools 82.0.1', 'pip install "setuptools<82"'],
    ),
    'no setuptools': (
        snapshot(without=['setuptools'], has_pkg_resources=False),
        'no-pkg-resources',
        ['no setuptools', 'pip install "setuptools<82"'],
    ),
    'CPU torch, CUDA torchvision': (
        snapshot(
            builds={'torch': '2.13.0+cpu', 'torchvision': '0.29.1+cu130'},
            errors={'torchvision': NMS, 'mmpretrain': NMS, 'mmcv.ops': NMS},
            torch='2.13.0+cpu',
            transformers='4.56.2',
        ),
        'torch-torchvision',
        [
            'torchvision 0.28.*',
            '2.13.0+cpu',
            '0.29.1+cu130',
            NMS,
            'torch==2.14.1 torchvision==0.29.1 --index-url',
        ],
    ),
    'stale _ext': (
        snapshot(
            without=['mmcv-lite'],
            mmcv='2.1.0',
            extension='/site/mmcv/_ext.so',
            errors={'extension': SYMBOL},
        ),
        'stale-operators',
        ['/site/mmcv/_ext.so', SYMBOL, 'pip uninstall -y mmcv', '--no-cache-dir'],
    ),
    '_ext left over under mmcv-lite': (
        snapshot(extension='/site/mmcv/_ext.so', errors={'extension': SYMBOL}),
        'stale-operators',
        ["rm '/site/mmcv/_ext.so'"],
    ),
    'mixed families': (
        snapshot(
            onedl_mmengine='0.10.12',
            errors={'mmdet': 'AssertionError'},
        ),
        'mixed-families',
        [
            'mmengine 0.10.7',
            'together with onedl-mmengine 0.10.12',
            '-m venv .venv-new',
            '-r requirements/onedl.txt',
        ],
    ),
    'Python too old': (snapshot(python='3.9.18'), 'python-version', ['3.9.18', '3.11']),
    'Python too new': (snapshot(python='3.13.1'), 'python-version', ['3.13.1']),
    'no mmdet': (
        snapshot(without=['mmdet', 'numpy'], errors={'mmdet': 'No module'}),
        'missing-packages',
        ['without mmdet, numpy', 'pip install mmdet==3.3.0 numpy'],
    ),
    'no mmdet of onedl': (
        snapshot(ONEDL, without=['onedl-mmdetection']),
        'missing-packages',
        ['pip install onedl-mmdetection==3.5.1'],
    ),
    'nothing': (
        snapshot({}),
        'missing-packages',
        ['pip install mmdet==3.3.0 mmcv-lite==2.1.0 mmengine==0.10.7 torch==2.14.1'],
    ),
    'old mmdet': (
        snapshot(mmdet='2.28.2'),
        'unsupported-version',
        ['mmdet >= 3.3.0, < 3.4', '2.28.2', 'pip install mmdet==3.3.0'],
    ),
    'torch without its libraries': (
        snapshot(
            errors=dict.fromkeys(
                ('torch', 'torchvision', 'mmpretrain', 'mmcv.ops'),
                'ImportError: libcudart.so.13: cannot open shared object file',
            )
        ),
        'torch-import',
        ['torch 2.14.1', 'libcudart.so.13', 'pip install torch==2.14.1'],
    ),
    'numpy': (
        snapshot(errors={'numpy': 'ImportError: numpy.core', 'cv2': 'ImportError'}),
        'numpy-import',
        ['numpy.core', '--force-reinstall --no-deps --no-cache-dir numpy'],
    ),
    'opencv without a desktop': (
        snapshot(
            errors={'cv2': 'libGL.so.1: cannot open shared object file', 'mmdet': ''}
        ),
        'cv2-import',
        ['libGL.so.1', 'pip install opencv-python-headless'],
    ),
    'unknown cause': (
        snapshot(errors={'mmdet': 'SyntaxError: invalid', 'mmcv.ops': 'too'}),
        'failed-import',
        ['import mmdet fails', 'SyntaxError: invalid'],
    ),
}


def test_a_new_transformers_beside_mmpretrain_is_a_warning():
    case = snapshot(
        transformers='4.56.2',
        errors={'mmpretrain': 'TypeError: NoneType takes no arguments'},
    )
    (finding,) = judge(case)
    assert (finding.severity, finding.id) == ('warning', 'mmpretrain-transformers')
    told = f'{finding.problem} {finding.cure}'
    assert explain(case).healthy
    for text in (
        '4.56.2',
        'NoneType takes no arguments',
        'pip install "transformers<4.53"',
    ):
        assert text in told


@pytest.mark.parametrize('name', CASES)
def test_each_trap_is_one_error_with_its_cure(name):
    case, expected, texts = CASES[name]
    errors = [f for f in judge(case) if f.severity == 'error']
    assert expected in {f.id for f in errors}
    if expected not in ('mmcv-version', 'missing-packages'):
        assert len(errors) == 1, [f.id for f in errors]
    finding = next(f for f in errors if f.id == expected)
    whole = '\n'.join((finding.problem, *finding.cure))
    for text in texts:
        assert text in whole
    for line in finding.cure:
        assert re.match(r'(pip|rm|python|bash)', line)
        assert '\n' not in line
    assert not explain(case).healthy


@pytest.mark.parametrize(
    'case',
    [
        snapshot(),
        snapshot(ONEDL),
        snapshot(ONEDL, setuptools='84.2.1', has_pkg_resources=False),
        snapshot(transformers='4.49.0'),
        snapshot(transformers='4.56.2', without=['pycocotools'], pycocotools='2.0.11'),
        snapshot(without=['mmcv-lite'], mmcv='2.1.0', extension='_ext.so'),
        snapshot(
            builds={'torch': '2.14.1+cu130', 'torchvision': '0.29.1+cu130'},
        ),
    ],
)
def test_environments_that_work_have_no_findings(case):
    assert judge(replace(case, versions={**COMMON, **case.versions})) == []


@pytest.mark.parametrize(
    ('case', 'expected'),
    [
        (snapshot(torch='2.13.0'), 'torch-torchvision'),
        (snapshot(without=['timm']), 'missing-packages'),
        (snapshot(timm='0.9.16'), 'unsupported-version'),
        (snapshot(errors={'mmpretrain': 'not finished after 60 s'}), 'probe-timeout'),
        (snapshot(without=['defusedxml']), 'missing-packages'),
    ],
)
def test_warnings_leave_the_environment_healthy(case, expected):
    assert [(f.severity, f.id) for f in judge(case)] == [('warning', expected)]
    assert explain(case).healthy


def test_handled_traps_are_notes():
    (note, *_) = explain(snapshot()).notes
    assert 'torch 2.14.1' in note
    assert 'mmengine 0.10.7' in note
    notes = explain(snapshot(ONEDL, mmdet_backbones='0.1')).notes
    assert not any('checkpoints' in note for note in notes)


def test_operators_row():
    with_file = snapshot(extension='_ext.so')
    works = {**with_file.trials, 'extension': ''}
    assert explain(snapshot()).operators.startswith('served by mmdet_backbones')
    assert explain(replace(with_file, trials=works)).operators == 'compiled'
    assert explain(with_file).operators == 'compiled, but they do not work'


def test_a_missing_dependency_is_named_once_with_all_that_need_it():
    missing = "ModuleNotFoundError: No module named '{}'"
    case = snapshot(
        transformers='4.56.2',
        errors={
            'mmdet': missing.format('shapely'),
            'mmcv.ops': missing.format('PIL'),
            'mmpretrain': missing.format('shapely.ops'),
        },
    )
    pillow, shapely = sorted(judge(case), key=lambda f: f.cure)
    assert {pillow.id, shapely.id} == {'missing-dependency'}
    assert shapely.problem.startswith('mmpretrain, mmdet cannot be imported without')
    assert (pillow.cure, shapely.cure) == (
        ('pip install pillow',),
        ('pip install shapely',),
    )


@pytest.mark.parametrize(
    ('torch', 'torchvision'),
    [('2.14.1+cu130', '0.29'), ('2.5.1', '0.20'), ('1.13.1', '0.14')],
)
def test_torchvision_pair(torch, torchvision):
    assert torchvision_for(torch) == torchvision


def test_versions_are_those_of_the_requirements():
    pinned = dict(
        line.split('==')
        for name in ('constraints', 'onedl')
        for line in (ROOT / f'requirements/{name}.txt').read_text().split()
        if '==' in line
    )
    assert pinned == {name: TESTED[name] for name in pinned}
    assert set(TESTED) == set(pinned)
    ranges = re.findall(
        r'^([\w-]+)(>=[\d.]+,<[\d.]+)', (ROOT / 'requirements.txt').read_text(), re.M
    )
    assert len(ranges) >= 5
    assert dict(ranges) == {name: RANGES[name] for name, _ in ranges}
    for name in set(RANGES) & set(TESTED):
        assert fits(TESTED[name], RANGES[name])


def test_a_version_that_cannot_be_read_fits_nothing():
    assert not fits('unknown', '>=2.0')
    assert fits('2.14.1+cu130', '>=2.5,<3')
    assert not fits('2.2.0', '<2.2.0')
