"""``python -m mmdet_backbones``, the same as ``mmdet-backbones``."""

import sys

from .cli.main import main

if __name__ == '__main__':
    sys.exit(main())
