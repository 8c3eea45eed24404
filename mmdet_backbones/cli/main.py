"""``mmdet-backbones SUBCOMMAND``: parse, look whether all is installed, and run."""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NoReturn

from ..commands import SCRIPTS
from . import output

try:
    from rich_argparse import RawDescriptionRichHelpFormatter as _Formatter
except ModuleNotFoundError:
    # The doctor runs where nothing else is.
    from argparse import RawDescriptionHelpFormatter as _Formatter  # type: ignore
else:
    # Brackets in a text are brackets.
    _Formatter.text_markup = _Formatter.help_markup = False

_NEEDED = ('torch', 'torchvision', 'timm', 'mmengine', 'mmcv', 'mmdet')
# It is there to tell what is missing.
_WITHOUT_THEM = ('doctor',)
# Where parts of the host libraries are built, which talk while they are.
_HOSTS_BUILD = ('inspect', 'swap', 'check', 'search', 'predict', 'export', 'app',
                'benchmark', 'lr', 'convert', 'levels')  # fmt: skip
_INSTALL = """  pip install "mmdet_backbones[mmdet]"
or, for the maintained forks onedl-mmdetection and onedl-mmcv,
  pip install "mmdet_backbones[onedl]\""""
_COMPLETION = """Completion in bash and zsh:
  eval "$(register-python-argcomplete mmdet-backbones)\""""


class _Parser(argparse.ArgumentParser):
    """An argument parser that names the nearest flag for one that it does not have."""

    def error(self, message: str) -> NoReturn:
        _, unknown, words = message.partition('unrecognized arguments: ')
        flags = [flag for flag in self._option_string_actions if flag.startswith('--')]
        for word in words.split() if unknown else ():
            near = get_close_matches(word.partition('=')[0], flags, n=1)
            message += f'; nearest to {word}: {near[0]}' if near else ''
        super().error(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        arguments: The subcommand and its flags; those of the process if left out.

    Returns:
        The exit status: 0, 1 after a failure, 130 after Ctrl-C.

    Raises:
        SystemExit: With 0 after ``--help``, with 2 for a command line that cannot be
            parsed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if '_ARGCOMPLETE' in os.environ:
        _complete()
    if not words or words[0] not in SCRIPTS:
        return _without_subcommand(words)
    name = words[0]
    module = import_module(f'.{name}', __package__)
    parser = _Parser(
        prog=_program(name),
        description=module.__doc__,
        epilog='\n'.join(['Examples:', *(f'  {line}' for line in module.EXAMPLES)]),
        formatter_class=_Formatter,
    )
    add_flags(parser, module)
    # Flags may stand between what has no name.
    args = parser.parse_intermixed_args(words[1:])
    args.words = words[1:]
    missing = [] if name in _WITHOUT_THEM else _missing()
    with output.json_alone(args.json):
        if missing:
            output.tell_error(_what_to_install(name, missing))
            return 1
        return _run(name, lambda: module.run(args), getattr(args, 'traceback', False))


def _run(name: str, work: Callable[[], int | None], show_traceback: bool) -> int:
    from ..errors import run

    with ExitStack() as stack:
        if name in _HOSTS_BUILD:
            from ..engine.quiet import only_ours

            stack.enter_context(only_ours())
        status: list[int | None] = []
        failed = run(lambda: status.append(work()), show_traceback, output.tell_error)
        return failed or status[0] or 0


def add_flags(parser: argparse.ArgumentParser, module: ModuleType) -> None:
    """Add what a subcommand takes, and ``--json``, which all of them do."""
    module.add_flags(parser)
    parser.add_argument(
        '--json', action='store_true', help='JSON on stdout, everything else on stderr'
    )


def _program(name: str) -> str:
    started = os.path.basename(sys.argv[0]) if sys.argv else ''
    return started if started in SCRIPTS.values() else f'mmdet-backbones {name}'


def _summary(name: str) -> str:
    module = import_module(f'.{name}', __package__)
    return (module.__doc__ or '').partition('\n')[0]


def _without_subcommand(words: Sequence[str]) -> int:
    """Answer ``--help``, ``--version``, nothing, and names that there are not."""
    from .. import __version__

    parser = _Parser(
        prog='mmdet-backbones',
        description='Backbones for MMDetection 3.x: swapped in one line, checked '
        'before\ntraining, trained and tested.',
        epilog='\n'.join(
            ['Subcommands (each has its own --help):']
            + [f'  {name:<10} {_summary(name)}' for name in SCRIPTS]
            + ['', _COMPLETION]
        ),
        formatter_class=_Formatter,
        usage='%(prog)s SUBCOMMAND ...',
    )
    parser.add_argument('--version', action='version', version=__version__)
    parser.add_argument('subcommand', nargs='?', help=argparse.SUPPRESS)
    if words and not words[0].startswith('-'):
        near = get_close_matches(words[0], SCRIPTS, n=2, cutoff=0.5)
        hint = f'; nearest: {", ".join(near)}' if near else ''
        parser.error(
            f"there is no subcommand '{words[0]}'{hint}; all: {', '.join(SCRIPTS)}"
        )
    parser.parse_args(words)
    parser.print_help()
    return 0 if words else 2


def _complete() -> None:
    """Answer the shell, which asks what may follow."""
    import argcomplete

    parser = argparse.ArgumentParser(prog='mmdet-backbones')
    subparsers = parser.add_subparsers()
    for name in SCRIPTS:
        module = import_module(f'.{name}', __package__)
        add_flags(subparsers.add_parser(name, help=_summary(name)), module)
    argcomplete.autocomplete(parser)


def _missing() -> list[str]:
    return [name for name in _NEEDED if find_spec(name) is None]


def _what_to_install(name: str, missing: Sequence[str]) -> str:
    packages = 'package' if len(missing) == 1 else 'packages'
    return (
        f"'{name}' needs the {packages} {', '.join(missing)}, not installed here. "
        f'Write\n{_INSTALL}'
    )
