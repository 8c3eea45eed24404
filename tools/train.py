"""Train a detector: mmdet's flags, and one message for each mistake."""

import argparse
import os
import sys
from pathlib import Path

import mmdet_backbones  # noqa: F401
from mmdet_backbones.detector_config.read import read_config
from mmdet_backbones.engine import launch, resuming, running
from mmdet_backbones.engine.display import add_tensorboard
from mmdet_backbones.engine.without_gpu import require_gpu
from mmdet_backbones.errors import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    launch.add_common_flags(parser)
    parser.add_argument(
        '--amp', action='store_true', help='train with automatic mixed precision'
    )
    scaling = parser.add_mutually_exclusive_group()
    scaling.add_argument(
        '--auto-scale-lr',
        action='store_true',
        default=None,
        dest='scale_lr',
        help='scale the learning rate to the batch size of all processes, also where '
        'the config leaves it off',
    )
    scaling.add_argument(
        '--no-scale-lr',
        action='store_false',
        dest='scale_lr',
        help='take the learning rate as it stands in the config',
    )
    parser.add_argument(
        '--no-check', action='store_true', help='train without checking the config'
    )
    starting = parser.add_mutually_exclusive_group()
    starting.add_argument(
        '--force',
        action='store_true',
        help='start anew in a work folder that has checkpoints, and overwrite them',
    )
    starting.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or from the newest in the work folder',
    )
    parser.add_argument(
        '--skip-broken-images',
        action='store_true',
        help='leave out images that cannot be read, and count them; without this the '
        'training stops',
    )
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def train(args: argparse.Namespace) -> None:
    cfg = read_config(args)
    launch.require_model(cfg)
    if args.skip_broken_images:
        cfg.skip_broken_images = True
    if args.amp:
        launch.enable_amp(cfg)
    require_gpu(cfg)
    launch.apply_lr_scaling(cfg, args.scale_lr)
    resuming.set_resume(cfg, args.resume)
    running.require_load_from(cfg)
    launch.require_data(cfg, 'train', 'val')
    running.require_work_dir(cfg)
    if not args.no_check:
        from mmdet_backbones.check.config import require_sound

        require_sound(cfg, launch.count_processes(args.launcher))
    launch.add_hook(cfg, dict(type='mmdet_backbones.BestAndWorstHook'), replace=False)
    add_tensorboard(cfg)
    runner = launch.build_runner(cfg)
    running.train(runner, args.force)
    if runner.rank == 0:
        from mmdet_backbones.runs.comparing import summarise

        runner.logger.info(summarise(Path(runner.work_dir), args.config))
    del runner
    launch.leave_processes()


if __name__ == '__main__':
    arguments = parse_args()
    sys.exit(run(lambda: train(arguments), arguments.traceback))
