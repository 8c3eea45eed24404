"""Training in several processes, on several machines, and what only GPUs can do."""

from __future__ import annotations

import copy
import json
import runpy
import time

import dist_runs as runs
import pytest
import torch
from config_files import read
from conftest import ROOT
from mmengine.config import Config

from mmdet_backbones.engine import launch
from mmdet_backbones.engine.launch import leave_processes
from mmdet_backbones.engine.lr_scaling import tabulate_rates
from mmdet_backbones.engine.without_gpu import require_gpu
from mmdet_backbones.errors import UserError

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
RATES = runpy.run_path(str(ROOT / 'benchmarks' / 'distributed_rates.py'))


@pytest.fixture(scope='module')
def squares(tmp_path_factory):
    return runs.make_squares(tmp_path_factory.mktemp('data') / 'squares')


@pytest.fixture
def record(tmp_path):
    """Train, and give the losses and parameters that the run kept."""

    def run(name, config, processes=1):
        path = runs.write(config, tmp_path / f'{name}.py')
        done = runs.train(path, tmp_path / name, processes)
        assert done.returncode == 0, done.stderr[-3000:]
        return torch.load(tmp_path / name / 'record.pth')

    return run


def loss_difference(first, second):
    """The largest relative difference of the loss of an iteration."""
    pairs = zip(first['losses'], second['losses'], strict=True)
    return max(abs(a['loss'] - b['loss']) / abs(a['loss']) for a, b in pairs)


def parameter_difference(first, second):
    ours, theirs = first['parameters'], second['parameters']
    assert ours.keys() == theirs.keys()
    return max((ours[k] - theirs[k]).abs().max().item() for k in ours)


@without_gpu
@pytest.mark.parametrize(
    ('detector', 'steps'),
    [
        pytest.param('yolox', 10, marks=pytest.mark.slow),
        pytest.param('cascade_in_float64', 10, marks=pytest.mark.slow, id='cascade-10'),
    ],
)
def test_two_processes_train_as_one(detector, steps, squares, record):
    make = getattr(runs, detector)
    one = record('one', runs.for_iterations(make(squares, 4), steps))
    two = record('two', runs.for_iterations(make(squares, 2), steps), processes=2)
    assert len(one['losses']) == steps
    assert two['wrapper'] == 'MMDistributedDataParallel'
    assert two['find_unused'] is False
    assert one['lr'] == two['lr'] == 0.01
    assert one['losses'][0]['loss'] != pytest.approx(one['losses'][-1]['loss'], 1e-3)
    assert loss_difference(one, two) < 1e-4
    assert parameter_difference(one, two) < 1e-5


@pytest.mark.slow
def test_accumulated_batches_train_as_one_batch(squares, record):
    make = runs.cascade_in_float64
    whole = record('whole', runs.for_iterations(make(squares, 16), 5))
    parts = record('parts', runs.for_iterations(make(squares, 4), 20, 4))
    assert whole['lr'] == parts['lr'] == 0.04
    assert parameter_difference(whole, parts) < 1e-5


def final_metrics(work):
    newest = max(work.glob('*/vis_data/scalars.json'))
    entries = [json.loads(line) for line in newest.read_text().splitlines()]
    return [entry for entry in entries if 'coco/bbox_mAP' in entry][-1]


def two_machines(config, work, *flags):
    port = runs.free_port()
    return [runs.start_machine(config, work, rank, port, *flags) for rank in (0, 1)]


def kill_in_the_middle(machines, victim, work, epoch):
    """Kill one of two machines behind an epoch; the end of the log of the other."""
    deadline = time.monotonic() + 400
    while not (work / f'epoch_{epoch}.pth').is_file() and time.monotonic() < deadline:
        assert machines[0].poll() is machines[1].poll() is None
        time.sleep(0.1)
    runs.kill_machine(machines[victim])
    other = 1 - victim
    assert machines[other].wait(timeout=120) == 1
    log = work.with_name(f'{work.name}_machine{other}.log').read_text()
    assert not (work / 'epoch_20.pth').is_file()
    return log.splitlines()[-1]


