"""Which checkpoint of a work folder is the newest whole one."""

from __future__ import annotations

import random
import shutil

import pytest
import tiny_runs
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_runs import train

from mmdet_backbones.detector_config.whole_checkpoints import WorkFolder


def test_shards_are_found_by_their_names(tmp_path):
    for number in (1, 2, 10):
        (tmp_path / f'epoch_{number}.pth').mkdir()
    config = dict(work_dir=str(tmp_path))
    assert WorkFolder.of(config).newest().found is None
    found = WorkFolder.of(dict(config, strategy=dict())).newest().found
    assert found.path.name == 'epoch_10.pth'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    work = tmp_path_factory.mktemp('trained') / 'work'
    train(work, 2)
    return work


@pytest.mark.slow
@settings(
    derandomize=True,
    deadline=None,
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    start=st.floats(0, 1),
    length=st.integers(1, 3000),
    change=st.sampled_from(['flip', 'zero', 'random', 'cut', 'insert']),
)
def test_damage_is_found_or_does_not_matter(trained, tmp_path, start, length, change):
    work = tmp_path / 'work'
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for number in (1, 2):
        shutil.copy(trained / f'epoch_{number}.pth', work)
    path = work / 'epoch_2.pth'
    content = path.read_bytes()
    at = int(start * (len(content) - 1))
    piece = content[at : at + length]
    new = dict(
        flip=bytes(byte ^ 1 for byte in piece),
        zero=bytes(len(piece)),
        random=random.Random(at).randbytes(len(piece)),
        cut=b'',
        insert=piece + piece,
    )[change]
    path.write_bytes(content[:at] + new + content[at + length :])
    config = tiny_runs.config(work)
    found = WorkFolder.of(config).newest().found
    assert found is not None
    if found.path == path:
        ours, theirs = (torch.load(p) for p in (path, trained / path.name))
        for key in ('state_dict', 'optimizer'):
            torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=0)
