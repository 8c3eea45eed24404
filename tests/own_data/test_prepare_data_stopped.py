"""A run that is killed at any moment goes on with the same command."""

import errno
import os
import shutil

import pytest
from killed_runs import acting_at, killed_at
from own_folders import read_back, scenes, snapshot, write_voc

from mmdet_backbones.errors import UserError
from mmdet_backbones.own_data.for_config import read_folder
from mmdet_backbones.own_data.placing import STATE, problems_with
from mmdet_backbones.own_data.prepare import DataOptions, prepare


@pytest.fixture
def stage(tmp_path):
    """A folder, what comes of it, and what comes of it under one name."""
    source = tmp_path / 'mine'
    write_voc(source, scenes(3))
    wanted = {}
    for force, merged in ((False, None), (True, 'plant')):
        out = tmp_path / 'out'
        prepare(DataOptions(source, out, merge_into=merged, force=force))
        wanted[force] = snapshot(out)
    shutil.rmtree(out)
    return source, out, wanted


def orders(source, out, force):
    """Put what was there before into its place, and return what shall be done."""
    if out.exists():
        shutil.rmtree(out)
    if force:
        prepare(DataOptions(source, out))
        (out / 'notes.txt').write_text('mine')
    return DataOptions(source, out, merge_into='plant' if force else None, force=force)


def whole_or_refused(out, sets):
    """What --data takes is one of the whole data sets."""
    try:
        read_folder(str(out))
    except UserError:
        return
    there = {n: c for n, c in snapshot(out).items() if not n.startswith('.')}
    there.pop('notes.txt', None)
    assert there in sets


def kill_everywhere(stage, force, steps):
    source, out, wanted = stage
    before, killed = snapshot(source), 0
    for step in steps:
        order = orders(source, out, force)
        if not killed_at(step, lambda order=order: prepare(order)):
            return killed
        killed += 1
        whole_or_refused(out, wanted.values())
        prepare(order)
        there = snapshot(out)
        assert not force or there.pop('notes.txt') == b'mine'
        assert there == wanted[force], step
        assert snapshot(source) == before
    return killed


@pytest.mark.parametrize('force', [False, True])
def test_a_run_that_is_killed_at_some_moments_goes_on(stage, force):
    assert kill_everywhere(stage, force, (1, 3, 14, 21, 24, 27)) >= 5


@pytest.mark.slow
@pytest.mark.parametrize('force', [False, True])
def test_a_run_that_is_killed_at_any_moment_goes_on(stage, force):
    assert 20 < kill_everywhere(stage, force, range(1, 200)) < 199


@pytest.mark.parametrize(
    ('first', 'steps'),
    [
        ('with', (23, 41)),
        *(
            pytest.param(first, range(18, 60), marks=pytest.mark.slow)
            for first in ('with', 'without')
        ),
    ],
)
def test_a_test_split_that_comes_or_goes_is_whole_or_not_there(tmp_path, first, steps):
    made, out = scenes(6), tmp_path / 'out'
    names = list(made)
    parts = dict(train=names[:2], val=names[2:4], test=names[4:])
    for split, chosen in parts.items():
        write_voc(tmp_path / 'with', {name: made[name] for name in chosen}, split)
    write_voc(tmp_path / 'without', scenes(4, seed=1))
    second = {'with': 'without', 'without': 'with'}[first]
    wanted = {}
    for source in (second, first):
        prepare(DataOptions(tmp_path / source, out, force=True))
        wanted[source] = snapshot(out)
    killed = 0
    for step in steps:
        order = DataOptions(tmp_path / second, out, force=True)
        if killed_at(step, lambda order=order: prepare(order)):
            killed += 1
            # It puts things in order before it looks what is in the way.
            problems_with(out, tmp_path / second, force=False)
            there = {n: c for n, c in snapshot(out).items() if n != STATE}
            assert there in wanted.values(), step
            prepare(order)
        assert snapshot(out) == wanted[second], step
        prepare(DataOptions(tmp_path / first, out, force=True))
        assert snapshot(out) == wanted[first]
    assert len(steps) / 3 < killed <= len(steps)


@pytest.mark.slow
def test_runs_that_are_killed_again_and_again_go_on(stage):
    source, out, wanted = stage
    order = orders(source, out, False)
    for step in (25, 3, 18, 27, 1, 5, 30, 2, 35, 4):
        killed_at(step, lambda: prepare(order))
        whole_or_refused(out, wanted.values())
        if out.exists() and not (out / STATE).exists():
            shutil.rmtree(out)
    prepare(order)
    assert snapshot(out) == wanted[False]


@pytest.mark.parametrize('step', [2, 6, 12, 17, 22])
def test_a_full_disk_leaves_what_was_there(stage, step):
    source, out, _ = stage
    order = orders(source, out, True)
    before = snapshot(out)

    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match='No space left'):
        acting_at(step, full, lambda: prepare(order))
    assert snapshot(out) == before


def test_another_run_at_work_is_not_disturbed(stage):
    source, out, _ = stage
    order = orders(source, out, False)

    def second():
        with pytest.raises(UserError, match='another run is writing to it'):
            prepare(order)

    acting_at(12, second, lambda: prepare(order))
    assert len(read_back(out)[0]) == 3


def test_a_state_file_that_is_somebody_elses(tmp_path):
    write_voc(tmp_path / 'mine', scenes(3))
    out = tmp_path / 'out'
    out.mkdir()
    (out / STATE).write_text('mine')
    with pytest.raises(UserError, match='did not write'):
        prepare(DataOptions(tmp_path / 'mine', out))
    assert snapshot(out) == {STATE: b'mine'}
    (out / STATE).unlink()
    (out / STATE).symlink_to(tmp_path / 'mine/Annotations/photo_0.xml')
    with pytest.raises(UserError, match='cannot be written'):
        prepare(DataOptions(tmp_path / 'mine', out))


def test_force_keeps_what_others_put_beside_our_images(tmp_path):
    write_voc(tmp_path / 'mine', scenes(3))
    order = DataOptions(tmp_path / 'mine', tmp_path / 'out', force=True)
    prepare(order)
    (tmp_path / 'out/train/my notes.txt').write_text('mine')
    before = snapshot(tmp_path / 'out')
    with pytest.raises(UserError, match=r'holds train/my notes\.txt, which this'):
        prepare(order)
    assert snapshot(tmp_path / 'out') == before
