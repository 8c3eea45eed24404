"""Test a detector: mmdet's flags, and one message for each mistake."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from . import processes
from .flags import add_common_flags
from .output import print_json

EXAMPLES = (
    'mmdet-backbones test mine.py work_dirs/mine/epoch_12.pth',
    'mmdet-backbones test mine.py best.pth --fuse --tta --show-dir painted',
)


def add_flags(parser: ArgumentParser) -> None:
    """Add what the subcommand takes."""
    add_common_flags(parser)
    parser.add_argument('checkpoint', help='checkpoint of the detector')
    parser.add_argument(
        '--tta', action='store_true', help='average over flipped images'
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        '--fuse', action='store_true', help='fold batch normalisation: same, but faster'
    )
    either.add_argument(
        '--fast',
        action='store_true',
        help='fold it, and on a GPU run in float16 and replay CUDA graphs: scores move '
        'a little',
    )
    parser.add_argument(
        '--compile', action='store_true', help='with --fuse, torch.compile as well'
    )
    group = parser.add_argument_group('predictions')
    group.add_argument('--out', help='file (.pkl) for the predictions')
    group.add_argument(
        '--show', action='store_true', help='show the predictions in a window'
    )
    group.add_argument(
        '--show-dir', help='folder under the work folder for painted images'
    )
    group.add_argument(
        '--wait-time', type=float, default=2, help='seconds each image is shown'
    )


def run(args: Namespace) -> int:
    """Test, or start the processes that do."""
    if processes.starts_others(args):
        return processes.start('test', args.gpus, args.words)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    _test(args)
    return 0


def _test(args: Namespace) -> None:
    from ..check.start import require_loadable
    from ..detector_config.read import read_config
    from ..engine import class_table, launch, running, testing

    testing.require_fusing(args.fuse, args.compile)
    cfg = read_config(args)
    launch.require_model(cfg)
    testing.set_checkpoint(cfg, args.checkpoint)
    require_loadable(cfg)
    testing.set_visualization(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        testing.set_flip_averaging(cfg)
    launch.require_data(cfg, 'test')
    running.require_work_dir(cfg)
    runner = launch.build_runner(cfg)
    testing.dump_predictions(runner, args.out)
    testing.fuse_before_test(runner, args.fuse, args.compile, args.fast)
    metrics = running.test(runner)
    class_table.tell_classes(runner)
    if args.json and runner.rank == 0:
        found = class_table.class_figures(runner)
        print_json(dict(metrics, classes=class_table.to_dict(found)))
    del runner
    launch.leave_processes()
