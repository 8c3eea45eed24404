"""The wheel is whole: its tools do outside a clone what they do in it."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PARTS = ('mmdet_backbones', 'configs', 'tools', 'setup.cfg', 'pyproject.toml',
         'README.md', 'LICENSE', 'requirements.txt', 'requirements')  # fmt: skip


def run(*command: str, **options) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Built from a copy: a folder build/ of an earlier run would be packed too."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part,
                source / part,
                symlinks=True,
                ignore=shutil.ignore_patterns('__pycache__'),
            )
        else:
            shutil.copy(ROOT / part, source)
    run('-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation',
        '--wheel-dir', str(folder), str(source))  # fmt: skip
    (built,) = folder.glob('*.whl')
    return built


@pytest.fixture(scope='module')
def outside(wheel, tmp_path_factory):
    """Runs a tool of the installed wheel in a folder that is no clone."""
    target, elsewhere = (tmp_path_factory.mktemp(n) for n in ('target', 'elsewhere'))
    run('-m', 'pip', 'install', '--no-deps', '--target', str(target), str(wheel))
    options = dict(cwd=elsewhere, env={**os.environ, 'PYTHONPATH': str(target)})
    origin = run('-c', 'import mmdet_backbones as m; print(m.__file__)', **options)
    assert Path(origin.strip()).is_relative_to(target)

    def tool(name: str, *arguments: str) -> str:
        path = target / 'mmdet_backbones' / '.mim' / 'tools' / name
        return run(str(path), *arguments, **options)

    return tool


def in_clone(name: str, *arguments: str) -> str:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return run(f'tools/{name}', *arguments, cwd=ROOT, env=environment)


def test_all_files_of_the_package_are_in_it_and_no_other_programs(wheel):
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if '.dist-info/' not in name}
    package = ROOT / 'mmdet_backbones'
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts and not path.is_symlink()
    }
    mim = 'mmdet_backbones/.mim'
    for ending in ('*.py', '*.sh'):
        wanted |= {f'{mim}/tools/{path.name}' for path in (ROOT / 'tools').glob(ending)}
    demo = (ROOT / 'tools' / 'demo').glob('*.py')
    wanted |= {f'{mim}/tools/demo/{path.name}' for path in demo}
    assert {'__init__.pyi', 'py.typed', 'catalog/levels.json'} <= {
        name.removeprefix('mmdet_backbones/') for name in wanted
    }
    others = {name for name in packed if not name.startswith(f'{mim}/configs/')}
    assert others == {n for n in wanted if not n.startswith(f'{mim}/configs/')}
    configs = [n for n in packed - others if n.endswith('.py')]
    assert len(configs) == len(list((ROOT / 'configs').rglob('*.py'))) > 30


def test_it_lists_what_the_clone_lists(outside):
    wanted = ('--stride', '8', '16', '32', '--json')
    found = json.loads(outside('list_backbones.py', *wanted))
    assert len(found['backbones']) > 500
    assert found == json.loads(in_clone('list_backbones.py', *wanted))


def test_it_inspects_as_the_clone_does(outside):
    found = json.loads(outside('inspect_backbone.py', 'timm/resnet18', '--json'))
    assert [level['stride'] for level in found['levels']] == [2, 4, 8, 16, 32]
    assert found == json.loads(
        in_clone('inspect_backbone.py', 'timm/resnet18', '--json')
    )


def test_it_swaps_as_the_clone_does(outside):
    order = ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', 'res2net50_26w_4s', '-o', 'a.py')
    text = outside('swap_backbone.py', *order, '--dry-run')
    assert "type='mmdet_backbones.Res2Net'" in text
    assert text == in_clone('swap_backbone.py', *order, '--dry-run')
    assert 'sound: ' in outside('swap_backbone.py', *order)
    assert 'sound: ' in outside('check_config.py', 'a.py', '--fast')


@pytest.fixture(scope='module')
def light(wheel, tmp_path_factory):
    """An environment with the wheel and what it asks for itself, and no more."""
    folder = tmp_path_factory.mktemp('light')
    run('-m', 'venv', str(folder))
    python = folder / 'bin' / 'python'
    for words in (['install', '--quiet', str(wheel)], ['list', '--format=freeze']):
        done = subprocess.run(
            [python, '-m', 'pip', *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    names = {line.partition('==')[0].lower() for line in done.stdout.split()}
    assert not names & {'torch', 'numpy', 'mmengine', 'timm'}, names
    return folder / 'bin' / 'mmdet-backbones'


def test_without_the_host_libraries_each_subcommand_says_what_to_install(
    light, tmp_path
):
    for name, words in {
        'list': [],
        'inspect': ['timm/resnet18'],
        'swap': ['a.py', 'timm/resnet18', '-o', 'b.py'],
        'check': ['a.py'],
        'train': ['a.py', '--gpus', '2'],
        'test': ['a.py', 'a.pth'],
        'predict': ['a.py', 'a.jpg'],
        'app': ['a.py'],
        'benchmark': ['timm/resnet18'],
        'lr': ['a.py'],
        'data': ['.', '-o', 'out'],
        'convert': ['a.pth', '--list-keys'],
        'levels': ['a.py', 'a.jpg'],
        'compare': ['.'],
        'demo': [],
    }.items():
        done = subprocess.run(
            [light, name, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, name
        assert done.stderr.startswith(f"error: '{name}' needs the packages torch,")
        for extra in ('mmdet', 'onedl'):
            assert f'pip install "mmdet_backbones[{extra}]"' in done.stderr
        assert done.stderr.count('\n') < 8
    done = subprocess.run([light, 'doctor'], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'missing-packages' in done.stdout
    assert os.listdir(tmp_path) == []


def test_the_extras_are_the_requirements_of_the_two_families(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith('METADATA'))
        lines = file.read(name).decode().splitlines()
    for extra, path in (
        ('mmdet', 'requirements.txt'),
        ('onedl', 'requirements/onedl.txt'),
    ):
        text = (ROOT / path).read_text().splitlines()
        wanted = {line for line in text if line and not line.startswith('#')}
        asked = {
            line.removeprefix('Requires-Dist: ').partition(';')[0].strip()
            for line in lines
            if line.endswith(f'extra == "{extra}"')
        }
        assert {''.join(sorted(a)) for a in asked} == {
            ''.join(sorted(w)) for w in wanted
        }
