"""Mistakes of the person at the keyboard, told in one message each."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

_LONGEST_LINE = 2000
_LONGEST_PART = 120
_PASSWORD = re.compile(r'(?<=://)[^/\s@\'"]*@')


def shown(text: str) -> str:
    """Make a message fit to be shown: only its line ends are heeded by a terminal.

    Control codes and marks that turn the direction of text are replaced, lines are cut
    off at 2,000 characters, and passwords are left out of addresses.
    """
    text = _PASSWORD.sub('***@', text)
    return '\n'.join(printable(line, _LONGEST_LINE) for line in text.split('\n'))


def printable(text: str, longest: int = _LONGEST_PART) -> str:
    """Make one line of a name, or of what a file or a server says."""
    if len(text) > longest:
        text = f'{text[: longest - 4]} ...'
    if text.isprintable():
        return text
    return ''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}' for c in text)


class _ToldError(Exception):
    """An error whose message people read as it is."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(shown(a) if isinstance(a, str) else a for a in args))


class UserError(_ToldError, ValueError):
    """Something in the config or on the command line that only its author can mend."""


class ArgumentError(_ToldError, ValueError):
    """An argument of a class that has a value which cannot be.

    Attributes:
        settings: Arguments to write in its place.
    """

    def __init__(self, message: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.settings = dict(settings or {})


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument that a class does not take, or not of that type."""


class CheckpointError(_ToldError, RuntimeError):
    """A checkpoint cannot be read; the message says why and what to do."""


class DamagedFileError(CheckpointError):
    """A file that is not what was once written; another download may mend it."""


class PretrainedWeightsError(_ToldError, RuntimeError):
    """Pretrained weights that do not cover the backbone; training must not start."""


# mmengine puts one of these before the message for every level of nesting.
_NESTING = re.compile(r'^["\']?class `\w+` in [\w./\\-]+: ["\']?')
_NO_ARGUMENT = re.compile(
    r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'"
)
_NO_TYPE = re.compile(r'([\w.]+) is not in the ([\w]+)::([\w ]+) registry')


def explain(error: BaseException) -> str:
    """Turn an exception of a build into the message a person needs.

    Args:
        error: Raised while a config was built; mmengine wraps the message of the
            part that failed once for each part around it.

    Returns:
        The innermost message; for an unknown ``type`` also the nearest names, for an
        unknown argument where it may come from.
    """
    # Of a KeyError the text would stand in quotes.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else error
    message = str(text) or type(error).__name__
    while (stripped := _NESTING.sub('', message)) != message:
        message = stripped
    match = _NO_TYPE.search(message)
    if match is not None:
        return _unknown_type(*match.groups())
    match = _NO_ARGUMENT.search(message)
    if match is not None:
        return (
            f"{match[1]} takes no argument '{match[2]}'. If it was inherited from the "
            f'base config, write _delete_=True into the dict of type={match[1]!r}, '
            'which then keeps nothing of the base; otherwise remove it'
        )
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"there is no file or folder '{error.filename}'"
    # mmdet's PAA names the module, and no package is called so.
    return message.replace('pip install sklearn', 'pip install scikit-learn')


def settings_of(error: BaseException | None) -> dict[str, Any]:
    """Find the arguments to write that an exception, or one behind it, names."""
    while error is not None:
        if isinstance(error, ArgumentError) and error.settings:
            return error.settings
        # mmengine raises a new exception of the same class, without the arguments.
        error = error.__cause__ or error.__context__
    return {}


def _unknown_type(name: str, scope: str, kind: str) -> str:
    names = _registered(kind)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f' Nearest: {", ".join(near)}.' if near else ''
    return (
        f"type='{name}' is not known to {scope} ({kind}).{hint} If it is a class of "
        'your own, import its module through custom_imports = dict(imports=[...])'
    )


def _registered(kind: str) -> list[str]:
    import mmengine.registry as roots

    names: list[str] = []
    for root in vars(roots).values():
        if isinstance(root, roots.Registry) and root.name == kind:
            names += root.module_dict
            for child in root.children.values():
                own = '' if child.scope == 'mmdet' else f'{child.scope}.'
                names += [f'{own}{name}' for name in child.module_dict]
    return names


def _let_go_of_output() -> None:
    """Forget what could not be written; Python would try once more, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _reason(error: OSError) -> str:
    what = f"'{error.filename}': " if error.filename else ''
    return f'{what}{error.strerror or error}'


def _tell(message: str) -> None:
    sys.stderr.write(f'error: {message}\n')


def run(
    command: Callable[[], object],
    show_traceback: bool = False,
    tell: Callable[[str], object] = _tell,
) -> int:
    """Run a command; a person's mistake ends it with one message.

    Args:
        command: Does the work; raises on failure.
        show_traceback: Whether mistakes are shown with their traceback too.
        tell: Gets the message.

    Returns:
        The exit status: 0, 1 after a mistake or where the system refuses something,
        130 after Ctrl-C. Other exceptions are bugs and pass through.
    """
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads the output has seen enough.
        _let_go_of_output()
        return 1
    except (UserError, CheckpointError, PretrainedWeightsError) as error:
        if show_traceback:
            traceback.print_exc()
        tell(str(error))
        return 1
    except OSError as error:
        # A disk, a folder or a name that does not allow what was asked for.
        if show_traceback:
            traceback.print_exc()
        tell(shown(_reason(error)))
        _let_go_of_output()
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(
            'stopped; a training goes on with the same command and --resume\n'
        )
        return 130
    return 0
