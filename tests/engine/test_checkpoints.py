"""Checkpoints: whole or not there, found whatever else is broken, never overwritten."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import signal
import zipfile

import pytest
import tiny_runs
import torch
from mmengine.config import Config
from mmengine.fileio import BaseStorageBackend, FileClient, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import CheckpointLoader
from tiny_runs import StopHook, train

from mmdet_backbones.engine import resuming
from mmdet_backbones.engine.checkpoint_hook import (
    SafeCheckpointHook,
    use_safe_checkpoints,
)
from mmdet_backbones.errors import UserError
from mmdet_backbones.files import whole_file

HOOK = 'default_hooks.checkpoint'
BEST = {f'{HOOK}.save_best': 'tiny/acc'}


def files(work):
    return (
        {path.name for path in work.iterdir() if path.is_file()}
        - {'run.py'}
        - {path.name for path in work.glob('2*.py')}
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A work folder with three epochs."""
    work = tmp_path_factory.mktemp('trained') / 'work'
    train(work)
    return work


@pytest.fixture
def work(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / 'work')


@pytest.fixture(scope='module')
def runner(tmp_path_factory):
    """A Runner that has not started."""
    return tiny_runs.build(tiny_runs.config(tmp_path_factory.mktemp('runner')))


@pytest.fixture
def settle(runner, work):
    """What a training in the work folder starts from."""

    def settled(given=None, resume=True):
        runner._work_dir = str(work)
        runner._resume, runner._load_from = resume, given
        resuming.settle_start(runner)
        return runner._load_from if runner._resume else None

    return settled


def refused(settle, *args):
    with pytest.raises(UserError) as caught:
        settle(*args)
    assert 'weights_only' not in str(caught.value)
    return str(caught.value)


def cut(path):
    path.write_bytes(path.read_bytes()[:-2000])


def empty(path):
    path.write_bytes(b'')


def garble(path):
    """Change values in the middle, and leave the archive's structure whole."""
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    at = entry.header_offset + 200
    content[at : at + 8] = bytes(byte ^ 0xFF for byte in content[at : at + 8])
    path.write_bytes(content)


def plain(path):
    torch.save(torch.load(path)['state_dict'], path)


def without(key):
    def change(path):
        content = torch.load(path)
        content.pop(key)
        torch.save(content, path)

    change.__name__ = f'without_{key}'
    return change


def other_net(path):
    content = torch.load(path)
    content['state_dict']['net.9.weight'] = torch.ones(3)
    torch.save(content, path)


def diverged(path):
    content = torch.load(path)
    next(iter(content['state_dict'].values())).fill_(torch.nan)
    torch.save(content, path)


def hostile(path):
    torch.save(dict(torch.load(path), more=contextlib.suppress), path)


def folder(path):
    path.unlink()
    path.mkdir()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def tensors(path):
    torch.save(
        dict(torch.load(path), optimizer=torch.ones(2), meta=torch.ones(3)), path
    )


DAMAGES = [
    cut, empty, garble, plain, other_net, diverged, hostile, folder, pipe, tensors,
    *map(without, ('meta', 'optimizer', 'param_schedulers', 'message_hub')),
]  # fmt: skip


@pytest.mark.parametrize('damage', DAMAGES, ids=lambda damage: damage.__name__)
def test_the_newest_that_is_whole_is_found(damage, work, settle):
    assert settle() == str(work / 'epoch_3.pth')
    damage(work / 'epoch_3.pth')
    assert settle() == str(work / 'epoch_2.pth')


@pytest.mark.parametrize(
    'note', [None, b'', b'\xff\xfe\x00\x81', b'epoch_1.pth', b'/old/place/epoch_2.pth']
)
def test_whatever_last_checkpoint_says(note, work, settle):
    (work / 'last_checkpoint').unlink()
    if note is not None:
        (work / 'last_checkpoint').write_bytes(note)
    assert settle() == str(work / 'epoch_3.pth')


def test_a_training_goes_on_without_last_checkpoint(work):
    (work / 'last_checkpoint').unlink()
    assert train(work, 4, 'auto').epoch == 4
    assert files(work) == {f'epoch_{n}.pth' for n in (1, 2, 3, 4)} | {'last_checkpoint'}
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_4.pth')


def test_a_checkpoint_of_another_name_is_found_by_last_checkpoint(work, settle):
    for number in (1, 2):
        (work / f'epoch_{number}.pth').unlink()
    (work / 'epoch_3.pth').rename(work / 'mine.pth')
    (work / 'last_checkpoint').write_text('/where/it/was/mine.pth')
    assert settle() == str(work / 'mine.pth')


def test_no_whole_one_is_told_and_an_empty_folder_starts(work, settle):
    for number in (1, 2, 3):
        cut(work / f'epoch_{number}.pth')
    assert 'no checkpoint' in refused(settle)
    assert settle(None, False) is None
    shutil.rmtree(work)
    assert settle() is None


