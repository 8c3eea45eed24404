"""What stands in for mmcv._ext as a module: its names, and what they say."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ops.case import mmcv_ops, operator_modules, substitute


def asked_names() -> dict[str, str]:
    """Operator names that the installed mmcv asks of mmcv._ext, with their file."""
    names = {}
    for path in sorted(Path(mmcv_ops().__file__).parent.glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, 'attr', '') == (
                'load_ext'
            ):
                for item in ast.literal_eval(node.args[1]):
                    names[item] = path.stem
    return names


SERVED = {name for name in vars(substitute()) if not name.startswith('_')}
# What MMDetection reaches: its imports from mmcv.ops, its conv_cfg, norm_cfg and
# upsample types, and the RoI layers of its configs.
REACHED_MODULES = {
    'bbox',
    'carafe',
    'deform_conv',
    'deform_roi_pool',
    'focal_loss',
    'info',
    'masked_conv',
    'modulated_deform_conv',
    'multi_scale_deform_attn',
    'roi_align',
    'roi_pool',
    'sync_bn',
}


def test_every_operator_of_a_reached_module_is_served():
    names = asked_names()
    assert len(names) > 100
    wanted = {name for name, module in names.items() if module in REACHED_MODULES}
    wanted |= {'nms', 'softnms', 'nms_match'}
    assert len(wanted) == 34
    assert wanted == SERVED


@pytest.mark.parametrize('name', sorted(set(asked_names()) - SERVED))
def test_unsupported_operator_raises_on_call(name):
    ours = substitute()
    assert hasattr(ours, name)
    with pytest.raises(NotImplementedError, match=f'_ext.{name} .*compiled mmcv'):
        getattr(ours, name)(torch.zeros(1), iou_threshold=0.5)


def test_message_names_what_to_install():
    with pytest.raises(NotImplementedError) as info:
        substitute().upfirdn2d()
    assert 'MMCV_WITH_OPS=1 pip install "mmcv==2.1.0"' in str(info.value)
    assert 'onedl-mmcv' in str(info.value)


@pytest.mark.parametrize('name', ['__path__', '__wrapped__', '_private', '__file__'])
def test_private_names_are_not_operators(name):
    with pytest.raises(AttributeError, match=name):
        getattr(substitute(), name)


def test_public_operator_without_substitute_says_so(our_operators):
    boxes, scores = torch.rand(3, 5), torch.rand(3)
    with pytest.raises(NotImplementedError, match='nms_rotated'):
        mmcv_ops().nms_rotated(boxes, scores, 0.5)


@pytest.mark.parametrize('name', sorted(SERVED))
def test_unknown_argument_is_a_type_error(name):
    operator = getattr(substitute(), name)
    kinds = {p.kind for p in inspect.signature(operator).parameters.values()}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    with pytest.raises(TypeError, match='no_such_argument'):
        operator(no_such_argument=1)


def test_every_module_of_mmcv_ops_imports():
    assert len(operator_modules()) > 40


PROGRAM = """
import mmdet_backbones, sys
assert 'torchvision' not in sys.modules, 'import mmdet_backbones loads torchvision'
from mmcv.ops import *
import mmdet.models
import mmcv.ops
from mmengine.utils.dl_utils import collect_env as engine_env
from mmdet.utils import collect_env
print(nms.__module__, mmcv.ops.get_compiler_version())
print(mmcv.ops.get_compiling_cuda_version(), collect_env()['MMDetection'])
engine_env()
"""


def test_fresh_program_imports_everything():
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', PROGRAM],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert 'mmcv.ops.nms' in done.stdout
