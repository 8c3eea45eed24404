"""Things that only trying can tell, each tried in a subprocess.

A host library may raise, crash or hang; the process that runs the doctor must see
it and live. One subprocess per group, since each pays for ``import torch``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmdet_backbones.compat.doctor.snapshot import Probe, Snapshot

Steps = dict[str, str]

_ROOT = Path(__file__).resolve().parents[3]
# Hosts write to stdout too, so our lines carry a mark that they do not.
_MARK = '\x1e'
_CHILD = """
import json, sys, traceback
if sys.path[:1] == ['']:
    del sys.path[0]
for name, source in json.loads(sys.argv[1]).items():
    print('\\n\\x1e' + json.dumps([name, None]), flush=True)
    try:
        exec(source, {})
        error = ''
    except BaseException as e:
        lines = ''.join(traceback.format_exception_only(type(e), e)).split('\\n')
        error = [line for line in lines if line.strip()][-1]
    print('\\n\\x1e' + json.dumps([name, error]), flush=True)
"""

_NMS = """
import torch, torchvision
torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
"""
# By path: `import mmcv._ext` would run mmcv's __init__, which fails on its own.
_EXTENSION = """
import importlib.util, torch
spec = importlib.util.spec_from_file_location('mmcv._ext', {path!r})
operators = importlib.util.module_from_spec(spec)
spec.loader.exec_module(operators)
boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
kept = operators.nms(boxes, torch.tensor([0.9, 0.8]), iou_threshold=0.5, offset=0)
assert kept.tolist() == [0], f'nms kept {{kept.tolist()}} instead of [0]'
"""
_PACKAGE = """
import sys
sys.path.insert(0, {root!r})
import mmdet_backbones
sys.path.remove({root!r})
"""
_CHECKPOINT = """
import os, tempfile, torch
from mmengine.logging import MessageHub
from mmengine.runner import CheckpointLoader
hub = MessageHub.get_instance('doctor')
hub.update_scalar('train/loss', 1.0)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'epoch_1.pth')
    torch.save(dict(state_dict={}, message_hub=hub.state_dict()), path)
    try:
        CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except Exception as e:
        # torch's message runs over many lines, one of which names the class.
        lines = [line for line in str(e).split('\\n') if 'Unsupported' in line]
        raise RuntimeError(lines[0].strip() if lines else str(e)) from None
"""


def plan(snapshot: Snapshot) -> list[Steps]:
    """Group the probes that make sense for an environment, slow groups first.

    Args:
        snapshot: The environment as read from disk.

    Returns:
        Groups of name -> source; one subprocess runs one group in order.
    """
    operators = {'torch': 'import torch'}
    if snapshot.has('torchvision'):
        operators.update(torchvision='import torchvision', nms=_NMS)
    if snapshot.extension is not None:
        operators['extension'] = _EXTENSION.format(path=snapshot.extension)
    if snapshot.has('mmpretrain') or snapshot.has('onedl-mmpretrain'):
        operators['mmpretrain'] = 'import mmpretrain.models'
    package = {
        'mmdet_backbones': _PACKAGE.format(root=str(_ROOT)),
        'mmdet': 'import mmdet',
        'mmcv.ops': 'import mmcv.ops',
        'checkpoint': _CHECKPOINT,
    }
    arrays = {
        'numpy': 'import numpy',
        'cv2': 'import cv2',
        'pycocotools': 'import pycocotools.mask',
    }
    return [operators, package, arrays]


def run_probes(groups: list[Steps], timeout: float = 60.0) -> dict[str, Probe]:
    """Run groups of probes, as many at a time as there are processors.

    Args:
        groups: What :func:`plan` returned.
        timeout: Seconds that one group may take.

    Returns:
        Name of a probe -> what became of it.
    """
    with ThreadPoolExecutor(max_workers=min(len(groups), os.cpu_count() or 1)) as pool:
        results = pool.map(lambda steps: run_group(steps, timeout), groups)
        return {name: probe for group in results for name, probe in group.items()}


def run_group(steps: Steps, timeout: float) -> dict[str, Probe]:
    """Run the steps of one group in a fresh process, whatever becomes of it."""
    command = [sys.executable, '-c', _CHILD, json.dumps(steps)]
    # The entry point of an installed mmdet_backbones would prepare the hosts, and
    # what the hosts do on their own would not show.
    env = {**os.environ, 'TORCH_DEVICE_BACKEND_AUTOLOAD': '0'}
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        unfinished = Probe('timeout', f'not finished after {timeout:g} s')
        return _outcomes(steps, _text(e.stdout), unfinished)
    crashed = Probe('crashed', _death(done.returncode, done.stderr))
    return _outcomes(steps, _text(done.stdout), crashed)


def _outcomes(steps: Steps, stdout: str, unfinished: Probe) -> dict[str, Probe]:
    reports: dict[str, str | None] = {}
    for line in stdout.split('\n'):
        if line.startswith(_MARK):
            name, error = json.loads(line[len(_MARK) :])
            reports[name] = error
    probes = {}
    for name in steps:
        error = reports.get(name)
        if error is not None:
            probes[name] = Probe('failed', error) if error else Probe('ok')
        else:
            # The first one without an ending is where the process stopped.
            probes[name] = unfinished
            unfinished = Probe('skipped')
    return probes


def _death(returncode: int, stderr: bytes) -> str:
    if returncode < 0:
        try:
            cause = signal.Signals(-returncode).name
        except ValueError:
            cause = f'signal {-returncode}'
    else:
        cause = f'exit code {returncode}'
    lines = [line for line in _text(stderr).splitlines() if line.strip()]
    said = f'; its last line: {lines[-1].strip()}' if lines else ''
    return f'the process ended with {cause}{said}'


def _text(output: bytes | str | None) -> str:
    if isinstance(output, bytes):
        return output.decode('utf-8', errors='replace')
    return output or ''