def test_weights_to_start_from_stay_where_there_is_nothing_to_resume(work, tmp_path):
    weights = str(work / 'epoch_3.pth')
    cfg = tiny_runs.config(tmp_path / 'new', load_from=weights)
    resuming.set_resume(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (False, weights)
    cfg = tiny_runs.config(work, load_from=weights)
    resuming.set_resume(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (True, None)


@pytest.mark.parametrize('damage', DAMAGES, ids=lambda damage: damage.__name__)
def test_a_file_given_by_hand_is_whole_or_refused(damage, work, settle):
    path = work / 'epoch_3.pth'
    damage(path)
    assert str(path) in refused(settle, str(path))


def test_a_file_to_load_is_read_as_data(work, settle):
    path = work / 'other.pth'
    shutil.copy(work / 'epoch_3.pth', path)
    hostile(path)
    assert str(path) in refused(settle, str(path), False)


def test_nothing_that_came_further_is_overwritten(work, settle):
    older, newer = str(work / 'epoch_1.pth'), f"'{work}/epoch_3.pth' (epoch 3"
    for args in ((older,), (None, False)):
        message = refused(settle, *args)
        assert newer in message
        assert '--resume' in message
        assert '--work-dir' in message
    for number in (2, 3):
        (work / f'epoch_{number}.pth').unlink()
    assert settle(older) == older


def test_a_renamed_checkpoint_hides_none(work, settle):
    shutil.copy(work / 'epoch_1.pth', work / 'epoch_9.pth')
    assert settle() == str(work / 'epoch_3.pth')


@pytest.fixture
def store():
    """Something that is no disk, for addresses that begin with memory://."""
    content = {}

    class MemoryBackend(BaseStorageBackend):
        put = staticmethod(lambda data, path: content.update({path: data}))
        get = staticmethod(lambda path: content[path])
        get_text = staticmethod(lambda path: content[path].decode())
        exists = isfile = staticmethod(lambda path: path in content)
        isdir = staticmethod(lambda path: False)
        remove = staticmethod(lambda path: content.pop(path))
        join_path = staticmethod(lambda *parts: '/'.join(map(str, parts)))

    register_backend('memory', MemoryBackend, prefixes='memory', force=True)
    FileClient.register_backend('memory', MemoryBackend, prefixes='memory', force=True)

    @CheckpointLoader.register_scheme(prefixes='memory://', force=True)
    def load_from_memory(filename, map_location):
        return torch.load(io.BytesIO(content[filename]), map_location)

    return content


def test_what_is_not_on_a_disk_is_left_to_mmengine(store, tmp_path):
    options = {f'{HOOK}.out_dir': 'memory://all', f'{HOOK}.max_keep_ckpts': 1, **BEST}
    work = tmp_path / 'work'
    train(work, 2, **options)
    names = {f'memory://all/work/{n}epoch_2.pth' for n in ('', 'best_tiny_acc_')}
    assert store.keys() == names
    with pytest.raises(UserError, match='would overwrite memory://all/work/epoch_2'):
        train(work, 2, **options)
    assert train(work, 3, 'auto', **options)._load_from == max(names)
    assert 'memory://all/work/epoch_3.pth' in store


def test_a_start_over_checkpoints_needs_force(tmp_path):
    work = tmp_path / 'work'
    train(work, 2)
    before = (work / 'epoch_2.pth').read_bytes()
    with pytest.raises(UserError, match=r'would overwrite .*--resume .* or --force'):
        train(work, 1)
    assert (work / 'epoch_2.pth').read_bytes() == before
    assert train(work, 2, force=True).epoch == 2
    assert (work / 'epoch_2.pth').read_bytes() != before


def test_the_state_of_another_optimiser_is_told(work):
    options = {'optim_wrapper.optimizer': dict(type='Adam', lr=0.1, _delete_=True)}
    with pytest.raises(UserError, match='of another one than the Adam'):
        train(work, 4, 'auto', **options)


def change(path, key, value):
    content = torch.load(path)
    content[key] = value(content[key])
    torch.save(content, path)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('param_schedulers', lambda _: [1, 2]),
        ('optimizer', lambda _: dict(param_groups='many')),
        ('optimizer', lambda old: dict(old, state={0: 'none'})),
        ('optimizer', lambda old: dict(old, state={0: old['state'][1]})),
        ('meta', lambda old: dict(old, seed='seven')),
    ],
)
def test_a_state_that_fits_nothing_is_told(key, value, work):
    change(work / 'epoch_3.pth', key, value)
    with pytest.raises(UserError, match=r'write (the config|optim_wrapper) as it was'):
        train(work, 4, 'auto')


