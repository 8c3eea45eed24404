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
         'README.md', 'LICENSE')  # fmt: skip


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
    assert '0 errors' in outside('swap_backbone.py', *order)
    assert '0 errors' in outside('check_config.py', 'a.py', '--fast')
