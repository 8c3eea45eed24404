"""Train on two machines that lose each other, and compare with an undisturbed run.

    sudo python benchmarks/two_machines.py [-o two_machines.md]

The machines are two network namespaces of Linux, joined by a pair of virtual
interfaces, so the program needs root and the `ip` command. One process each, through
tools/dist_train.sh: YOLOX on the synthetic squares of
tests/helpers/dist_runs.py, 20 epochs.
Machine 1 is killed behind epoch 3, its network is cut behind epoch 7; after each the
run is resumed on both. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests' / 'helpers'))

import dist_runs as runs

SPACES = ('mmdet_backbones_0', 'mmdet_backbones_1')
DEVICES = ('mmdet_bb_0', 'mmdet_bb_1')
ADDRESSES = ('10.77.0.1', '10.77.0.2')
KILLED_BEHIND, CUT_BEHIND, EPOCHS = 3, 7, 20


def ip(*arguments: str, space: str | None = None) -> None:
    inside = ['ip', 'netns', 'exec', space] if space else []
    subprocess.run([*inside, 'ip', *arguments], check=True)


@contextmanager
def two_namespaces() -> Iterator[None]:
    """Join two network namespaces for as long as the block runs."""
    try:
        for space in SPACES:
            ip('netns', 'add', space)
        ip('link', 'add', DEVICES[0], 'type', 'veth', 'peer', 'name', DEVICES[1])
        for space, device, address in zip(SPACES, DEVICES, ADDRESSES, strict=True):
            ip('link', 'set', device, 'netns', space)
            ip('addr', 'add', f'{address}/24', 'dev', device, space=space)
            ip('link', 'set', device, 'up', space=space)
            ip('link', 'set', 'lo', 'up', space=space)
        yield
    finally:
        for space in SPACES:
            subprocess.run(['ip', 'netns', 'del', space], check=False)


def machine(rank: int, config: Path, work: Path, *flags: str) -> subprocess.Popen:
    """Start one machine; what it says is added to its log."""
    command = ['tools/dist_train.sh', str(config), '1', '--no-check', '--work-dir']
    with log_of(work, rank).open('a') as log:
        return subprocess.Popen(
            ['ip', 'netns', 'exec', SPACES[rank], *command, str(work), *flags],
            cwd=runs.ROOT,
            env=runs.environment(
                NNODES='2',
                NODE_RANK=str(rank),
                MASTER_ADDR=ADDRESSES[0],
                PORT='29544',
                GLOO_SOCKET_IFNAME=DEVICES[rank],
            ),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def log_of(work: Path, rank: int) -> Path:
    return work.with_name(f'{work.name}_machine{rank}.log')


def wait_for(work: Path, epoch: int, machines: list[subprocess.Popen]) -> None:
    while not (work / f'epoch_{epoch}.pth').is_file():
        if any(one.poll() is not None for one in machines):
            raise SystemExit(log_of(work, 0).read_text()[-3000:])
        time.sleep(0.1)
    # So that the checkpoint is written to its end.
    time.sleep(0.5)


def disturbed(config: Path, work: Path) -> tuple[list[str], str]:
    """Train with both accidents; returns rows of the table and the last message."""
    machines = [machine(rank, config, work) for rank in (0, 1)]
    wait_for(work, KILLED_BEHIND, machines)
    runs.kill_machine(machines[1])
    start = time.monotonic()
    status = machines[0].wait()
    rows = [f'| machine 1 killed behind epoch {KILLED_BEHIND} | {status} '
            f'| {time.monotonic() - start:.1f} s |']  # fmt: skip
    message = log_of(work, 0).read_text().splitlines()[-1]
    machines = [machine(rank, config, work, '--resume') for rank in (0, 1)]
    wait_for(work, CUT_BEHIND, machines)
    ip('link', 'set', DEVICES[1], 'down', space=SPACES[1])
    start = time.monotonic()
    both = [one.wait() for one in machines]
    rows.append(
        f'| network cut behind epoch {CUT_BEHIND}, timeout 60 s | '
        f'{both[0]} and {both[1]} | {time.monotonic() - start:.1f} s |'
    )
    ip('link', 'set', DEVICES[1], 'up', space=SPACES[1])
    finish([machine(rank, config, work, '--resume') for rank in (0, 1)], work)
    return rows, message


def finish(machines: list[subprocess.Popen], work: Path) -> None:
    if any([one.wait() for one in machines]):
        raise SystemExit(log_of(work, 0).read_text()[-3000:])


def metrics(work: Path) -> dict[str, Any]:
    scalars = sorted(work.glob('*/vis_data/scalars.json'))[-1]
    found = [json.loads(line) for line in scalars.read_text().splitlines()]
    return [entry for entry in found if 'coco/bbox_mAP' in entry][-1]


def measure(folder: Path) -> str:
    data = runs.make_squares(folder / 'data')
    settings = runs.learning_yolox(data, 2)
    settings['env_cfg']['dist_cfg']['timeout'] = 60
    config = runs.write(settings, folder / 'config.py')
    with two_namespaces():
        rows, message = disturbed(config, folder / 'disturbed')
        whole = folder / 'undisturbed'
        finish([machine(rank, config, whole) for rank in (0, 1)], whole)
    names = ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75')
    results = []
    for text, work in (
        ('both accidents, resumed twice', folder / 'disturbed'),
        ('undisturbed', folder / 'undisturbed'),
    ):
        found = metrics(work)
        results.append(f'| {text} | {" | ".join(str(found[n]) for n in names)} |')
    return '\n'.join(
        [
            '# Two machines that lose each other',
            '',
            f'Two network namespaces, one process each, {EPOCHS} epochs of YOLOX on '
            'synthetic squares. Written by `benchmarks/two_machines.py`, which says '
            'what is done.',
            '',
            '| what happened | exit status of what was left | after |',
            '|---|---|---|',
            *rows,
            '',
            '| run | bbox_mAP | mAP_50 | mAP_75 |',
            '|---|---|---|---|',
            *results,
            '',
            'The last line of the machine that was left:',
            '',
            '```',
            message,
            '```',
            '',
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('-o', '--out', type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = measure(Path(folder))
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == '__main__':
    main()
