"""Flags that several subcommands share."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace


def add_config_flags(parser: ArgumentParser) -> None:
    """Add the flags that name a config and change its settings."""
    parser.add_argument('config', help='path of the config, or mmdet::folder/name.py')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='settings that replace those of the config; lists as KEY="[a,b]", '
        'without white space',
    )


def add_detector_flags(parser: ArgumentParser) -> None:
    """Add the flags that name a trained detector, and where it runs."""
    parser.add_argument('model', help='config, work folder, or exported folder')
    parser.add_argument('--checkpoint', metavar='FILE',
                        help='of the detector; default: the best of the work folder, '
                        'or the newest')  # fmt: skip
    parser.add_argument('--device', help='default: a GPU if there is one')
    parser.add_argument('--trust', action='store_true',
                        help='load an export for torch, which can bring code of '
                        'whoever wrote it')  # fmt: skip


def add_common_flags(parser: ArgumentParser) -> None:
    """Add the flags that mmdet's train and test tools share."""
    add_config_flags(parser)
    parser.add_argument('--work-dir', help='folder for logs, metrics and checkpoints')
    parser.add_argument(
        '--traceback',
        action='store_true',
        help='show where in the code a mistake was noticed',
    )
    group = parser.add_argument_group('several processes')
    group.add_argument(
        '--gpus',
        '--workers',
        type=int,
        metavar='N',
        help='start N processes on this machine, one for each GPU',
    )
    group.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started, by something else than --gpus',
    )
    group.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help=SUPPRESS
    )


def add_ray_flags(parser: ArgumentParser, what: str) -> None:
    """Add the flag that hands the work to a Ray cluster."""
    parser.add_argument(
        '--ray',
        nargs='?',
        const='',
        metavar='ADDRESS',
        help=f'{what} on the Ray cluster at this address (10.0.0.1:6379, auto), or on '
        'one that is started here for it; ADDRESS stands last',
    )


def ray_address(args: Namespace) -> str | None:
    """Return the address of the cluster; None to start one."""
    return args.ray or None