def test_no_file_but_those_of_the_hook_is_removed(tmp_path):
    options = {f'{HOOK}.max_keep_ckpts': 1, **BEST}
    work = tmp_path / 'work'
    train(work, 2, **options)
    other, beside = tmp_path / 'other.pth', work / 'precious.txt'
    other.write_text('')
    beside.write_text('')
    notes = dict(
        best_ckpt=str(other),
        best_score='much',
        keep_ckpt_ids=['../../other', '/x'],
        replaced_ckpts=['precious.txt', str(other), 'best_tiny_acc_epoch_2.pth'],
    )

    def noted(hub):
        hub['runtime_info'].update(notes)
        return hub

    change(work / 'epoch_2.pth', 'message_hub', noted)
    assert train(work, 3, 'auto', **options).epoch == 3
    assert other.exists()
    assert beside.exists()


def test_no_code_of_a_checkpoint_runs(work, tmp_path):
    code = f'open({str(tmp_path / "ran")!r}, "w")\n'
    content = torch.load(work / 'epoch_3.pth')
    content['meta'].update(config=code, cfg=code + 'auto_scale_lr = dict(x=1)')
    torch.save(content, work / 'epoch_3.pth')
    hook = dict(type='mmdet_backbones.LearningRateScaleHook', batch_size=4)
    train(work, 4, 'auto', custom_hooks=[hook])
    assert not (tmp_path / 'ran').exists()


def test_a_copied_folder_leaves_the_original_alone(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / 'old', 3, hook=StopHook(2), **BEST)
    before = files(tmp_path / 'old')
    shutil.copytree(tmp_path / 'old', tmp_path / 'new')
    train(tmp_path / 'new', 3, 'auto', **BEST)
    assert files(tmp_path / 'old') == before
    assert 'best_tiny_acc_epoch_3.pth' in files(tmp_path / 'new')
    assert 'best_tiny_acc_epoch_2.pth' not in files(tmp_path / 'new')


ARGUMENTS = {
    'interval': (dict(interval=2), {'epoch_2.pth', 'epoch_3.pth'}),
    'no last': (dict(interval=2, save_last=False), {'epoch_2.pth'}),
    'begin': (dict(save_begin=3), {'epoch_3.pth'}),
    'template': (dict(filename_tmpl='net-{}.pth', save_begin=3), {'net-3.pth'}),
    'kept': (dict(max_keep_ckpts=2), {'epoch_2.pth', 'epoch_3.pth'}),
    'iterations': (dict(by_epoch=False, interval=8), {'iter_8.pth', 'iter_12.pth'}),
    'best of two': (
        dict(save_best=['tiny/acc', 'tiny/acc2'], rule='greater', max_keep_ckpts=1),
        {'best_tiny_acc_epoch_3.pth', 'best_tiny_acc2_epoch_3.pth', 'epoch_3.pth'},
    ),
    'elsewhere': (dict(out_dir='{}/out', max_keep_ckpts=1), set()),
    'backend': (
        dict(backend_args=dict(backend='local'), max_keep_ckpts=1),
        {'epoch_3.pth'},
    ),
    'file client': (
        dict(file_client_args=dict(backend='disk'), max_keep_ckpts=1),
        {'epoch_3.pth'},
    ),
}


@pytest.mark.parametrize('name', ARGUMENTS)
def test_every_argument_of_mmengine_s_hook(name, tmp_path):
    given, wanted = ARGUMENTS[name]
    given = dict(given)
    if 'out_dir' in given:
        given['out_dir'] = given['out_dir'].format(tmp_path)
    options = {f'{HOOK}.{key}': value for key, value in given.items()}
    work = tmp_path / 'work'
    train(work, 3, **options)
    assert files(work) - {'last_checkpoint'} == wanted
    if name == 'elsewhere':
        assert files(tmp_path / 'out' / 'work') == {'epoch_3.pth'}
    # And a training goes on from there.
    assert train(work, 4, 'auto', **options).epoch == 4


def test_what_is_left_out_and_published(tmp_path):
    options = {
        f'{HOOK}.save_optimizer': False,
        f'{HOOK}.save_param_scheduler': False,
        f'{HOOK}.max_keep_ckpts': 1,
        f'{HOOK}.published_keys': ['state_dict', 'meta'],
    }
    train(tmp_path / 'work', 1, **options)
    content = torch.load(tmp_path / 'work' / 'epoch_1.pth')
    assert content.keys() == {'meta', 'state_dict', 'message_hub'}
    (published,) = (tmp_path / 'work').glob('epoch_1-*.pth')
    assert torch.load(published).keys() == {'meta', 'state_dict'}
    assert train(tmp_path / 'work', 2, 'auto', **options).epoch == 2


