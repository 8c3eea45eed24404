"""Train a detector: mmdet's flags, and one message for each mistake."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..environment import missing_extra
from . import processes
from .flags import add_common_flags, add_ray_flags, ray_address
from .output import print_json

EXAMPLES = (
    'mmdet-backbones train mine.py',
    'mmdet-backbones train mine.py --gpus 4 --amp --resume',
    'mmdet-backbones train mine.py --gpus 16 --ray 10.0.0.1:6379',
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    add_common_flags(parser)
    parser.add_argument(
        '--amp', action='store_true', help='train with automatic mixed precision'
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='compile backbone and neck: slow to start, faster after that',
    )
    parser.add_argument(
        '--no-tf32',
        action='store_true',
        help='multiply in full float32 on a GPU that would round to TF32',
    )
    parser.add_argument(
        '--no-check', action='store_true', help='train without checking the config'
    )
    parser.add_argument(
        '--skip-broken-images',
        action='store_true',
        help='leave out images that cannot be read, and count them; without this the '
        'training stops',
    )
    add_ray_flags(parser, 'train')
    _add_choices(parser)


def _add_choices(parser: ArgumentParser) -> None:
    starting = parser.add_argument_group('where it starts')
    either = starting.add_mutually_exclusive_group()
    either.add_argument(
        '--force',
        action='store_true',
        help='start anew in a work folder that has checkpoints, and overwrite them',
    )
    either.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or from the newest in the work folder',
    )
    scaling = parser.add_argument_group('learning rate')
    either = scaling.add_mutually_exclusive_group()
    either.add_argument(
        '--auto-scale-lr',
        action='store_true',
        default=None,
        dest='scale_lr',
        help='scale the learning rate to the batch size of all processes, also where '
        'the config leaves it off',
    )
    either.add_argument(
        '--no-scale-lr',
        action='store_false',
        dest='scale_lr',
        help='take the learning rate as it stands in the config',
    )


def run(args: Namespace) -> int:
    """Train, or start the processes that do."""
    if args.ray is not None:
        _train_on_cluster(args)
        return 0
    if processes.starts_others(args):
        return processes.start('train', args.gpus, args.words)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    _train(args)
    return 0


def _train_on_cluster(args: Namespace) -> None:
    """Start the processes on a Ray cluster; what is wrong is told before that."""
    from ..check.config import require_sound
    from ..detector_config.read import read_config
    from ..engine import launch, resuming, running
    from ..engine.on_ray import train_on_ray
    from ..errors import UserError
    from ..search.cluster import connect

    problems = [missing_extra('train --ray', 'search', 'ray', 'pyarrow')]
    if args.gpus is None or args.gpus < 1:
        problems.append(
            'the batch of a step and the learning rate follow the number of processes: '
            'write --gpus N with --ray'
        )
    if args.launcher != 'none':
        problems.append(
            f'--ray starts the processes: leave out --launcher {args.launcher}'
        )
    if any(problems):
        raise UserError('\n'.join(filter(None, problems)))
    cfg = read_config(args)
    launch.require_model(cfg)
    resuming.set_resume(cfg, args.resume)
    running.require_load_from(cfg)
    launch.require_data(cfg, 'train', 'val')
    running.require_work_dir(cfg)
    if not args.no_check:
        require_sound(cfg, args.gpus)
    told = {**vars(args), 'launcher': 'pytorch', 'json': False, 'no_check': True}
    with connect(ray_address(args), shows_output=True):
        train_on_ray(train_one_of, told, cfg, args.gpus)
    _tell(Path(cfg.work_dir), args)


def train_one_of(told: Mapping[str, Any]) -> None:
    """Train in one of several processes, which others started and joined."""
    _train(Namespace(**told))


def _train(args: Namespace) -> None:
    from ..detector_config.read import read_config
    from ..engine import launch, resuming, running
    from ..engine.display import add_tensorboard
    from ..engine.without_gpu import require_gpu

    cfg = read_config(args)
    launch.require_model(cfg)
    if args.skip_broken_images:
        cfg.skip_broken_images = True
    if args.amp:
        launch.enable_amp(cfg)
    require_gpu(cfg)
    launch.fuse_optimizer(cfg)
    launch.apply_lr_scaling(cfg, args.scale_lr)
    resuming.set_resume(cfg, args.resume)
    running.require_load_from(cfg)
    launch.require_data(cfg, 'train', 'val')
    running.require_work_dir(cfg)
    if not args.no_check:
        from ..check.config import require_sound

        require_sound(cfg, launch.count_processes(args.launcher))
    launch.add_hook(cfg, dict(type='mmdet_backbones.BestAndWorstHook'), replace=False)
    add_tensorboard(cfg)
    runner = launch.build_runner(cfg)
    launch.set_tf32(not args.no_tf32)
    if args.compile:
        launch.compile_parts(runner)
    running.train(runner, args.force)
    if runner.rank == 0:
        _tell(Path(runner.work_dir), args, runner.logger.info)
    # Whoever holds a model that is wrapped for several processes keeps their threads.
    del runner
    launch.leave_processes()


def _tell(work_dir: Path, args: Namespace, say: Callable[[str], Any] = print) -> None:
    from ..runs.comparing import compare, summarise

    say(summarise(work_dir, args.config))
    if args.json:
        (found,) = compare([work_dir]).to_dict()['runs']
        print_json(found)
