"""Measure speed, size and memory of backbones, alone or inside one detector.

Weights are random and images synthetic: no data set and no download. Nets take turns,
so that they share whatever else the machine does; memory is measured one by one.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.errors import run
from mmdet_backbones.speed import output
from mmdet_backbones.speed.nets import Settings
from mmdet_backbones.speed.timing import benchmark, count_steps


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    flag = parser.add_argument
    flag('names', nargs='+', metavar='NAME', help='source/model, or one of our own')
    flag('--detector', metavar='CONFIG', help='path, or mmdet::folder/name.py')
    flag('--size', nargs=2, type=int, default=(640, 640), metavar=('H', 'W'))
    flag('--batch', type=int, default=1, help='number of images')
    flag('--train', action='store_true', help='forward and backward')
    flag('--device', choices=['cpu', 'cuda'], default='cpu')
    flag('--rounds', type=int, default=10, help='how often each net is timed')
    flag('--channels-last', action='store_true')
    flag('--fuse', action='store_true', help='fold batch normalisation')
    flag('--json', action='store_true', help='print JSON, no table')
    flag('--plot', type=Path, metavar='FILE', help='speed against size, .png or .svg')
    flag('--force', action='store_true', help='the plot may be replaced')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    output.check_plot(args.plot, args.force)
    names = ('batch', 'train', 'device', 'rounds', 'channels_last', 'fuse', 'detector')
    chosen = {name: getattr(args, name) for name in names}
    settings = Settings(size=tuple(args.size), **chosen)
    with output.progress(count_steps(args.names, settings)) as advance:
        results = benchmark(args.names, settings, advance)
    if args.json:
        print(json.dumps(output.report(results, settings), indent=1))
    else:
        from rich.console import Console

        Console().print(output.table(results, settings))
    if args.plot is not None:
        output.save_plot(results, settings, args.plot)


if __name__ == '__main__':
    sys.exit(run(main))