def test_averaged_weights_are_saved_and_resumed(tmp_path):
    options = dict(custom_hooks=[dict(type='EMAHook', momentum=0.1)], **BEST)
    train(tmp_path / 'whole', 3, **options)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / 'parts', 3, hook=StopHook(2), **options)
    train(tmp_path / 'parts', 3, 'auto', **options)
    one, two = (torch.load(tmp_path / n / 'epoch_3.pth') for n in ('whole', 'parts'))
    for key in ('state_dict', 'ema_state_dict'):
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=0)
    best = torch.load(tmp_path / 'parts' / 'best_tiny_acc_epoch_3.pth')
    torch.testing.assert_close(best['state_dict'], two['state_dict'], rtol=0, atol=0)


def test_mistakes_in_the_hook_s_arguments():
    with pytest.raises(TypeError, match="'max_keep_ckpt'; write max_keep_ckpts"):
        SafeCheckpointHook(max_keep_ckpt=3)
    with pytest.raises(ValueError, match="'stop' or 'continue', got 'ignore'"):
        SafeCheckpointHook(on_write_error='ignore')


def test_a_metric_that_is_not_there_is_told(tmp_path):
    options = {f'{HOOK}.save_best': 'bbox', f'{HOOK}.rule': 'less'}
    with pytest.raises(UserError, match="write one of 'tiny/acc'"):
        train(tmp_path, 1, **options)


@pytest.mark.parametrize('options', [{}, BEST], ids=['as_it_comes', 'save_best'])
def test_a_validation_alone_saves_nothing(options, trained, tmp_path):
    weights = trained / 'epoch_3.pth'
    runner = tiny_runs.build(
        tiny_runs.config(tmp_path / 'work', load_from=str(weights), **options)
    )
    assert runner.val().keys() == {'tiny/acc', 'tiny/acc2'}
    assert not list((tmp_path / 'work').rglob('*.pth'))


def test_mmengine_s_hook_is_replaced_wherever_it_stands():
    cfg = Config(dict(custom_hooks=[dict(type=CheckpointHook, interval=2)]))
    use_safe_checkpoints(cfg)
    hooks = (cfg.default_hooks.checkpoint, cfg.custom_hooks[0])
    assert {hook.type for hook in hooks} == {'mmdet_backbones.SafeCheckpointHook'}
    assert [hook.interval for hook in hooks] == [1, 2]
    own = Config(dict(default_hooks=dict(checkpoint=dict(type='MyCheckpoints'))))
    use_safe_checkpoints(own)
    assert own.default_hooks.checkpoint.type == 'MyCheckpoints'


def test_partial_files_of_killed_runs_are_removed(work):
    child = os.fork()
    if child == 0:
        with whole_file(work / 'epoch_4.pth') as partial:
            partial.write_bytes(b'half')
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    living = work / f'.epoch_9.pth.{os.getppid()}.partial'
    living.write_bytes(b'of a process that still runs')
    (work / '.mine.partial').write_bytes(b'of somebody else')
    assert len(list(work.glob('.*'))) == 3
    train(work, 4, 'auto')
    assert {path.name for path in work.glob('.*')} == {living.name, '.mine.partial'}


@contextlib.contextmanager
def no_file_larger_than(size):
    """What the kernel does on a disk that is full, for large files only."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_ends_with_the_last_one_named(tmp_path):
    options = {f'{HOOK}.max_keep_ckpts': 1, **BEST}
    work = tmp_path / 'work'
    train(work, 2, **options)
    before = {name: (work / name).read_bytes() for name in files(work)}
    size = (work / 'epoch_2.pth').stat().st_size
    with no_file_larger_than(size // 2), pytest.raises(UserError) as caught:
        train(work, 4, 'auto', **options)
    message = str(caught.value)
    assert f"the last whole checkpoint is '{work}/epoch_2.pth'" in message
    assert '--resume' in message
    assert {name: (work / name).read_bytes() for name in files(work)} == before
    assert train(work, 4, 'auto', **options).epoch == 4


def test_a_training_may_go_on_without_a_checkpoint(tmp_path):
    options = {
        f'{HOOK}.max_keep_ckpts': 1, f'{HOOK}.on_write_error': 'continue', **BEST
    }  # fmt: skip
    work = tmp_path / 'work'
    room = []

    class Fills(Hook):
        priority = 'LOWEST'

        def before_train_epoch(self, runner):
            full = runner.epoch in (1, 2)
            size = 2000 if full else resource.RLIM_INFINITY
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            room.append(sorted(files(work) if runner.epoch else ()))

    with no_file_larger_than(resource.RLIM_INFINITY):
        train(work, 4, hook=Fills(), **options)
    assert room[1] == room[2] == room[3]
    assert {'best_tiny_acc_epoch_1.pth', 'epoch_1.pth'} < set(room[3])
    after = {'best_tiny_acc_epoch_4.pth', 'epoch_4.pth', 'last_checkpoint'}
    assert files(work) == after
