"""Other libraries are imported when a net is built, and what they lack is named."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def test_importing_the_package_imports_no_library(run_python):
    code = (
        'import sys\n'
        # mmengine looks there for an optimizer, and that brings torchvision.
        "sys.modules['transformers'] = None\n"
        'import mmdet_backbones\n'
        'import mmdet_backbones.adapters\n'
        'loaded = {name.partition(".")[0] for name in sys.modules}\n'
        "print(sorted(loaded & {'timm', 'torchvision', 'mmpretrain'}))\n"
        "print([c for c in ('TIMMBackbone', 'TorchvisionBackbone', 'ShuffleNetV2')\n"
        '       if mmdet_backbones.MODELS.module_dict.get(c)])'
    )
    result = run_python('-c', code)
    assert result.returncode == 0, result.stderr
    loaded, registered = result.stdout.splitlines()
    assert loaded == '[]'
    assert registered == "['TIMMBackbone', 'TorchvisionBackbone', 'ShuffleNetV2']"


def packages_without(module: str, folder: Path) -> Path:
    """Links to all that is installed, but for one module."""
    name = module.lower()
    for site in map(Path, sys.path):
        for entry in site.iterdir() if site.name.endswith('-packages') else ():
            link = folder / entry.name
            spelled = entry.name.replace('-', '_').lower()
            if not spelled.startswith(name) and not link.exists():
                link.symlink_to(entry)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('module', ['einops', 'lazy_importer'])
def test_a_package_that_mmpretrain_lacks_is_named(run_python, tmp_path, module):
    if find_spec(module) is None:
        pytest.skip(f'{module} is not installed here')
    code = (
        'from mmdet_backbones.registry import MODELS\n'
        "MODELS.build(dict(type='mmdet_backbones.ShuffleNetV2'))"
    )
    packages = packages_without(module, tmp_path)
    # -S: nothing is found but by these links.
    result = run_python('-S', '-c', code, PYTHONPATH=str(packages))
    # One of the families of packages does not meet lazy_importer on its way.
    reached = f'import sys, mmpretrain.models; print({module!r} in sys.modules)'
    if result.returncode == 0 and run_python('-c', reached).stdout.endswith('False\n'):
        pytest.skip(f'mmpretrain imports no {module} here')
    assert result.returncode == 1
    *_, problem, cure = result.stderr.splitlines()
    assert problem.startswith(
        'ImportError: Importing mmpretrain failed (ModuleNotFoundError: No module '
        f"named '{module}'). The module {module} is needed by"
    )
    assert cure == f'  pip install {module.replace("_", "-")}'


def test_without_transformers_one_message_says_what_to_type(run_python, tmp_path):
    packages = packages_without('transformers', tmp_path)
    code = 'import mmdet_backbones.adapters.transformers.nets'
    result = run_python('-S', '-c', code, PYTHONPATH=str(packages))
    assert result.returncode == 1
    *_, problem, cure = result.stderr.splitlines()
    assert problem.startswith("ImportError: transformers' nets need transformers")
    assert cure == '  pip install "transformers>=4.49,<6"'


def test_a_missing_package_is_no_fault_of_a_newer_transformers(run_python, tmp_path):
    packages = packages_without('mmpretrain', tmp_path)
    zoo = packages / 'mmpretrain' / 'models'
    zoo.mkdir(parents=True)
    (zoo.parent / '__init__.py').write_text('')
    # transformers has an error of its own for what its lazy imports meet.
    (zoo / '__init__.py').write_text(
        'try:\n'
        '    import no_such_package.tools\n'
        'except ImportError as error:\n'
        "    raise RuntimeError(f'Failed to import transformers: {error}') from error\n"
    )
    for name, version in (('transformers', '4.56.2'), ('mmpretrain', '1.2.0')):
        info = packages / f'{name}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Name: {name}\nVersion: {version}\n')
    code = 'import mmdet_backbones.adapters.mmpretrain.nets'
    result = run_python('-S', '-c', code, PYTHONPATH=str(packages))
    assert result.returncode == 1
    assert 'The module no_such_package is needed by mmpretrain' in result.stderr
    assert 'transformers<' not in result.stderr
