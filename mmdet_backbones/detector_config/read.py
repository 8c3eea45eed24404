"""A config, read from a file or a package, or what is wrong with its name."""

from __future__ import annotations

import ast
import os
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any

import yaml
from mmengine.config import Config, DictAction

from ..compat.package_paths import shipped_configs
from ..errors import UserError, explain
from ..files import ABSENT, FILE, FOLDER, not_there, what_is
from .new_style import in_names
from .tree import Place, dotted

_YAML = ('.yaml', '.yml')
_ENDINGS = ('.py', '.json', *_YAML)
# What mmengine's own writer and copies of a config can follow.
_DEEPEST = 50
_PLAIN = (str, bytes, int, float, complex, type(None), PurePath)


def read_config(args: Namespace) -> Config:
    """Read the config of a command line and apply its common flags.

    Args:
        args: Flags of :func:`~mmdet_backbones.cli.flags.add_config_flags`, parsed.

    Returns:
        The config with ``work_dir``, ``launcher`` and ``cfg_options`` set.

    Raises:
        UserError: If the file is not there or cannot be parsed.
    """
    cfg = read_by_name(args.config)
    cfg.launcher = getattr(args, 'launcher', 'none')
    if args.cfg_options is not None:
        try:
            cfg.merge_from_dict(_settings(args.cfg_options))
            _require_plain(cfg)
        except UserError:
            raise
        except Exception as error:  # of whatever does not fit into the config
            what = f'{type(error).__name__}: {explain(error)}'
            raise UserError(f'--cfg-options: {what}') from error
    if getattr(args, 'work_dir', None) is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    return cfg


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` as mmengine's command lines do; what it cannot is told."""
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    found: dict[str, Any] = {}
    for text in texts:
        try:
            found |= parser.parse_args(['--cfg-options', text]).cfg_options
            if not all(text.partition('=')[0].split('.')):
                raise ValueError('a part of the key is empty')
        except (Exception, SystemExit) as error:  # of text that is no setting
            raise UserError(
                '--cfg-options takes KEY=VALUE, with lists as KEY="[a,b]", got '
                f'{text!r} ({type(error).__name__}: {error})'
            ) from error
    return found


def read_by_name(name: str) -> Config:
    """Read a config as it is.

    Args:
        name: Path of the file, or ``mmdet::folder/name.py``.

    Returns:
        The config; one of classes as types has their names instead.

    Raises:
        UserError: If it is not there (the nearest are named) or cannot be read.
    """
    path = _located(name)
    _require_data(name, path)
    if circle := _circle(path):
        # mmengine goes round until Python has enough of it.
        names = ' -> '.join(f"'{os.path.relpath(file)}'" for file in circle)
        raise UserError(
            f"the config '{name}' cannot be read: it inherits from itself: {names}: "
            'take one of these _base_ out'
        )
    try:
        config = in_names(Config.fromfile(path))
        _require_plain(config)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a config is a program, which may do anything
        raise UserError(
            f"the config '{name}' cannot be read: {why(error, path)}"
        ) from (error)
    return config


def _require_data(name: str, path: Path) -> None:
    """Refuse YAML with tags; mmengine makes what they name, and runs it so."""
    for file in _files(path):
        if file.suffix in _YAML and file.is_file():
            try:
                yaml.safe_load(file.read_bytes())
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                raise UserError(
                    f"the config '{name}' cannot be read: '{file}' is no plain YAML: "
                    f'{type(error).__name__}: {explain(error)}'
                ) from error


def _located(name: str) -> Path:
    path = _packaged(name) if '::' in name else Path(name)
    found = what_is(path)
    if found == FILE and path.suffix in _ENDINGS:
        return path
    if found == FILE:
        ends = ', '.join(_ENDINGS)
        raise UserError(f"the name of a config ends in one of {ends}, got '{name}'")
    if found not in (FOLDER, ABSENT):
        raise UserError(str(not_there(path, 'config file')))
    if found == FOLDER:
        near = _nearest('', [str(file) for file in sorted(path.glob('*.py'))], cutoff=0)
        raise UserError(f"'{name}' is a folder: name a config file in it.{near}")
    above = path.parent if path.parent.is_dir() else Path('configs')
    # No deeper: above may be the root of the machine.
    files = [str(f) for way in ('*.py', '*/*.py') for f in above.glob(way)]
    raise UserError(f"there is no config file '{name}'.{_nearest(str(path), files)}")


def _require_plain(config: Config) -> None:
    """Refuse what no file can hold, where a run would fail to write its config."""
    todo: list[tuple[Place, Any]] = [((), config._cfg_dict)]
    while todo:
        place, value = todo.pop()
        if len(place) > _DEEPEST:
            raise ValueError(
                f'{dotted(*place[:4])}... is nested more than {_DEEPEST} deep'
            )
        if isinstance(value, Mapping):
            todo += [((*place, key), part) for key, part in value.items()]
        elif isinstance(value, (list, tuple)):
            todo += [((*place, index), part) for index, part in enumerate(value)]
        elif not isinstance(value, _PLAIN) and not _spelled(value):
            raise TypeError(
                f'{dotted(*place)} is {str(value)[:80]}, which cannot be written into '
                'a config: write its name as text'
            )


def _spelled(value: Any) -> bool:
    try:
        ast.parse(repr(value), mode='eval')
    except (SyntaxError, ValueError):
        return False
    return True


def why(error: BaseException, path: Path) -> str:
    """Say why a config cannot be read, and in which line of which file.

    Args:
        error: What was raised.
        path: Of the config.
    """
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        return f'it ends the program{_line(error)}: take exit() out of it'
    if isinstance(error, RecursionError):
        return f'{kind}: it is nested too deep, or refers to itself{_line(error)}'
    if isinstance(error, UnicodeError) or 'U+FEFF' in str(error):
        files = [file for file in _files(path) if not _is_utf8(file)]
        for file in files:
            return f"'{file}' is not in UTF-8: save it as UTF-8, without a mark (BOM)"
    return f'{kind}: {explain(error)}{_line(error)}'


def _line(error: BaseException) -> str:
    """The last line of a config that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.name == '<module>' and 'importlib' not in f.filename]
    return f' (line {own[-1].lineno} of {own[-1].filename})' if own else ''


def _files(path: Path, trail: tuple[Path, ...] = ()) -> Iterator[Path]:
    """A config and all that it inherits from, as far as that can be told."""
    yield path
    try:
        bases = _paths_of_bases(path)
    except Exception:  # of a file that is no config
        return
    for base in bases:
        if base not in trail:
            yield from _files(base, (*trail, path))


def _circle(path: Path, trail: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """Configs that inherit from each other; those of packages do not."""
    path = path.resolve()
    if path in trail:
        return (*trail[trail.index(path) :], path)
    try:
        bases = [base for base in _bases_in(path) if '::' not in base]
    except Exception:  # of a file that is no config
        return ()
    circles = (_circle(path.parent / base, (*trail, path)) for base in bases)
    return next((circle for circle in circles if circle), ())


def _is_utf8(path: Path) -> bool:
    try:
        return not path.read_bytes().decode('utf-8').startswith('\ufeff')
    except (OSError, UnicodeError):
        return False


def _bases_in(path: Path) -> list[str]:
    if path.suffix not in _YAML:
        return list(Config._get_base_files(str(path)))
    bases = yaml.safe_load(path.read_bytes()).get('_base_', [])
    return [bases] if isinstance(bases, str) else list(bases)


def _paths_of_bases(path: Path) -> list[Path]:
    bases = _bases_in(path)
    return [Path(Config._get_cfg_path(base, str(path))[0]) for base in bases]


def bases_of(config: Config) -> list[Config]:
    """Read the configs that a config inherits from directly, as ``_base_`` names them.

    Args:
        config: From a file; of others nobody knows the bases.
    """
    path = config.filename
    if path is None or not Path(path).is_file():
        return []
    return [
        Config.fromfile(base, import_custom_modules=False)
        for base in _paths_of_bases(Path(path))
    ]


def merged_with(config: Config, place: Place) -> Iterator[Mapping[str, Any]]:
    """Read the dicts of its bases that a dict of a config was merged with.

    Args:
        config: As for :func:`bases_of`.
        place: Of the dict.
    """
    own = _at(config, place)
    for base in bases_of(config):
        old = _at(base, place)
        # With _delete_=True not all of its keys would be there.
        if (
            isinstance(old, Mapping)
            and isinstance(own, Mapping)
            and set(old) <= set(own)
        ):
            yield old


def _at(config: Config, place: Place) -> Any:
    node: Any = config.to_dict()
    for step in place:
        inside = isinstance(node, Mapping) and step in node
        node = node[step] if inside else None
    return node


def _packaged(name: str) -> Path:
    """Find the file of a config that a package ships."""
    try:
        path, _ = Config._get_cfg_path(name, '')
    except Exception as error:  # whatever mmengine makes of such a name
        package, _, within = name.partition('::')
        near = _nearest(within, _shipped(package), f'{package}::')
        what = f'.{near}' if near else f': {explain(error)}'
        raise UserError(f"there is no config '{name}'{what}") from error
    return Path(path)


def _shipped(package: str) -> list[str]:
    root = shipped_configs(package)
    return (
        [] if root is None else [str(f.relative_to(root)) for f in root.rglob('*.py')]
    )


def _nearest(name: str, names: list[str], prefix: str = '', cutoff: float = 0.4) -> str:
    near = get_close_matches(name, names, n=3, cutoff=cutoff)
    return f' Nearest: {", ".join(prefix + hit for hit in near)}' if near else ''
