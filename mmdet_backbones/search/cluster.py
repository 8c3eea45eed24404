"""Ray, started here or joined where it runs, with settings for one person's machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..environment import missing_extra, variables
from ..errors import UserError
from ..files import path_of

#: Results are small, and tensors go through files. Ray takes no less.
OBJECT_STORE = 80 << 20
# With it Ray listens on 127.0.0.1 alone, by a setting that is for two other systems.
_ALONE = 'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'
_PATIENCE = 5.0
# `ray start` asks for a token once this machine has one, which the first Ray that is
# started here makes; `ray.init` sends it to a cluster that it joins only if told to.
_AUTHENTICATION = 'RAY_AUTH_MODE'
_TOKENS = ('RAY_AUTH_TOKEN', 'RAY_AUTH_TOKEN_PATH')
_ROOT = str(Path(__file__).resolve().parents[2])


@contextmanager
def connect(
    address: str | None = None, cpus: int | None = None, shows_output: bool = False
) -> Iterator[None]:
    """Be connected to Ray within it.

    Without an address Ray is started on this machine: reachable from it alone, with a
    small object store, without a dashboard and without statistics of use. A process
    that is connected already stays so.

    Args:
        address: Of a cluster that runs (``'10.0.0.1:6379'``, ``'auto'`` for the one of
            this machine); None to start one.
        cpus: Of the one that is started; as many as the machine has if left out.
        shows_output: Whether what its processes print is shown here.

    Raises:
        UserError: If Ray is not installed, or no cluster answers.
    """
    problem = missing_extra('--ray', 'search', 'ray')
    if problem is not None:
        raise UserError(problem)
    # Ray reads them when it is imported.
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    if address is None:
        os.environ.setdefault(_ALONE, '0')
    elif _has_token():
        os.environ.setdefault(_AUTHENTICATION, 'token')
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = dict(
        log_to_driver=shows_output, logging_level=logging.ERROR
    )
    with variables(_for_workers()):
        if address is None:
            ray.init(
                address='local',
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE,
                **quiet,
            )
        else:
            _join(address, quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _has_token() -> bool:
    return any(map(os.environ.get, _TOKENS)) or path_of('~/.ray/auth_token').is_file()


def _join(address: str, settings: Mapping[str, Any]) -> None:
    import ray

    try:
        # Ray itself waits for minutes where nobody answers.
        host, _, port = address.removeprefix('ray://').rpartition(':')
        if host and port.isdigit():
            socket.create_connection((host, int(port)), _PATIENCE).close()
        ray.init(address=address, **settings)
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().split('\n')[0]
        raise UserError(
            f"no Ray cluster answers at '{address}' ({first}): leave the address out "
            'to start Ray on this machine, or start a cluster with\n'
            '  ray start --head --port 6379 --include-dashboard=false\n'
            'If it runs on another machine, its ~/.ray/auth_token must be here, too'
        ) from error


def _for_workers() -> dict[str, str]:
    """What the processes of a cluster started here inherit: this package, too."""
    given = os.environ.get('PYTHONPATH')
    path = _ROOT if given is None else f'{_ROOT}{os.pathsep}{given}'
    # Ray's processes give way to all others, unless told not to.
    return dict(PYTHONPATH=path, RAY_worker_niceness='0')
