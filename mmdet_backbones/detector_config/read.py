"""A config, read from a file or a package, or what is wrong with its name."""

from __future__ import annotations

from argparse import Namespace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from ..errors import UserError, explain


def read_config(args: Namespace) -> Config:
    """Read the config of a command line and apply its common flags.

    Args:
        args: Flags of :func:`add_config_flags` or :func:`add_common_flags`, parsed.

    Returns:
        The config with ``work_dir``, ``launcher`` and ``cfg_options`` set.

    Raises:
        UserError: If the file is not there or cannot be parsed.
    """
    cfg = _from_file(args.config)
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


def _from_file(name: str) -> Config:
    path = Path(name)
    if '::' in name:
        path = _packaged(name)
    elif not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path('configs')
        files = [str(file) for file in folder.rglob('*.py')]
        near = get_close_matches(str(path), files, n=3, cutoff=0.4)
        hint = f' Nearest: {", ".join(near)}' if near else ''
        raise UserError(f"there is no config file '{name}'.{hint}")
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


def _packaged(name: str) -> Path:
    try:
        path, _ = Config._get_cfg_path(name, '')
    except (OSError, ImportError, ValueError, AssertionError) as error:
        raise UserError(f"there is no config '{name}': {explain(error)}") from error
    return Path(path)


def read_by_name(name: str) -> Config:
    try:
        return read_config(
            Namespace(config=name, launcher='none', cfg_options=None, work_dir=None)
        )
    except UserError as error:
        near = _nearest(name) if '::' in name else []
        # A config that is there may have a base that is not.
        if not near or near[0] == name:
            raise
        raise UserError(
            f"there is no config '{name}'. Nearest: {', '.join(near)}"
        ) from error


def _nearest(name: str) -> list[str]:
    package, _, path = name.partition('::')
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        return []
    root = Path(spec.origin).parent / '.mim' / 'configs'
    files = [str(file.relative_to(root)) for file in root.rglob('*.py')]
    found = get_close_matches(path, files, n=3, cutoff=0.4)
    return [f'{package}::{file}' for file in found]
