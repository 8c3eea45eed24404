"""What the package itself gives: its names, cheaply, and seen by type checkers."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest

import mmdet_backbones
from mmdet_backbones import registry

ROOT = Path(__file__).parents[1]
# Of the first package; `import torch` alone would run it already.
ALONE = {'TORCH_DEVICE_BACKEND_AUTOLOAD': '0'}


def test_every_name_leads_to_what_it_names():
    assert len(mmdet_backbones.__all__) > 30
    for name in mmdet_backbones.__all__:
        found = getattr(mmdet_backbones, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            assert found.__name__ == name
    assert set(mmdet_backbones.__all__) - {'__version__'} <= set(dir(mmdet_backbones))
    with pytest.raises(AttributeError, match='ResNeXt'):
        _ = mmdet_backbones.ResNeXt
    with pytest.raises(ImportError, match='ResNeXt'):
        exec('from mmdet_backbones import ResNeXt')


def test_no_name_hides_a_module():
    modules = {path.stem for path in (ROOT / 'mmdet_backbones').iterdir()}
    assert {'swap', 'check', 'errors'} <= modules
    assert modules.isdisjoint(mmdet_backbones.__all__)


def test_every_class_that_configs_name_can_be_imported():
    known = [
        found
        for name in dir(registry)
        if isinstance(getattr(registry, name), registry.Registry)
        and getattr(registry, name).scope == 'mmdet_backbones'
        for found in _registered(getattr(registry, name))
    ]
    assert len(known) > 20
    missing = {c.__name__ for c in known} - set(mmdet_backbones.__all__)
    assert missing == set()


def _registered(of: registry.Registry) -> list[type]:
    of.import_from_location()
    import_module('mmdet_backbones.detectors')
    found = of.module_dict.values()
    return [c for c in found if c.__module__.startswith('mmdet_backbones.')]


def test_the_import_is_cheap_and_brings_no_other_library(run_python):
    code = (
        'import sys, torch, time\n'
        'before, start = set(sys.modules), time.process_time()\n'
        'import mmdet_backbones\n'
        'print(time.process_time() - start)\n'
        'new = {name.partition(".")[0] for name in set(sys.modules) - before}\n'
        'print(*sorted(new - sys.stdlib_module_names))\n'
    )
    done = run_python('-c', code, **ALONE)
    assert done.returncode == 0, done.stderr
    seconds, others = done.stdout.splitlines()
    assert float(seconds) < 0.07
    assert others.split() == ['lazy_loader', 'mmdet_backbones']


def test_without_lazy_loader_torch_can_be_imported_and_the_cure_is_told(run_python):
    code = (
        'import sys\n'
        'sys.modules["lazy_loader"] = None\n'
        'import mmdet_backbones.registry\n'
        'assert not hasattr(mmdet_backbones, "__wrapped__")\n'
        'from mmdet_backbones import Res2Net\n'
    )
    done = run_python('-c', code, **ALONE)
    assert 'pip install lazy_loader' in done.stderr.splitlines()[-1]
    assert 'Res2Net' in done.stderr


@pytest.mark.slow
def test_a_type_checker_sees_a_wrong_argument_outside_the_package(run_python, tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'from mmdet_backbones import Res2Net, TIMMBackbone, TIMMBackbon\n'
        "TIMMBackbone('resnet18', out_stride=(8, 16, 32))\n"
        "Res2Net(depth='50')\n"
        'reveal_type(Res2Net(depth=50).out_channels)\n'
    )
    done = run_python(
        '-m', 'mypy', '--ignore-missing-imports', '--follow-imports=silent',
        '--cache-dir', str(tmp_path / 'cache'), str(script),
        MYPYPATH=str(ROOT),
    )  # fmt: skip
    assert 'no attribute "TIMMBackbon"' in done.stdout, done.stdout + done.stderr
    assert 'script.py:2: error: Unexpected keyword argument "out_stride"' in done.stdout
    assert 'script.py:3: error: Argument "depth" to "Res2Net"' in done.stdout
    assert 'Revealed type is "tuple[int, ...]"' in done.stdout
    assert 'Found 3 errors' in done.stdout