@without_gpu
@pytest.mark.slow
def test_machines_die_and_the_run_goes_on(squares, tmp_path):
    config = runs.write(runs.learning_yolox(squares, 2), tmp_path / 'config.py')
    work = tmp_path / 'killed'
    flags = []
    for victim, epoch in ((1, 6), (0, 13)):
        machines = two_machines(config, work, *flags)
        message = kill_in_the_middle(machines, victim, work, epoch)
        assert f'machine {1 - victim} (of 2, from 0) stopped' in message
        assert '--resume' in message
        flags = ['--resume']
    machines = two_machines(config, work, *flags)
    assert [machine.wait(timeout=400) for machine in machines] == [0, 0]
    assert 'going on from ' in (tmp_path / 'killed_machine0.log').read_text()
    undisturbed = two_machines(config, tmp_path / 'undisturbed')
    assert [machine.wait(timeout=400) for machine in undisturbed] == [0, 0]
    reached = final_metrics(tmp_path / 'undisturbed')['coco/bbox_mAP']
    assert reached > 0.4
    # The first process's statistics of batch normalisation are those of the checkpoint.
    assert final_metrics(work)['coco/bbox_mAP'] == pytest.approx(reached, abs=0.02)


BACKBONES = {
    'res2net': dict(type='mmdet_backbones.Res2Net', depth=50),
    'timm': dict(type='mmdet_backbones.TIMMBackbone', model_name='mobilenetv2_050'),
    'torchvision': dict(
        type='mmdet_backbones.TorchvisionBackbone', model_name='mobilenet_v3_small'
    ),
    'mmpretrain': dict(type='mmdet_backbones.ShuffleNetV2', widen_factor=0.5),
}


@without_gpu
@pytest.mark.slow
@pytest.mark.parametrize('kind', BACKBONES)
def test_mixed_precision_ema_accumulation_and_resume(kind, squares, tmp_path):
    if kind == 'mmpretrain':
        pytest.importorskip('mmpretrain.models')
    from mmdet_backbones.registry import MODELS

    backbone = dict(BACKBONES[kind], out_strides=(8, 16, 32), init_cfg=None)
    channels = [level.channels for level in MODELS.build(dict(backbone)).levels]
    config = runs.learning_yolox(squares, 4)
    config['model']['backbone'] = backbone
    config['model']['neck']['in_channels'] = channels
    config['custom_imports']['imports'].append('dist_hooks')
    config['optim_wrapper'].update(type='CpuAmpOptimWrapper', accumulative_counts=2)
    config['custom_hooks'].append(dict(type='EMAHook', momentum=0.1))
    config['train_cfg'].update(max_epochs=1, val_interval=1)
    path = runs.write(config, tmp_path / 'config.py')
    work = tmp_path / 'work'
    done = runs.train(path, work, 1)
    assert done.returncode == 0, done.stderr[-3000:]
    more = ('--resume', '--cfg-options', 'train_cfg.max_epochs=2')
    done = runs.train(path, work, 1, *more)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"going on from '{work / 'epoch_1.pth'}'" in done.stdout + done.stderr
    before, after = (
        torch.load(work / f'epoch_{epoch}.pth', weights_only=False) for epoch in (1, 2)
    )
    # 4 images x 2 accumulated, of a rate for 4 images.
    assert after['optimizer']['param_groups'][0]['initial_lr'] == pytest.approx(4e-3)
    assert after['meta']['epoch'] == 2
    for key in ('state_dict', 'ema_state_dict'):
        name = next(name for name in before[key] if name.endswith('conv.weight'))
        assert not torch.equal(before[key][name], after[key][name])
        assert torch.isfinite(after[key][name]).all()
    entries = [
        json.loads(line)
        for file in work.glob('*/vis_data/scalars.json')
        for line in file.read_text().splitlines()
    ]
    losses = [entry['loss'] for entry in entries if 'loss' in entry]
    assert len(losses) == 8
    assert all(0 < loss < 100 for loss in losses)


FSDP = (
    f'_base_ = [{str(ROOT / "configs" / "_base_" / "runtime" / "fsdp.py")!r}, '
    "'plain.py']\n"
    'optim_wrapper = dict(\n'
    "    type='mmdet_backbones.engine.sharding.ShardedOptimWrapper')\n"
)


