"""A config, read from a file or a package, or what is wrong with its name."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from ..errors import UserError, explain
from .tree import Place


def read_config(args: Namespace) -> Config:
    """Read the config of a command line and apply its common flags.

    Args:
        args: Flags of :func:`add_config_flags` or :func:`add_common_flags`, parsed.

    Returns:
        The config with ``work_dir``, ``launcher`` and ``cfg_options`` set.

    Raises:
        UserError: If the file is not there or cannot be parsed.
    """
    cfg = read_by_name(args.config)
    cfg.launcher = getattr(args, 'launcher', 'none')
    if args.cfg_options is not None:
        try:
            cfg.merge_from_dict(args.cfg_options)
        except (KeyError, TypeError, AssertionError) as error:
            raise UserError(f'--cfg-options: {explain(error)}') from error
    if getattr(args, 'work_dir', None) is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    return cfg


def read_by_name(name: str) -> Config:
    """Read a config as it is.

    Args:
        name: Path of the file, or ``mmdet::folder/name.py``.

    Raises:
        UserError: If it is not there (the nearest are named) or cannot be parsed.
    """
    path = _packaged(name) if '::' in name else Path(name)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path('configs')
        files = [str(file) for file in folder.rglob('*.py')]
        raise UserError(
            f"there is no config file '{name}'.{_nearest(str(path), files)}"
        )
    try:
        return Config.fromfile(path)
    except (
        OSError,
        SyntaxError,
        ImportError,
        KeyError,
        TypeError,
        NameError,
        AssertionError,
        ConfigParsingError,
    ) as error:
        raise UserError(
            f"the config '{name}' cannot be read: {type(error).__name__}: "
            f'{explain(error)}'
        ) from error


def bases_of(config: Config) -> list[Config]:
    """Read the configs that a config inherits from directly, as ``_base_`` names them.

    Args:
        config: From a file; of others nobody knows the bases.
    """
    path = config.filename
    if path is None or not Path(path).is_file():
        return []
    return [
        Config.fromfile(
            Config._get_cfg_path(base, path)[0], import_custom_modules=False
        )
        for base in Config._get_base_files(path)
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
    except (OSError, ImportError, ValueError, AssertionError) as error:
        package, _, within = name.partition('::')
        near = _nearest(within, _shipped(package), f'{package}::')
        what = f'.{near}' if near else f': {explain(error)}'
        raise UserError(f"there is no config '{name}'{what}") from error
    return Path(path)


def _shipped(package: str) -> list[str]:
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        return []
    root = Path(spec.origin).parent / '.mim' / 'configs'
    return [str(file.relative_to(root)) for file in root.rglob('*.py')]


def _nearest(name: str, names: list[str], prefix: str = '') -> str:
    near = get_close_matches(name, names, n=3, cutoff=0.4)
    return f' Nearest: {", ".join(prefix + hit for hit in near)}' if near else ''
