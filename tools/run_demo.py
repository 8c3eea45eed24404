"""Train YOLOX on tree crowns with a swapped, pretrained backbone; show the result."""

import argparse
import sys
from pathlib import Path

from mmdet_backbones.demo.driver import DemoStoppedError, run_demo


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--scratch', action='store_true', help='train without pretrained weights'
    )
    parser.add_argument(
        '--setup-seconds', type=float, default=0.0, help='reported with the other parts'
    )
    args = parser.parse_args()
    try:
        run_demo(Path(__file__).parents[1], args.scratch, args.setup_seconds)
    except DemoStoppedError as stop:
        return stop.status
    except KeyboardInterrupt:
        sys.stderr.write('stopped; the same command goes on from here\n')
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
