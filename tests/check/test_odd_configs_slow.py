"""Configs changed at random: read, checked and swapped without a traceback."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_configs import ODD, changed, places_in, text_of
from small_detectors import HOSTS, small_config

from mmdet_backbones.check.config import check_config
from mmdet_backbones.detector_config.read import read_by_name
from mmdet_backbones.detector_config.tree import plain
from mmdet_backbones.engine.lr_scaling import tabulate_rates
from mmdet_backbones.errors import run
from mmdet_backbones.swap.swapping import SwapOptions, swap_backbone

LONGEST = 10
HOW = ('replaced', 'replaced', 'replaced', 'dropped', 'renamed')
WAYS = dict(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def listed(node):
    if isinstance(node, dict):
        return {key: listed(value) for key, value in node.items()}
    return [listed(part) for part in node] if isinstance(node, (list, tuple)) else node


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('odd')


@pytest.fixture(scope='module')
def content(folder):
    config = small_config(folder, HOSTS)
    return listed(plain(config._cfg_dict.to_dict()))


def survive(path: Path) -> None:
    """Read, check, swap and scale; what is wrong ends in a message, and soon."""
    steps = (
        lambda: check_config(read_by_name(str(path))),
        lambda: swap_backbone(
            SwapOptions(str(path), 'timm/resnet18', path.with_name('new.py'))
        ),
        lambda: tabulate_rates(read_by_name(str(path)), [1, 2]),
    )
    for step in steps:
        start = time.monotonic()
        # Any exception but those that a person is told passes through.
        assert run(step) in (0, 1)
        assert time.monotonic() - start < LONGEST


@pytest.mark.slow
@settings(**WAYS, max_examples=110)
@given(data=st.data())
def test_values_replaced_dropped_and_renamed(data, content, folder):
    replace_drop_and_rename(data, content, folder)


@pytest.mark.exhaustive
@settings(**WAYS, max_examples=1000)
@given(data=st.data())
def test_many_more_values(data, content, folder):
    replace_drop_and_rename(data, content, folder)


def replace_drop_and_rename(data, content, folder):
    # What is read first, and the rest.
    places = [*places_in(content)]
    first = [p for p in places if p[0] in ('model', 'optim_wrapper', 'param_scheduler')]
    odd = content
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(data.draw(st.sampled_from([first, places]))))
        how = data.draw(st.sampled_from(HOW))
        try:
            odd = changed(odd, place, how, data.draw(st.sampled_from(ODD)))
        except (KeyError, IndexError, TypeError):
            continue  # gone with the change before
    path = folder / 'values.py'
    path.write_text(text_of({k: v for k, v in odd.items() if k.isidentifier()}))
    survive(path)


@pytest.mark.slow
@settings(**WAYS, max_examples=180)
@given(data=st.data())
def test_damaged_text(data, content, folder):
    text = text_of(content).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 20)))
        text = text[:start] + data.draw(st.binary(max_size=4)) + text[end:]
    path = folder / 'damaged.py'
    path.write_bytes(text)
    survive(path)
