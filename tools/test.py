"""Test a detector: mmdet's flags, and one message for each mistake."""

import argparse
import os
import sys

import mmdet_backbones  # noqa: F401
from mmdet_backbones.detector_config.read import read_config
from mmdet_backbones.engine import launch, running, testing
from mmdet_backbones.engine.class_table import tell_classes
from mmdet_backbones.errors import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    launch.add_common_flags(parser)
    parser.add_argument('checkpoint', help='checkpoint of the detector')
    parser.add_argument('--out', help='file (.pkl) for the predictions')
    parser.add_argument(
        '--show', action='store_true', help='show the predictions in a window'
    )
    parser.add_argument(
        '--show-dir', help='folder under the work folder for painted images'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds each image is shown'
    )
    parser.add_argument(
        '--tta', action='store_true', help='average over flipped images'
    )
    parser.add_argument(
        '--fuse', action='store_true', help='fold batch normalisation: same, but faster'
    )
    parser.add_argument(
        '--compile', action='store_true', help='with --fuse, torch.compile as well'
    )
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def test(args: argparse.Namespace) -> None:
    from mmdet_backbones.check.start import require_loadable

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
    testing.fuse_before_test(runner, args.fuse, args.compile)
    running.test(runner)
    tell_classes(runner)
    del runner
    launch.leave_processes()


if __name__ == '__main__':
    arguments = parse_args()
    sys.exit(run(lambda: test(arguments), arguments.traceback))
