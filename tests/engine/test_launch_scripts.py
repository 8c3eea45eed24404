"""The scripts that start processes: signals, and a stand-in for srun."""

from __future__ import annotations

import os
import subprocess
import sys

import dist_runs as runs
import pytest
import torch
from conftest import ROOT

FAKE_SRUN = """#!/usr/bin/env bash
# Stands in for srun: keeps its command line, and starts its tasks on this machine.
printf '%s\\n' "$@" >"$SRUN_LOG"
[ -n "${TASKS:-}" ] || exit 0
while [[ $1 == -* ]]; do shift; done
for ((task = 0; task < TASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=$TASKS SLURM_NODELIST=here \\
        "$@" &
    tasks+=($!)
done
for task in "${tasks[@]}"; do wait "$task" || exit 1; done
"""


@pytest.fixture
def slurm(tmp_path):
    """Run the script with a stand-in for srun on the path."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    (folder / 'srun').write_text(FAKE_SRUN)
    (folder / 'srun').chmod(0o755)

    def run(*arguments, **variables):
        path = f'{folder}{os.pathsep}{os.environ["PATH"]}'
        log = tmp_path / 'srun.log'
        done = subprocess.run(
            ['tools/slurm_train.sh', *map(str, arguments)],
            cwd=ROOT,
            env=runs.environment(PATH=path, SRUN_LOG=str(log), **variables),
            capture_output=True,
            text=True,
            check=False,
        )
        return done, log.read_text().splitlines() if log.is_file() else []

    return run


def test_slurm_command_line(slurm):
    arguments = ('gpu', 'my job', 'a config.py', '--work-dir', 'w d', '--resume')
    done, words = slurm(
        *arguments,
        **dict(GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='6'),
        **dict(SRUN_ARGS='--quotatype=auto  --time 5', PYTHON='my-python'),
    )
    assert done.returncode == 0, done.stderr
    assert words == [
        *('--partition=gpu', '--job-name=my job', '--ntasks=16', '--gres=gpu:4'),
        *('--ntasks-per-node=4', '--cpus-per-task=6', '--kill-on-bad-exit=1'),
        *('--quotatype=auto', '--time', '5', 'my-python', '-u', 'tools/train.py'),
        *('a config.py', '--launcher', 'slurm', '--work-dir', 'w d', '--resume'),
    ]
    _, words = slurm('gpu', 'job', 'c.py', GPUS='2')
    assert '--gres=gpu:2' in words
    assert '--ntasks-per-node=2' in words
    _, words = slurm('cpu', 'job', 'c.py', GPUS='2', GPUS_PER_NODE='0')
    assert not [word for word in words if 'gres' in word or 'per-node' in word]


def test_scripts_are_bash_and_say_what_they_need(slurm):
    for name in ('dist_train', 'slurm_train'):
        assert (
            subprocess.run(['bash', '-n', f'tools/{name}.sh'], cwd=ROOT).returncode == 0
        )
    done, words = slurm('gpu')
    assert done.returncode == 2
    assert 'PARTITION JOB CONFIG' in done.stderr
    assert words == []


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.slow
def test_tasks_of_slurm_train_together(slurm, tmp_path):
    squares = runs.make_squares(tmp_path / 'squares')
    config = runs.for_iterations(runs.yolox(squares, 2), 2)
    path = runs.write(config, tmp_path / 'config.py')
    done, _ = slurm(
        *('cpu', 'job', path, '--no-check', '--work-dir', tmp_path / 'work'),
        **dict(GPUS='2', GPUS_PER_NODE='0', TASKS='2', MASTER_ADDR='127.0.0.1'),
        MASTER_PORT=str(runs.free_port()),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kept = torch.load(tmp_path / 'work' / 'record.pth')
    assert kept['wrapper'] == 'MMDistributedDataParallel'
    assert kept['lr'] == 0.01  # 2 processes x 2 images, of a rate for 4


def test_a_signal_reaches_what_was_started(tmp_path):
    """A scheduler ends one process alone; one left behind would hold the GPU."""
    torchrun = tmp_path / 'python'
    torchrun.write_text('#!/usr/bin/env bash\necho started\nexec sleep 60\n')
    torchrun.chmod(0o755)
    code = (
        'import sys; from mmdet_backbones.cli import processes; '
        f"sys.executable = {str(torchrun)!r}; sys.argv = ['tools/train.py']; "
        "sys.exit(processes.start('train', 2, ['config.py']))"
    )
    started = subprocess.Popen(
        [sys.executable, '-c', code],
        cwd=ROOT,
        env=runs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout.readline() == 'started\n'
    started.terminate()
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 143
    assert 'stopped with exit status 143' in errors
    assert 'with --resume' in errors


def test_dist_train_starts_the_processes_of_its_machine(tmp_path):
    python = tmp_path / 'python'
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ['tools/dist_train.sh', 'a config.py', '2', '--resume'],
        cwd=ROOT,
        env=runs.environment(PYTHON=str(python)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        *('tools/train.py', 'a config.py', '--gpus', '2', '--resume'),
    ]
