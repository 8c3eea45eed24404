"""``--gpus N``: the same command in N processes, started by torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..commands import SCRIPTS, command
from .output import stdout_of_others

_SIGNALS = ('SIGINT', 'SIGTERM', 'SIGHUP')


def starts_others(args: Namespace) -> bool:
    """Whether this process shall start others, and is none of them itself.

    Args:
        args: Flags of :func:`~.flags.add_common_flags`, parsed.

    Raises:
        UserError: If ``--gpus`` is no number of processes, or others start them.
    """
    if args.gpus is None or 'TORCHELASTIC_RUN_ID' in os.environ:
        return False
    from ..errors import UserError

    if args.gpus < 1:
        raise UserError(f'--gpus must be 1 or more, got {args.gpus}')
    if args.launcher != 'none':
        raise UserError(
            f'--gpus {args.gpus} starts the processes itself: leave out '
            f'--launcher {args.launcher}, or leave out --gpus'
        )
    return True


def start(subcommand: str, gpus: int, words: Sequence[str]) -> int:
    """Start the processes of this machine, wait for them, and say how they ended.

    Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment of
    each, as ``tools/dist_train.sh`` documents them.

    Args:
        subcommand: ``train`` or ``test``.
        gpus: Number of processes.
        words: The command line behind the subcommand.

    Returns:
        The exit status of torchrun.
    """
    line = [
        *(sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={gpus}'),
        *_meeting(os.environ),
        *_program(subcommand),
        *(*words, '--launcher', 'pytorch'),
    ]
    status = _wait(line)
    if status:
        machine, of = os.environ.get('NODE_RANK', '0'), os.environ.get('NNODES', '1')
        sys.stderr.write(
            f'{command(subcommand)}: machine {machine} (of {of}, from 0) stopped with '
            f"exit status {status}. If a line above starts with 'error:', mend what it "
            'names. Otherwise a process here or on another machine died or could not '
            'be reached; to go on from the newest checkpoint, start the same command '
            'on every machine with --resume\n'
        )
    return status


def _meeting(environment: Mapping[str, str]) -> list[str]:
    """Where the processes meet; on one machine at any port that is free."""
    machines = environment.get('NNODES', '1')
    if machines == '1' and 'PORT' not in environment:
        return ['--standalone']
    return [
        f'--nnodes={machines}',
        f'--node_rank={environment.get("NODE_RANK", "0")}',
        f'--master_addr={environment.get("MASTER_ADDR", "127.0.0.1")}',
        f'--master_port={environment.get("PORT", "29500")}',
    ]


def _program(subcommand: str) -> list[str]:
    started = Path(sys.argv[0])
    if started.name in SCRIPTS.values():
        return [str(started)]
    if started.name == 'mmdet-backbones' and started.is_file():
        return [str(started), subcommand]
    return ['-m', 'mmdet_backbones', subcommand]


def _wait(line: Sequence[str]) -> int:
    """Run a command; a scheduler's signal to this process ends all that it started."""
    stopped: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        for process in running:
            process.terminate()

    # Before the start, so that no signal falls between it and the handler.
    before = {
        number: signal.signal(number, stop)
        for number in (getattr(signal, n) for n in _SIGNALS if hasattr(signal, n))
    }
    try:
        running.append(subprocess.Popen(line, stdout=stdout_of_others()))
        if stopped:
            running[0].terminate()
        while running[0].poll() is None:
            # A signal that arrives just before an endless wait is handled after it.
            try:
                running[0].wait(0.5)
            except subprocess.TimeoutExpired:
                continue
        status = running[0].returncode
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - status if status < 0 else status