def swin(squares, clip):
    config = runs.cascade(squares, 2)
    shipped = runs.read_shipped('cascade_rcnn/cascade-rcnn_swin-tiny_fpn_1x_coco.py')
    config['model']['backbone'] = {
        **shipped['model']['backbone'],
        **dict(init_cfg=None, drop_path_rate=0.0, frozen_stages=1),
    }
    config['model']['neck']['in_channels'] = shipped['model']['neck']['in_channels']
    config['optim_wrapper'] = shipped['optim_wrapper']
    config['optim_wrapper']['clip_grad'] = clip
    # AdamW makes whole steps of differences in the last digit.
    config['optim_wrapper']['optimizer'] = dict(
        type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4
    )
    runs.for_iterations(config, 3)
    config['default_hooks']['checkpoint'].update(interval=3)
    return config


@without_gpu
@pytest.mark.slow
def test_sharded_training_is_the_same_training(squares, tmp_path, record):
    pytest.importorskip('mmpretrain.models')
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    config = swin(squares, dict(max_norm=1.0, norm_type=2))
    # Two kinds of Runner draw different first weights from one seed.
    config['load_from'] = str(tmp_path / 'start.pth')
    register_all_modules()
    detector = MODELS.build(Config(copy.deepcopy(config)).model)
    detector.init_weights()
    torch.save(dict(state_dict=detector.state_dict()), config['load_from'])
    whole = record('whole', dict(config), processes=2)
    runs.write(config, tmp_path / 'plain.py')
    (tmp_path / 'sharded.py').write_text(FSDP)
    done = runs.train(tmp_path / 'sharded.py', tmp_path / 'sharded', 2)
    assert done.returncode == 0, done.stderr[-3000:]
    shards = torch.load(tmp_path / 'sharded' / 'record.pth')
    assert shards['wrapper'] == 'MMFullyShardedDataParallel'
    assert loss_difference(whole, shards) < 1e-4
    sizes = [sum(map(torch.numel, r['parameters'].values())) for r in (whole, shards)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.01)
    saved = [
        torch.load(tmp_path / name / 'iter_3.pth', weights_only=False)['state_dict']
        for name in ('whole', 'sharded')
    ]
    assert saved[0].keys() == saved[1].keys()
    for name, value in saved[0].items():
        torch.testing.assert_close(saved[1][name], value, rtol=0, atol=1e-5)


@without_gpu
def test_what_needs_a_gpu_is_told_at_once():
    cfg = Config(
        dict(
            launcher='pytorch',
            sync_bn='torch',
            optim_wrapper=dict(type='AmpOptimWrapper'),
            model=dict(
                backbone=dict(norm_cfg=dict(type='SyncBN')),
                heads=[dict(norm_cfg=dict(type='MMSyncBN'))],
            ),
        )
    )
    with pytest.raises(UserError) as caught:
        require_gpu(cfg)
    for part in (
        'no GPU is visible',
        '--amp',
        "sync_bn='torch'",
        "model.backbone.norm_cfg.type='SyncBN'",
        "write model.heads.0.norm_cfg.type='BN'",
    ):
        assert part in str(caught.value)
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.launcher = 'none'
    require_gpu(cfg)


@without_gpu
def test_a_process_waits_for_the_others_as_long_as_the_config_says(monkeypatch):
    cfg = Config(dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(timeout=7))))
    names = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(runs.free_port()))
    for name, value in dict(names, RANK='0', WORLD_SIZE='1').items():
        monkeypatch.setenv(name, value)
    launch.join_processes_without_gpu(cfg)
    try:
        group = torch.distributed.group.WORLD
        assert group._get_backend(torch.device('cpu')).options._timeout.seconds == 7
    finally:
        torch.distributed.destroy_process_group()
    assert cfg.model_wrapper_cfg.device_ids is None


def test_the_guide_has_the_rates_of_the_configs():
    rates = {
        detector: tabulate_rates(read(f'configs/{name}'), RATES['GPUS'])
        for detector, name in RATES['CONFIGS'].items()
    }
    text = (ROOT / 'docs' / 'several_gpus.md').read_text()
    assert RATES['table'](rates) in text
    assert text == RATES['replace'](text, RATES['table'](rates))


def test_a_finished_run_leaves_its_group(tmp_path):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    leave_processes()
    assert not torch.distributed.is_initialized()
    leave_processes()  # as in a run of one process
