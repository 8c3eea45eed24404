"""The commands by name, and how to write one where the user is."""

from __future__ import annotations

import sys
from pathlib import Path

#: Where the scripts are, in a clone and in an installed package.
TOOLS = Path(__file__).resolve().parent / '.mim' / 'tools'
#: Subcommand: the script under tools/ that does the same.
SCRIPTS = {
    'list': 'list_backbones.py',
    'inspect': 'inspect_backbone.py',
    'swap': 'swap_backbone.py',
    'check': 'check_config.py',
    'train': 'train.py',
    'search': 'search.py',
    'test': 'test.py',
    'predict': 'predict.py',
    'export': 'export.py',
    'app': 'app.py',
    'benchmark': 'benchmark_backbones.py',
    'lr': 'print_lr.py',
    'data': 'prepare_data.py',
    'convert': 'convert_weights.py',
    'levels': 'visualize_levels.py',
    'compare': 'compare_runs.py',
    'doctor': 'doctor.py',
    'demo': 'demo/run_demo.py',
}


def command(subcommand: str) -> str:
    """Write the start of a command line in the way that this process was started.

    Args:
        subcommand: A key of :data:`SCRIPTS`.

    Returns:
        ``mmdet-backbones swap``, ``python tools/swap_backbone.py`` for one of those
        scripts, otherwise ``python -m mmdet_backbones swap``.
    """
    script = SCRIPTS[subcommand]
    started = Path(sys.argv[0]) if sys.argv else Path()
    if started.stem == 'mmdet-backbones':
        return f'mmdet-backbones {subcommand}'
    if started.parent.name == 'tools' and started.name in SCRIPTS.values():
        return f'python {started.parent / script}'
    return f'python -m mmdet_backbones {subcommand}'
