"""Other libraries are imported when a net is built, and what they lack is named."""

import sys
from pathlib import Path


def test_importing_the_package_imports_no_library(run_python):
    code = (
        'import sys\n'
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


def test_a_package_that_mmpretrain_lacks_is_named(run_python, tmp_path):
    code = (
        'from mmdet_backbones.registry import MODELS\n'
        "MODELS.build(dict(type='mmdet_backbones.ShuffleNetV2'))"
    )
    packages = packages_without('einops', tmp_path)
    # -S: nothing is found but by these links.
    result = run_python('-S', '-c', code, PYTHONPATH=str(packages))
    assert result.returncode == 1
    *_, problem, cure = result.stderr.splitlines()
    assert problem.startswith(
        'ImportError: Importing mmpretrain failed (ModuleNotFoundError: No module '
        "named 'einops'). The module einops is needed by"
    )
    assert cure == '  pip install einops'
