"""The same as ``mmdet-backbones search``, for a clone that is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmdet_backbones.cli.main import main

if __name__ == '__main__':
    sys.exit(main(['search', *sys.argv[1:]]))
