"""Searches on synthetic squares that take a minute, and proof of what they trained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
from squares import draw_squares

from mmdet_backbones.search.options import SearchOptions
from mmdet_backbones.search.training import iterations_of

BASE = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
NETS = ('timm/test_resnet', 'timm/test_efficientnet')
# Squares are eight images, of which a swap makes batches of four.
PER_EPOCH = 2


def small_search(folder: Path, **settings) -> SearchOptions:
    """Two nets of a few thousand parameters, from random values."""
    data = folder / 'data'
    if not data.exists():
        data.mkdir()
        draw_squares(data)
    usual = dict(sizes=(64,), epochs=2, batch=4, no_weights=True, rounds=1, trials=3)
    return SearchOptions(
        BASE, str(data), NETS, folder / 'found', **{**usual, **settings}
    )


def command_of(options: SearchOptions) -> list[str]:
    """The same as a command line."""
    return [
        sys.executable, '-m', 'mmdet_backbones', 'search', options.base,
        '--data', options.data, '--backbones', *options.backbones,
        '--sizes', *map(str, options.sizes), '--epochs', str(options.epochs),
        '--batch', str(options.batch), '--rounds', str(options.rounds),
        '--trials', str(options.trials), '--hours', str(options.hours),
        '--no-weights', '-o', str(options.out),
    ]  # fmt: skip


def parts(options: SearchOptions) -> dict[str, list[tuple[int, int]]]:
    """First and last iteration of each process, by trial."""
    folders = (options.out / 'trials').glob('*')
    return {folder.name: iterations_of(folder) for folder in folders}


def assert_trained_once(options: SearchOptions, epochs: int | None = None) -> None:
    """No saved iteration of a trial was trained twice, and none was left out."""
    found = parts(options)
    assert found
    for name, spans in found.items():
        assert spans[0][0] == 0, (name, spans)
        assert all(a[1] == b[0] for a, b in pairwise(spans)), (name, spans)
        if epochs is not None:
            assert spans[-1][1] <= epochs * PER_EPOCH


def state_of(options: SearchOptions) -> dict:
    """The file of a search."""
    return json.loads((options.out / 'search.json').read_text())


def killed_when(options: SearchOptions, reached, limit: float = 500) -> None:
    """Start the command; once something is reached, kill all of its processes."""
    log = options.out.with_suffix('.log').open('a')
    started = subprocess.Popen(
        command_of(options), stdout=log, stderr=log, env={**os.environ}
    )
    end = time.monotonic() + limit
    while not reached():
        assert started.poll() is None, options.out.with_suffix('.log').read_text()
        assert time.monotonic() < end, options.out.with_suffix('.log').read_text()
        time.sleep(0.1)
    everyone = [*psutil.Process(started.pid).children(recursive=True), started]
    for one in everyone:
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    started.wait()
