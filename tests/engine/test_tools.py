"""tools/train.py and tools/test.py: mistakes, and a run from start to metrics."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner.checkpoint import _load_checkpoint
from squares import SMALL, TREES, draw_squares, write_config
from terminal import run_on_terminal

from mmdet_backbones.engine import launch


@pytest.fixture(scope='module')
def squares(tmp_path_factory) -> Path:
    return draw_squares(tmp_path_factory.mktemp('squares'))


@pytest.fixture
def config(tmp_path, squares) -> Path:
    return write_config(tmp_path / 'squares.py', squares)


HIDE_CURSOR, SHOW_CURSOR = '\x1b[?25l', '\x1b[?25h'


def assert_told(done, *words: str) -> None:
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert 'Traceback' not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_wrong_path_names_the_nearest(run_python):
    done = run_python('tools/train.py', TREES.replace('lite0', 'lite1'))
    assert_told(done, 'there is no config file', TREES)


def test_wrong_packaged_config(run_tool):
    done = run_tool('tools/train.py', 'mmdet::yolox/nothing.py')
    assert_told(done, "there is no config 'mmdet::yolox/nothing.py'")


def test_syntax_error_in_a_config(run_tool, tmp_path):
    path = tmp_path / 'broken.py'
    path.write_text('model = dict(\n')
    assert_told(run_tool('tools/train.py', str(path)), 'cannot be read')


def test_missing_base(run_tool, tmp_path):
    path = tmp_path / 'orphan.py'
    path.write_text("_base_ = './nothing.py'\n")
    assert_told(run_tool('tools/train.py', str(path)), 'nothing.py')


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        (
            'model.backbone.type=mmdet_backbones.TIMBackbone',
            ['TIMBackbone', 'Nearest: ', 'mmdet_backbones.TIMMBackbone'],
        ),
        ('model.neck.type=YOLOXPAFN', ['YOLOXPAFN', 'YOLOXPAFPN']),
        ('model.backbone.model_name=resnet51', ['resnet51', 'resnet50']),
        ('model.backbone.out_strides=(8,64)', ['no level of stride 64', 'stride 32']),
        ('model.backbone.depth=50', ['takes no argument', 'depth']),
    ],
)
def test_mistakes_in_the_model(run_tool, config, tmp_path, option, words):
    done = run_tool(
        'tools/train.py', str(config), '--work-dir', str(tmp_path / 'work'),
        '--cfg-options', option,
    )  # fmt: skip
    assert_told(done, *words)


def test_missing_data_names_every_path_and_its_key(run_tool, tmp_path):
    root = tmp_path / 'nowhere'
    done = run_tool(
        'tools/train.py', TREES, '--work-dir', str(tmp_path / 'work'), '--cfg-options',
        f'train_dataloader.dataset.data_root={root}',
        f'val_dataloader.dataset.data_root={root}',
    )  # fmt: skip
    assert_told(
        done,
        f"train_dataloader.dataset.ann_file: '{root}/train.json'",
        f"val_dataloader.dataset.data_prefix.img: '{root}/val'",
    )


def test_missing_weights(run_tool, config, tmp_path):
    weights = "dict(type='Pretrained', checkpoint='nowhere.pth')"
    text = config.read_text().replace('init_cfg=None', f'init_cfg={weights}')
    config.write_text(text)
    done = run_tool(
        'tools/train.py', str(config), '--work-dir', str(tmp_path / 'work'),
    )  # fmt: skip
    assert_told(done, "The checkpoint 'nowhere.pth' is not there")


def test_missing_checkpoints(run_tool, config):
    done = run_tool('tools/test.py', str(config), 'nowhere.pth')
    assert_told(done, "there is no checkpoint 'nowhere.pth'")
    done = run_tool('tools/train.py', str(config), '--resume', 'nowhere.pth')
    assert_told(done, "--resume: there is no checkpoint 'nowhere.pth'")


def test_auto_scale_lr_without_a_base(run_tool, config):
    config.write_text(config.read_text() + 'auto_scale_lr = dict(_delete_=True)\n')
    done = run_tool('tools/train.py', str(config), '--auto-scale-lr')
    assert_told(done, 'auto_scale_lr = dict(base_batch_size=16)')


@pytest.mark.slow
def test_train_resume_and_test(run_python, config, tmp_path):
    work = tmp_path / 'work'
    train = ['tools/train.py', str(config), '--work-dir', str(work)]
    done = run_python(*train, '--cfg-options', *SMALL, 'train_cfg.max_epochs=1')
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Epoch(train)' in done.stdout
    assert HIDE_CURSOR not in done.stdout
    assert f'next: python tools/test.py {config}' in done.stdout + done.stderr
    status, drawn = run_on_terminal(*train, '--resume', '--cfg-options', *SMALL)
    assert status == 0, drawn[-3000:]
    assert f"going on from '{work}" in drawn
    assert 'resumed epoch: 1' in ''.join(p.read_text() for p in work.glob('*/*.log'))
    assert 'next: python tools/test.py' in drawn
    for name in ('training.png', 'best_and_worst.png'):
        assert (work / name).is_file()
        assert name in drawn
    assert 'epoch 2/2, loss' in drawn
    assert 'validation' in drawn
    assert drawn.rindex(SHOW_CURSOR) > drawn.rindex(HIDE_CURSOR)
    # The bar stands for these lines, and the log file has them.
    assert 'Epoch(train)' not in drawn
    assert 'Epoch(train)' in max(work.glob('*/*.log')).read_text()
    checkpoint = _load_checkpoint(str(work / 'epoch_2.pth'))
    assert checkpoint['meta']['epoch'] == 2
    done = run_python(
        'tools/test.py', str(config), str(work / 'epoch_2.pth'),
        '--work-dir', str(tmp_path / 'test'), '--out', str(tmp_path / 'out.pkl'),
        '--show-dir', 'drawn', '--tta', '--cfg-options', *SMALL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'out.pkl').is_file()
    assert 'bbox, the best class first' in done.stdout
    (written,) = (tmp_path / 'test').glob('*/classes.json')
    (row,) = json.loads(written.read_text())['bbox']
    assert (row['name'], row['images'], row['boxes']) == ('tree', 2, 4)


def test_dist_train_says_what_it_needs():

    done = subprocess.run(['tools/dist_train.sh'], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'CONFIG GPUS' in done.stderr


@pytest.mark.slow
def test_two_processes_train(config, tmp_path):

    done = subprocess.run(
        [
            'tools/dist_train.sh',
            str(config),
            '2',
            '--work-dir',
            str(tmp_path / 'work'),
            '--cfg-options',
            *SMALL,
        ],
        env={**os.environ, 'PYTHON': sys.executable, 'PORT': '29517'},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'work' / 'epoch_2.pth').is_file()


@pytest.mark.slow
def test_a_killed_run_goes_on(run_python, config, tmp_path):

    work = tmp_path / 'work'
    command = [
        'tools/train.py', str(config), '--work-dir', str(work), '--cfg-options',
        'train_cfg.max_epochs=4', 'default_hooks.logger.interval=1',
        'train_dataloader.batch_size=1', *SMALL,
    ]  # fmt: skip
    # A pipe that nobody reads would stop the training when it is full.
    log = tmp_path / 'log.txt'
    with (
        log.open('wb') as told,
        subprocess.Popen([sys.executable, *command], stderr=told, stdout=told) as run,
    ):
        deadline = time.monotonic() + 240
        while not (work / 'epoch_1.pth').is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.5)
        assert run.poll() is None, log.read_text()[-3000:]
        run.send_signal(signal.SIGKILL)
    assert not (work / 'epoch_4.pth').is_file()
    done = run_python(command[0], *command[1:4], '--resume', *command[4:])
    assert done.returncode == 0, done.stderr[-3000:]
    assert _load_checkpoint(str(work / 'epoch_4.pth'))['meta']['epoch'] == 4


def test_data_at_an_address_is_not_called_missing():
    data = dict(data_root='s3://bucket/coco/', ann_file='a.json')
    data['data_prefix'] = dict(img='train/')
    cfg = Config(dict(train_dataloader=dict(dataset=data)))
    launch.require_data(cfg, 'train')
