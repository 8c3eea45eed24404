"""The environment doctor in whole environments that it has to survive."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import venv
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path

import packaging
import pytest

from mmdet_backbones.compat.doctor.rules import TESTED
from mmdet_backbones.compat.doctor.snapshot import LATE, run_trials

TOOL = Path(__file__).parents[2] / 'tools' / 'doctor.py'
NMS = 'RuntimeError: operator torchvision::nms does not exist'
INSTALLED = {
    'torch': '2.14.1',
    'torchvision': '0.29.1',
    'timm': '1.0.31',
    'setuptools': '81.0.0',
    'numpy': '2.4.6',
    'opencv-python': '5.0.0',
    'pycocotools': '2.0.11',
    'mmdet': '3.3.0',
    'mmcv-lite': '2.1.0',
    'mmengine': '0.10.7',
    'mmpretrain': '1.2.0',
    'lazy_loader': '0.6',
    'packaging': packaging.__version__,
    'defusedxml': '0.7.1',
}


def test_trials_survive_what_they_try():
    sources = {
        'good': 'print("noise without an end", end="")',
        'bad': 'import json; json.loads("{")',
        'exits': 'raise SystemExit(3)',
        'crash': 'import os; os.abort()',
        'slow': 'import time; time.sleep(30)',
    }
    errors = run_trials(sources, timeout=2)
    assert list(errors) == list(sources)
    assert errors['good'] == ''
    assert 'Expecting property name' in errors['bad']
    assert 'exit code 3' in errors['exits']
    assert 'SIGABRT' in errors['crash']
    assert errors['slow'].startswith(LATE)


# The cheap environments hold nothing but stubs, and rich not even as a stub.

STUBS = {
    'torch/__init__.py': '',
    'torch/version.py': "__version__ = '2.14.1+cu130'",
    'torchvision/__init__.py': '',
    'torchvision/version.py': "__version__ = '0.29.1+cu130'",
    'numpy/__init__.py': '',
    'cv2/__init__.py': '',
    'pycocotools/mask.py': '',
    'pkg_resources/__init__.py': '',
    'mmdet/__init__.py': '',
    'mmdet/version.py': "__version__ = '3.3.0'",
    'mmcv/__init__.py': '',
    'mmcv/version.py': "__version__ = '2.1.0'",
    'mmcv/ops/__init__.py': '',
    'mmengine/__init__.py': '',
    'mmengine/version.py': "__version__ = '0.10.7'",
    'mmpretrain/__init__.py': '',
    'mmpretrain/version.py': "__version__ = '1.2.0'",
    'mmpretrain/models.py': '',
}


@pytest.fixture(scope='module')
def bare_python(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bare')
    venv.create(folder, with_pip=False, symlinks=os.name != 'nt')
    return folder / ('Scripts' if os.name == 'nt' else 'bin') / 'python'


@pytest.fixture
def site(tmp_path):
    for path, text in STUBS.items():
        write(tmp_path, path, text)
    for name, version in INSTALLED.items():
        install(tmp_path, name, version)
    # What reads versions is no stub.
    (tmp_path / 'packaging').symlink_to(Path(packaging.__file__).parent)
    return tmp_path


def write(site, path, text):
    (site / path).parent.mkdir(parents=True, exist_ok=True)
    (site / path).write_text(textwrap.dedent(text))


def install(site, name, version):
    for old in site.glob(f'{name.replace("-", "_")}-*.dist-info'):
        shutil.rmtree(old)
    metadata = f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
    write(site, f'{name.replace("-", "_")}-{version}.dist-info/METADATA', metadata)


def run_tool(python, site=None, *flags):
    env = {**os.environ, 'PYTHONPATH': str(site or ''), 'PYTHONIOENCODING': 'utf-8'}
    command = [str(python), str(TOOL), *flags]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_stub_environment_is_healthy(bare_python, site):
    done = run_tool(bare_python, site, '--json')
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found['healthy'] is True
    assert found['findings'] == []
    assert found['versions']['mmcv-lite'] == '2.1.0'
    assert found['versions']['onedl-mmcv'] is None
    assert found['versions']['torch'] == '2.14.1+cu130'
    assert found['operators'].startswith('served by mmdet_backbones')


def mix_families(site):
    install(site, 'onedl-mmengine', '0.10.12')


def break_torchvision(site):
    install(site, 'torch', '2.13.0+cpu')
    write(site, 'torch/version.py', "__version__ = '2.13.0+cpu'")
    write(site, 'torchvision/__init__.py', f'raise RuntimeError({NMS[14:]!r})')
    write(site, 'mmpretrain/models.py', 'import torchvision')
    write(site, 'mmcv/ops/__init__.py', 'import torchvision')


def break_mmpretrain(site):
    install(site, 'transformers', '4.56.2')
    write(site, 'mmpretrain/models.py', 'class A(None): pass')


def lose_dependency(site):
    # Not the fault of a transformers that is too new.
    install(site, 'transformers', '4.56.2')
    write(site, 'mmpretrain/models.py', 'import lazy_importer.tools')


def age_extension(site):
    install(site, 'mmcv', '2.1.0')
    shutil.rmtree(site / 'mmcv_lite-2.1.0.dist-info')
    (site / 'mmcv' / f'_ext{EXTENSION_SUFFIXES[0]}').write_text('not a library')


def crash_torch(site):
    write(site, 'torch/__init__.py', 'import os; os.abort()')


def raise_setuptools(site):
    install(site, 'setuptools', '82.0.1')
    shutil.rmtree(site / 'pkg_resources')


@pytest.mark.parametrize(
    ('change', 'finding', 'texts'),
    [
        (mix_families, 'mixed-families', ['onedl-mmengine 0.10.12', '-m venv']),
        (break_torchvision, 'torch-torchvision', [NMS, '2.13.0+cpu']),
        (lose_dependency, 'missing-dependency', ['pip install lazy-importer']),
        (age_extension, 'stale-operators', ['ImportError', '--no-cache-dir']),
        (crash_torch, 'torch-import', ['SIGABRT', 'pip install torch==2.14.1']),
        (raise_setuptools, 'no-pkg-resources', ['pip install "setuptools<82"']),
    ],
)
def test_broken_stub_environment(bare_python, site, change, finding, texts):
    change(site)
    done = run_tool(bare_python, site)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ''
    assert f'error: {finding}' in done.stdout
    assert '1 errors' in done.stdout
    for text in texts:
        assert text in done.stdout


def test_what_importing_mmdet_backbones_cures_is_no_error(bare_python, site):
    break_mmpretrain(site)
    done = run_tool(bare_python, site)
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ('warning: mmpretrain-transformers', 'NoneType', '4.56.2'):
        assert text in done.stdout


def test_empty_environment(bare_python):
    done = run_tool(bare_python, None, '--json')
    assert done.returncode == 1
    findings = json.loads(done.stdout)['findings']
    assert {finding['id'] for finding in findings} == {'missing-packages'}


@pytest.mark.slow
def test_this_environment_is_healthy():
    done = run_tool(sys.executable, os.environ.get('PYTHONPATH'), '--json')
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert not [f for f in found['findings'] if f['severity'] == 'error']
    assert found['operators'] != 'none'


def overlay(tmp_path):
    return os.pathsep.join(filter(None, [str(tmp_path), os.environ.get('PYTHONPATH')]))


@pytest.mark.slow
def test_real_packages_with_foreign_distributions(tmp_path):
    for name in ('mmengine', 'onedl-mmengine'):
        install(tmp_path, name, TESTED[name])
    install(tmp_path, 'setuptools', '84.2.1')
    done = run_tool(sys.executable, overlay(tmp_path), '--json')
    assert done.returncode == 1
    ids = {finding['id'] for finding in json.loads(done.stdout)['findings']}
    assert {'mixed-families', 'no-pkg-resources'} <= ids


@pytest.mark.slow
def test_real_torch_with_stale_extension(tmp_path):
    mmcv = Path(PathFinder.find_spec('mmcv').submodule_search_locations[0])
    shutil.copytree(mmcv, tmp_path / 'mmcv')
    (tmp_path / 'mmcv' / f'_ext{EXTENSION_SUFFIXES[0]}').write_text('not a library')
    done = run_tool(sys.executable, overlay(tmp_path), '--json')
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found['operators'] == 'compiled, but they do not work'
    assert [f['id'] for f in found['findings'] if f['severity'] == 'error'] == [
        'stale-operators'
    ]


@pytest.mark.slow
def test_real_packages_with_broken_torchvision(tmp_path):
    write(tmp_path, 'torchvision/__init__.py', f'raise RuntimeError({NMS[14:]!r})')
    done = run_tool(sys.executable, overlay(tmp_path), '--json')
    assert done.returncode == 1
    errors = [
        f for f in json.loads(done.stdout)['findings'] if f['severity'] == 'error'
    ]
    assert [f['id'] for f in errors] == ['torch-torchvision']
    assert NMS in errors[0]['problem']
