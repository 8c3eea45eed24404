"""How to run an exported folder without this package: an export copies these files."""

from pathlib import Path

#: ``example.py`` and ``example.cpp``, which run from where they are copied to.
EXAMPLES = tuple(Path(__file__).with_name(f'example.{end}') for end in ('py', 'cpp'))
