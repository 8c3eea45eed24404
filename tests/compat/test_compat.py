"""The host libraries after `import mmdet_backbones`: hooks, paths, checkpoints."""

import importlib.util
import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader  # its import allows classes
from mmengine.utils import package_utils
from mmengine.utils.dl_utils import collect_env

import mmdet_backbones
from mmdet_backbones.compat import package_paths
from mmdet_backbones.compat.checkpoints import mmengine_classes

HEAVY = ('timm', 'torchvision', 'mmpretrain', 'mmdet', 'torch', 'mmengine')


def test_import_is_cheap_and_loads_no_library(run_python):
    code = (
        'import json, sys, time; t = time.perf_counter(); import mmdet_backbones;'
        's = time.perf_counter() - t;'
        f'print(json.dumps([s, [m for m in {HEAVY!r} if m in sys.modules]]))'
    )
    done = run_python('-c', code)
    seconds, loaded = json.loads(done.stdout)
    assert loaded == []
    assert seconds < 0.3


def test_install_twice_keeps_one_hook():
    import sys

    before = list(sys.meta_path)
    mmdet_backbones.install()
    assert sys.meta_path == before


@pytest.mark.parametrize(
    'imports',
    ['', pytest.param('import mmdet_backbones\n', marks=pytest.mark.slow)],
)
def test_builds_by_scope_with_nothing_imported_before(run_python, imports):
    code = imports + (
        'from mmdet.registry import MODELS\n'
        "net = MODELS.build(dict(type='mmdet_backbones.Res2Net', depth=50))\n"
        'print(type(net).__module__)'
    )
    done = run_python('-c', code)
    assert done.stdout.strip() == 'mmdet_backbones.backbones.residual.res2net', (
        done.stderr
    )


def test_mmdet_keeps_its_own_res2net():
    from mmdet.registry import MODELS

    assert MODELS.get('Res2Net').__module__.startswith('mmdet.')
    assert MODELS.get('mmdet_backbones.Res2Net') is mmdet_backbones.Res2Net


def test_operators_are_found_and_the_environment_is_collected():
    assert importlib.util.find_spec('mmcv._ext') is not None
    from mmdet.utils import collect_env as collect_mmdet_env

    assert importlib.util.find_spec('mmcv._ext') is not None
    assert 'PyTorch' in collect_env()
    assert 'PyTorch' in collect_mmdet_env()


def test_compiled_operators_are_left_alone(run_python, tmp_path):
    # A stand-in for the compiled module: the hook must not shadow a real file.
    (tmp_path / 'sitecustomize.py').write_text(
        'import importlib.util, sys\n'
        'import mmcv, os\n'
        f'mmcv.__path__.append({str(tmp_path / "built")!r})\n'
    )
    (tmp_path / 'built').mkdir()
    (tmp_path / 'built' / '_ext.py').write_text('compiled = True\n')
    code = 'import mmdet_backbones, mmcv._ext as e; print(e.compiled)'
    done = run_python('-c', code, PYTHONPATH=str(tmp_path))
    assert done.stdout.strip() == 'True', done.stderr


def test_own_configs_are_bases_for_others(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = 'mmdet_backbones::yolox/yolox_efficientnet-lite0_trees.py'\n"
        'model = dict(bbox_head=dict(num_classes=3))\n'
    )
    cfg = Config.fromfile(path)
    assert cfg.model.backbone.type == 'mmdet_backbones.TIMMBackbone'
    assert cfg.model.bbox_head.num_classes == 3


def test_mmdet_configs_are_bases(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n")
    assert Config.fromfile(path).model.type == 'FasterRCNN'


def test_missing_pkg_resources_names_the_version_to_install():
    def without_pkg_resources(package):
        raise ModuleNotFoundError('No module named x', name='pkg_resources')

    look_up = package_paths._answering(without_pkg_resources, answer=True)
    assert look_up('mmdet_backbones') is True
    with pytest.raises(ModuleNotFoundError, match=r'pip install "setuptools<82"'):
        look_up('mmdet')


def test_other_missing_modules_are_not_blamed_on_setuptools():
    with pytest.raises(ModuleNotFoundError, match='nowhere'):
        package_paths._answering(lambda package: __import__('nowhere'), 1)('mmdet')


def test_our_package_is_found_where_it_lies():
    here = package_paths.Path(mmdet_backbones.__file__).parent
    assert package_utils.get_installed_path('mmdet_backbones') == str(here)
    assert package_utils.is_installed('mmdet_backbones')


def _message_hub() -> dict:
    hub = MessageHub('test of checkpoints')
    hub.update_scalar('train/loss', np.float64(0.5))
    hub.update_scalar('train/time', torch.tensor(0.25).item())
    hub.update_info('iter', 3)
    return hub.state_dict()


def test_training_checkpoints_load_as_data(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save({'message_hub': _message_hub(), 'loss': np.float32(1)}, path)
    loaded = torch.load(path, weights_only=True)
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    assert buffer.mean() == 0.5


def test_training_checkpoints_load_as_data_after_mmengine_read_one(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save({'message_hub': _message_hub(), 'rows': slice(1, 2)}, path)
    read = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    assert read['rows'] == slice(1, 2)
    loaded = torch.load(path, weights_only=True)
    assert set(loaded) == {'message_hub', 'rows'}


class _Intruder:
    pass


@pytest.mark.parametrize(
    'content',
    [_Intruder(), _Intruder, print],
    ids=['instance', 'class', 'function'],
)
def test_everything_else_stays_refused(tmp_path, content):
    path = tmp_path / 'foreign.pth'
    torch.save({'content': content}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


class _LooksUp:
    """Pickles as a call of getattr, which mmengine's checkpoints need too."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


@pytest.mark.parametrize(
    ('owner', 'name'), [(HistoryBuffer, '__init__'), (np.ndarray, 'tofile')]
)
def test_getattr_reaches_statistics_methods_only(tmp_path, owner, name):
    path = tmp_path / 'foreign.pth'
    torch.save({'content': _LooksUp(owner, name)}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_allowed_classes_are_exact():
    allowed = [_class(item) for item in mmengine_classes()]
    names = {getattr(item, '__name__', item) for item in allowed}
    assert 'HistoryBuffer' in names
    assert getattr not in mmengine_classes()


def _class(item):
    return item[0] if isinstance(item, tuple) else item


def test_hooks_are_built_by_scope():
    from mmengine.registry import HOOKS

    hook = HOOKS.build(dict(type='mmdet_backbones.ChannelsLastHook', measure=False))
    net = torch.nn.Conv2d(3, 8, 3)
    hook.before_test(type('Runner', (), {'model': net})())
    assert net.weight.is_contiguous(memory_format=torch.channels_last)
