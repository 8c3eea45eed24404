"""Training on a Ray cluster: as torchrun's processes train, and on when one dies."""

import os
import re
import signal
import subprocess
import sys
import time

import dist_runs as runs
import pytest
import torch
from ray_processes import workers_of

from mmdet_backbones.cli.main import main

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')


@pytest.fixture(scope='module')
def squares(tmp_path_factory):
    return runs.make_squares(tmp_path_factory.mktemp('data') / 'squares', 8, 4)


def start(config, work, *flags):
    words = [config, '--work-dir', work, '--no-check', '--gpus', 2, '--ray', *flags]
    return subprocess.Popen(
        [sys.executable, 'tools/train.py', *map(str, words)],
        cwd=runs.ROOT,
        env=runs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ('flags', 'told'),
    [
        ((), ['write --gpus N with --ray']),
        (('--gpus', '0', '--launcher', 'slurm'), ['--gpus N', 'out --launcher slurm']),
    ],
)
def test_mistakes_are_told_before_a_cluster_starts(
    flags, told, squares, tmp_path, capfd
):
    config = runs.write(runs.yolox(squares, 2), tmp_path / 'config.py')
    assert main(['train', str(config), *flags, '--ray']) == 1
    error = capfd.readouterr().err
    assert [text for text in told if text not in error] == []


def test_ray_that_is_not_there_is_told(squares, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, 'ray', None)
    config = runs.write(runs.yolox(squares, 2), tmp_path / 'config.py')
    assert main(['train', str(config), '--gpus', '2', '--ray']) == 1
    assert 'pip install "mmdet_backbones[search]"' in capfd.readouterr().err


@pytest.mark.slow
def test_a_cluster_trains_as_torchrun_does(squares, tmp_path):
    config = runs.for_iterations(runs.yolox(squares, 4), 3)
    path = runs.write(config, tmp_path / 'config.py')
    done = runs.train(path, tmp_path / 'torchrun', 2)
    assert done.returncode == 0, done.stderr[-3000:]
    process = start(path, tmp_path / 'ray')
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    one, other = (torch.load(tmp_path / n / 'record.pth') for n in ('torchrun', 'ray'))
    # A base batch of 4, and 2 x 4 images.
    assert one['lr'] == other['lr'] == 0.02
    assert other['wrapper'] == 'MMDistributedDataParallel'
    assert one['losses'] == other['losses']
    assert len(one['losses']) == 3
    for name, value in one['parameters'].items():
        torch.testing.assert_close(value, other['parameters'][name], rtol=0, atol=0)


@pytest.mark.slow
def test_a_process_dies_and_all_go_on_from_the_newest_checkpoint(squares, tmp_path):
    config = runs.yolox(squares, 2)
    config['train_cfg'] = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=4)
    config['default_hooks']['checkpoint'] = dict(type='CheckpointHook', interval=1)
    path = runs.write(config, tmp_path / 'config.py')
    work = tmp_path / 'work'
    process = start(path, work)
    deadline = time.monotonic() + 600
    while not (work / 'epoch_1.pth').is_file() and time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    victims = workers_of(process.pid)
    assert len(victims) == 2
    os.kill(victims[1], signal.SIGKILL)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    lost = r'process [01] \(from 0\) was lost; all processes start again'
    assert re.search(lost, said)
    assert re.search(r'going on from .*epoch_[123]', said)
    assert (work / 'epoch_4.pth').is_file()
    epochs = {int(n) for n in re.findall(r'Epoch\(train\)\s+\[(\d)\]', said)}
    assert epochs == {1, 2, 3, 4}
    # What was trained is not trained again without being told to.
    again = start(path, work)
    said, _ = again.communicate(timeout=600)
    assert again.returncode == 1
    assert 'write --resume to go on with it' in said
