"""Trainings that diverge, or that the machine or the data end: one message each."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch
from dist_runs import free_port
from mmengine.config import Config
from squares import SMALL, draw_squares, write_config
from toy_training import toy_runner

from mmdet_backbones.engine import running
from mmdet_backbones.engine.images import ImageGuard
from mmdet_backbones.engine.resuming import set_resume
from mmdet_backbones.engine.without_gpu import join_processes_without_gpu
from mmdet_backbones.errors import UserError


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


@pytest.mark.parametrize(
    ('word', 'told'),
    [
        ('nan', 'loss_bbox is nan'),
        ('inf', 'loss_bbox is inf'),
        ('ill', '1 parameters are not finite (weight)'),
    ],
)
def test_a_diverged_training_stops_before_it_is_saved(tmp_path, word, told):
    runner = toy_runner(tmp_path, ['ok', 'ok', word, 'ok'])
    with pytest.raises(UserError) as error:
        running.train(runner)
    message = str(error.value)
    assert f'the training has diverged: {told}' in message
    assert 'in iteration 3' in message
    assert 'at a learning rate of 0.1' in message
    assert 'optim_wrapper.optimizer.lr = 0.01' in message
    assert 'optim_wrapper.clip_grad' in message
    assert saved(tmp_path) == ['iter_1.pth', 'iter_2.pth']
    kept = torch.load(tmp_path / 'iter_2.pth')['state_dict']
    assert torch.isfinite(kept['weight']).all()


def test_a_sound_training_ends(tmp_path):
    running.train(toy_runner(tmp_path, ['ok', 'ok']))
    assert saved(tmp_path) == ['iter_1.pth', 'iter_2.pth']


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='AMP of mmengine needs a GPU')
@pytest.mark.parametrize(('skipped', 'ends'), [(5, False), (40, True)])
def test_steps_that_mixed_precision_skips_are_not_accused(tmp_path, skipped, ends):
    wrapper = dict(
        type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.1), loss_scale='dynamic'
    )
    runner = toy_runner(
        tmp_path, ['ok', *['inf'] * skipped, 'ok'], optim_wrapper=wrapper
    )
    if ends:
        with pytest.raises(UserError, match='diverged: loss_bbox is inf'):
            running.train(runner)
    else:
        running.train(runner)
        assert f'iter_{skipped + 2}.pth' in saved(tmp_path)


def in_one_of_two(rank: int, folder: Path, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), CUDA_VISIBLE_DEVICES='',
    )  # fmt: skip
    from mmengine.dist import get_rank

    # The samples go to the processes in turn: the third step of the second is ill.
    words = ['ok', 'ok', 'ok', 'ok', 'ok', 'nan', 'ok', 'ok']
    cfg = Config(dict(launcher='pytorch'))
    join_processes_without_gpu(cfg)
    runner = toy_runner(folder, words, launcher='pytorch', cfg=cfg)
    try:
        running.train(runner)
    except UserError as error:
        (folder / f'told_{get_rank()}').write_text(str(error))


@pytest.mark.slow
def test_all_processes_stop_together(tmp_path):
    context, port = multiprocessing.get_context('spawn'), free_port()
    started = [
        context.Process(target=in_one_of_two, args=(rank, tmp_path, port), daemon=True)
        for rank in (0, 1)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    alive = [process.kill() for process in started if process.is_alive()]
    assert not alive
    assert 'a loss of another process' in (tmp_path / 'told_0').read_text()
    assert 'loss_bbox is nan in iteration 3' in (tmp_path / 'told_1').read_text()
    assert saved(tmp_path) == ['iter_1.pth', 'iter_2.pth']


def test_a_killed_loader(tmp_path):
    runner = toy_runner(tmp_path, ['ok', 'kill', 'ok'], workers=1)
    with pytest.raises(UserError, match='was killed from outside') as told:
        running.train(runner)
    assert 'train_dataloader.num_workers' in str(told.value)
    assert '--shm-size' in str(told.value)


@pytest.mark.parametrize('where', ['a file', 'below a file', '/proc/nowhere', 'a\0b'])
def test_a_work_folder_that_cannot_be_written(tmp_path, where):
    (tmp_path / 'file').write_text('')
    folder = {'a file': 'file', 'below a file': 'file/work'}.get(where, where)
    with pytest.raises(UserError, match='--work-dir'):
        running.require_work_dir(Config(dict(work_dir=str(tmp_path / folder))))


def test_load_from_has_to_be_there(tmp_path):
    running.require_load_from(Config(dict(load_from=None)))
    running.require_load_from(Config(dict(load_from='https://x/y.pth')))
    for given in (str(tmp_path / 'x.pth'), str(tmp_path), 3):
        with pytest.raises(UserError, match='load_from: there is no checkpoint'):
            running.require_load_from(Config(dict(load_from=given)))


def test_what_stands_in_the_place_of_a_checkpoint_is_said(tmp_path):
    os.mkfifo(tmp_path / 'pipe.pth')
    (tmp_path / 'loop.pth').symlink_to('loop.pth')
    odd = {
        'pipe.pth': 'a pipe, not a file',
        'loop.pth': 'a loop of links',
        'x' * 5000: 'too long for a path',
        '.': 'a directory',
    }
    for name, words in odd.items():
        cfg = Config(dict(load_from=f'{tmp_path}/{name}'))
        with pytest.raises(UserError, match=f'which is {words}'):
            running.require_load_from(cfg)
        with pytest.raises(UserError, match=f'--resume: the checkpoint .* is {words}'):
            set_resume(cfg, cfg.load_from)
    # The home of nobody.
    with pytest.raises(UserError, match='there is no checkpoint'):
        running.require_load_from(Config(dict(load_from='~nobody-here/x.pth')))
    sharded = Config(dict(load_from=str(tmp_path), strategy=dict(type='FSDPStrategy')))
    running.require_load_from(sharded)
    set_resume(sharded, str(tmp_path))
    assert sharded.resume


def test_images_are_left_out_and_counted():
    def load(results):
        if results['img_path'] == 'bad':
            raise OSError('no image')
        return results

    guard = ImageGuard(load, skip=True, advice='')
    words = ['good', 'bad', 'bad', 'good']
    assert [guard(dict(img_path=word)) is None for word in words] == [
        False, True, True, False
    ]  # fmt: skip
    assert guard.skipped.sum() == 2
    for _ in range(49):
        guard(dict(img_path='bad'))
    with pytest.raises(UserError, match='50 images in a row'):
        guard(dict(img_path='bad'))
    strict = ImageGuard(load, skip=False, advice='Mend it')
    with pytest.raises(UserError, match=r"'bad' cannot be read: no image\. Mend it"):
        strict(dict(img_path='bad'))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return draw_squares(tmp_path_factory.mktemp('squares'))


@pytest.fixture
def squares(whole, tmp_path):
    """A copy of the data that may be broken, and its config."""
    root = Path(shutil.copytree(whole, tmp_path / 'data'))
    return root, str(write_config(tmp_path / 'config.py', root))


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def no_boxes(root):
    edit(root / 'val.json', annotations=[])


def no_images(root):
    edit(root / 'val.json', images=[], annotations=[])


def other_classes(root):
    edit(root / 'train.json', categories=[dict(id=1, name='cat')])


def small_images(root):
    images = json.loads((root / 'train.json').read_text())['images']
    edit(root / 'train.json', images=[{**i, 'width': 8, 'height': 8} for i in images])


def no_train_boxes(root):
    edit(root / 'train.json', annotations=[])


def broken_json(root):
    (root / 'train.json').write_text('{"images": [')


def gone(root):
    for path in (root / 'train').iterdir():
        path.unlink()


def broken(root):
    (root / 'train' / '3.png').write_bytes(b'no image')


def empty(root):
    (root / 'train' / '3.png').write_bytes(b'')


def val_gone(root):
    (root / 'val' / '1.png').unlink()


SKIP = '--skip-broken-images'
slow = pytest.mark.slow
BROKEN = [
    (no_boxes, (), 'val_dataloader: no box stands in any of the 2 images'),
    (other_classes, (), 'train_dataloader: there is no image in the data set'),
    pytest.param(no_images, (), 'val_dataloader: there is no image', marks=slow),
    pytest.param(small_images, (), 'sides below min_size', marks=slow),
    pytest.param(no_train_boxes, (), 'filter_empty_gt', marks=slow),
    pytest.param(broken_json, (), 'JSONDecodeError', marks=slow),
    pytest.param(gone, (), 'cannot be read', marks=slow),
    pytest.param(gone, (SKIP,), '50 images in a row cannot be read', marks=slow),
    pytest.param(broken, (), "3.png' cannot be read", marks=slow),
    pytest.param(empty, (), "3.png' cannot be read", marks=slow),
    pytest.param(val_gone, (SKIP,), "1.png' cannot be read", marks=slow),
]


@pytest.mark.parametrize(('damage', 'flags', 'told'), BROKEN)
def test_data_without_use(squares, tmp_path, run_tool, damage, flags, told):
    root, config = squares
    damage(root)
    done = run_tool(
        'tools/train.py', config, '--no-check', *flags, '--work-dir',
        str(tmp_path / 'work'), '--cfg-options', *SMALL, 'train_cfg.val_interval=1',
    )  # fmt: skip
    assert done.returncode == 1
    assert [n[:7] for n in done.stderr.splitlines()].count('error: ') == 1
    assert told in done.stderr


@pytest.mark.slow
def test_broken_images_are_left_out(squares, tmp_path, run_tool):
    root, config = squares
    broken(root)
    done = run_tool(
        'tools/train.py', config, SKIP, '--work-dir', str(tmp_path / 'work'),
        '--cfg-options', *SMALL, 'train_cfg.max_epochs=1',
        'train_dataloader.num_workers=1',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'Images that cannot be read were left out 1 times' in log


@pytest.mark.slow
def test_a_rate_that_is_far_too_high(squares, tmp_path, run_tool):
    _, config = squares
    done = run_tool(
        'tools/train.py', config, '--work-dir', str(tmp_path / 'work'),
        '--cfg-options', *SMALL, 'optim_wrapper.optimizer.lr=1e30',
        'train_dataloader.batch_size=1',
    )  # fmt: skip
    assert done.returncode == 1
    assert 'error: the training has diverged' in done.stderr
    assert saved(tmp_path / 'work') == []
