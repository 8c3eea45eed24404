"""Peak memory of one net, in a process of its own: ``python -m`` this module."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch

from ..errors import UserError
from .nets import Settings, build_net

_STEPS = 3
_STATUS = Path('/proc/self/status')


def peak_memory(name: str, settings: Settings) -> int:
    """Measure a net in a fresh process.

    On a CPU the memory of the process at its highest while the net runs, less what it
    had once the libraries were imported: weights, activations, and workspace of the
    operators. On a GPU what torch had allocated at most. What building and folding
    needed for a moment does not count.

    Args:
        name: Of a backbone of the catalog.
        settings: How it is run.

    Returns:
        Bytes.

    Raises:
        UserError: If the process dies, as when it is out of memory.
    """
    root = str(Path(__file__).resolve().parents[2])
    given = os.environ.get('PYTHONPATH')
    path = root if given is None else f'{root}{os.pathsep}{given}'
    order = json.dumps(dict(name=name, settings=settings.to_dict()))
    done = subprocess.run(
        [sys.executable, '-m', __name__, order],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        tail = ''.join(done.stderr.strip().splitlines()[-1:])
        raise UserError(
            f'{name}: the process that measures memory ended with status '
            f'{done.returncode}: {tail or "out of memory?"}'
        )
    return int(done.stdout.split()[-1])


def measure(name: str, settings: Settings) -> int:
    """Measure a net in this process, which must not have run another one."""
    # The first one imports what the second one needs.
    build_net(name, settings)
    gc.collect()
    before = _forget_peak(settings)
    net = build_net(name, settings)
    gc.collect()
    _forget_peak(settings)
    for _ in range(_STEPS):
        net.step()
    if settings.device == 'cuda':
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    return max(_peak() - before, 0)


def _forget_peak(settings: Settings) -> int:
    """Give free memory back and start a new peak; returns what is in use now."""
    if settings.device == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')
        return _field('VmRSS')
    return _peak()


def _peak() -> int:
    # ru_maxrss of a child starts from what its parent had; this does not.
    if _STATUS.is_file():
        return _field('VmHWM')
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _field(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f'{name}:'):
            return int(line.split()[1]) * 1024
    raise OSError(f'{_STATUS} has no {name}')


def main() -> None:
    """Measure what the command line names and write the bytes to stdout."""
    order = json.loads(sys.argv[1])
    settings = order['settings']
    settings['size'] = tuple(settings['size'])
    sys.stdout.write(f'\n{measure(order["name"], Settings(**settings))}\n')


if __name__ == '__main__':
    main()
