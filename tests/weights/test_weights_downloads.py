"""Downloads that break off, that are not what they should be, or that many want."""

import gzip
import hashlib
import os
import pickle
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest
import torch
from file_server import FileServer
from safetensors.torch import save_file
from weight_files import assert_same, file_bytes, files_in, hashed, make_weights

from mmdet_backbones.weights import (
    CheckpointError,
    locate_checkpoint,
    read_checkpoint,
    read_shapes,
)
from mmdet_backbones.weights.reading.download import cache_path

HELPERS = Path(__file__).parents[1] / 'helpers'


@pytest.mark.parametrize('ranges', [True, False])
def test_a_download_goes_on_where_it_stopped(tmp_path, cache, server, ranges):
    content = file_bytes(tmp_path)
    name, have = hashed(content), 120_000
    server.files[name], server.ranges = content, ranges
    cache.mkdir(parents=True)
    (cache / f'{name}.part').write_bytes(content[:have])
    read_checkpoint(server.url(name))
    assert server.asked == [(name, f'bytes={have}-')]
    assert server.sent == len(content) - have * ranges
    assert (cache / name).read_bytes() == content
    assert files_in(cache) == [name]


def interrupted(server: FileServer, name: str, content: bytes) -> Path:
    """Download the first part of a file; return the path that the whole would get."""
    server.files[name], server.breaks_after = content, 1000
    with pytest.raises(CheckpointError, match='the connection broke'):
        read_checkpoint(server.url(name))
    server.breaks_after = None
    server.asked.clear()
    server.conditions.clear()
    return cache_path(server.url(name))


VERSIONS = {
    'etag': (dict(etag='"1"'), dict(etag='"2"'), '"1"'),
    'date': (dict(modified=1e9), dict(modified=1e9 + 5), formatdate(1e9, usegmt=True)),
    # A weak tag is not that of the bytes.
    'weak': (dict(etag='W/"1"', modified=1e9), dict(etag='W/"2"', modified=1e9),
             formatdate(1e9, usegmt=True)),
}  # fmt: skip


@pytest.mark.parametrize('heeds', [True, False])
@pytest.mark.parametrize('kind', VERSIONS)
def test_two_versions_of_a_file_are_never_mixed(tmp_path, cache, server, kind, heeds):
    before, after, validator = VERSIONS[kind]
    old, new = file_bytes(tmp_path), file_bytes(tmp_path, 1)
    assert len(old) == len(new)
    vars(server).update(before, heeds_if_range=heeds)
    path = interrupted(server, 'net.pth', old)
    vars(server).update(after, files={'net.pth': new})
    read_checkpoint(server.url('net.pth'))
    assert path.read_bytes() == new
    assert server.conditions[0] == validator
    assert files_in(cache) == ['net.pth']


@pytest.mark.parametrize('kind', VERSIONS)
def test_the_rest_of_the_same_version_is_asked_for(tmp_path, cache, server, kind):
    content, (version, _, validator) = file_bytes(tmp_path), VERSIONS[kind]
    vars(server).update(version)
    path = interrupted(server, 'net.pth', content)
    read_checkpoint(server.url('net.pth'))
    assert path.read_bytes() == content
    assert server.conditions == [validator]
    assert server.sent == len(content)
    assert files_in(cache) == ['net.pth']


def test_a_part_of_an_unknown_version_is_dropped(tmp_path, cache, server):
    """Neither the server nor the name tells whether the rest is of the same file."""
    path = interrupted(server, 'net.pth', file_bytes(tmp_path))
    server.files['net.pth'] = new = file_bytes(tmp_path, 1)
    read_checkpoint(server.url('net.pth'))
    assert path.read_bytes() == new
    assert server.asked == [('net.pth', None)]


def test_a_note_that_was_cut_off_is_none(tmp_path, cache, server):
    content, server.etag = file_bytes(tmp_path), '"1"'
    path = interrupted(server, 'net.pth', content)
    path.with_name('net.pth.part.json').write_text('["')
    read_checkpoint(server.url('net.pth'))
    assert path.read_bytes() == content
    assert server.asked == [('net.pth', None)]


@pytest.mark.parametrize('lie', [dict(says_total=500_000), dict(starts_at=7)])
def test_a_part_that_does_not_continue_ours_is_refused(tmp_path, cache, server, lie):
    content, server.etag = file_bytes(tmp_path), '"1"'
    path = interrupted(server, 'net.pth', content)
    vars(server).update(lie)
    if 'starts_at' in lie:
        with pytest.raises(CheckpointError, match='a part of it where all was asked'):
            read_checkpoint(server.url('net.pth'))
        assert files_in(cache) == []
    else:
        read_checkpoint(server.url('net.pth'))
        assert path.read_bytes() == content
    assert server.asked[1:] == [('net.pth', None)]


@pytest.mark.parametrize('extra', [b'', b'more'])
def test_a_part_that_is_complete_or_too_long(tmp_path, cache, server, extra):
    content = file_bytes(tmp_path)
    name = hashed(content)
    server.files[name] = content
    cache.mkdir(parents=True)
    (cache / f'{name}.part').write_bytes(content + extra)
    read_checkpoint(server.url(name))
    assert (cache / name).read_bytes() == content
    assert len(server.asked) == (2 if extra else 1)


def test_broken_connections(tmp_path, cache, server):
    content = file_bytes(tmp_path)
    name = hashed(content)
    server.files[name], server.breaks_after = content, len(content) // 3 + 1
    read_checkpoint(server.url(name))
    assert len(server.asked) == 3
    assert server.sent == len(content)


def test_what_arrived_is_kept(tmp_path, cache, server):
    content = file_bytes(tmp_path)
    name = hashed(content)
    server.files[name], server.breaks_after = content, 1000
    with pytest.raises(CheckpointError, match='the connection broke after') as error:
        read_checkpoint(server.url(name))
    assert 'only the rest is asked for' in str(error.value)
    assert str(cache / name) in str(error.value)
    kept = (cache / f'{name}.part').read_bytes()
    assert len(kept) > 1000
    assert content.startswith(kept)
    server.breaks_after = None
    read_checkpoint(server.url(name))
    assert server.sent == len(content)


def test_a_download_with_another_hash_is_removed(tmp_path, cache, server):
    content = file_bytes(tmp_path)
    server.files['net-0123abcd.pth'] = content
    with pytest.raises(CheckpointError, match='starts with 0123abcd') as error:
        read_checkpoint(server.url('net-0123abcd.pth'))
    assert hashlib.sha256(content).hexdigest() in str(error.value)
    assert files_in(cache) == []


@pytest.mark.parametrize('damage', ['truncated', 'another'])
def test_a_damaged_file_in_the_cache_is_removed(tmp_path, cache, server, damage):
    content, other = file_bytes(tmp_path), file_bytes(tmp_path, 1)
    name = hashed(content)
    server.files[name] = content
    cache.mkdir(parents=True)
    (cache / name).write_bytes(content[:9000] if damage == 'truncated' else other)
    with pytest.raises(CheckpointError, match='It was removed; start again'):
        read_checkpoint(server.url(name))
    read_checkpoint(server.url(name))
    assert (cache / name).read_bytes() == content


def test_own_files_are_not_checked_against_their_names(tmp_path):
    path = tmp_path / 'tuned-0123abcd.pth'
    torch.save(make_weights(), path)
    assert_same(read_checkpoint(str(path)).state_dict, make_weights())


def test_a_web_page_is_not_kept(cache, server):
    server.files['net.pth'] = b'<html>Sign in</html>'
    server.content_type = 'text/html; charset=utf-8'
    with pytest.raises(CheckpointError, match='answers with a web page'):
        read_checkpoint(server.url('net.pth'))
    with pytest.raises(CheckpointError, match='answers with a web page'):
        locate_checkpoint(server.url('net.pth'), ask=True)
    assert files_in(cache) == []


def test_a_packed_answer_is_not_kept(tmp_path, cache, server):
    server.files['net.pth'] = gzip.compress(file_bytes(tmp_path))
    server.encoding = 'gzip'
    with pytest.raises(CheckpointError, match='comes packed with gzip') as error:
        read_checkpoint(server.url('net.pth'))
    assert str(cache_path(server.url('net.pth'))) in str(error.value)
    assert files_in(cache) == []


BAD = {
    'page': lambda content: b'\n<!DOCTYPE html><html>Quota exceeded</html>',
    'message': lambda content: b'{"error": "quota exceeded"}',
    'cut off': lambda content: content[:90_000],
    'empty': lambda content: b'',
    'noise': lambda content: bytes(range(256)) * 9,
}


@pytest.mark.parametrize('read', [read_checkpoint, read_shapes])
@pytest.mark.parametrize('bad', BAD)
@pytest.mark.parametrize('name', ['net.pth', 'model.safetensors'])
def test_a_bad_download_is_not_kept(tmp_path, cache, server, bad, name, read):
    """Of a file whose name has no hash, from a server that tells no size."""
    content, server.says_length = file_bytes(tmp_path), False
    if name == 'model.safetensors':
        save_file(make_weights(), tmp_path / name)
        content = (tmp_path / name).read_bytes()
    server.files[name] = BAD[bad](content[: len(content) - 1])
    if bad == 'cut off':
        server.files[name] = content[: len(content) * 2 // 3]
    with pytest.raises(CheckpointError, match='It was removed; start again'):
        read(server.url(name))
    assert files_in(cache) == []
    server.files[name] = content
    read(server.url(name))
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    'content', [gzip.compress(b'weights'), pickle.dumps({'a': 1})], ids=['gz', 'pickle']
)
def test_a_good_file_of_another_kind_is_named(cache, server, content):
    server.files['net.pth'] = content
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(server.url('net.pth'))
    path = cache_path(server.url('net.pth'))
    assert str(error.value).endswith(f'The file is {path}')
    assert path.read_bytes() == content


def test_a_bad_file_that_may_not_be_removed_is_named(
    tmp_path, cache, server, monkeypatch
):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, 'Permission denied', str(path))

    path = cache_path(server.url('net.pth'))
    path.parent.mkdir(parents=True)
    path.write_bytes(file_bytes(tmp_path)[:9000])
    # Root may remove everything, and tests may run as root.
    monkeypatch.setattr(Path, 'unlink', refuse)
    with pytest.raises(CheckpointError, match=f'remove {path}, start again'):
        read_checkpoint(server.url('net.pth'))


def test_a_process_that_is_killed_while_it_downloads(tmp_path, cache, server):
    content = file_bytes(tmp_path, size=800_000)
    vars(server).update(files={'net.pth': content}, etag='"1"', stalls_after=2_500_000)
    run = subprocess.Popen(
        [sys.executable, '-c', 'import sys;'
         'from mmdet_backbones.weights import read_checkpoint;'
         'read_checkpoint(sys.argv[1])', server.url('net.pth')],
        env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    path = cache_path(server.url('net.pth'))
    part = path.with_name('net.pth.part')
    end = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size >= 2_000_000):
        assert time.monotonic() < end
        assert run.poll() is None
        time.sleep(0.01)
    run.kill()
    run.wait()
    server.stalls_after, have = None, part.stat().st_size
    server.go_on.set()
    assert_same(
        read_checkpoint(server.url('net.pth')).state_dict,
        torch.load(tmp_path / 'source0.pth'),
    )
    assert server.asked == [('net.pth', None), ('net.pth', f'bytes={have}-')]
    assert server.conditions == [None, '"1"']
    assert path.read_bytes() == content
    assert files_in(cache) == ['net.pth']


def environment(cache: Path) -> dict[str, str]:
    own = {'TORCH_HOME': str(cache.parents[1]), 'no_proxy': '*', 'OMP_NUM_THREADS': '1'}
    return {**os.environ, **own, 'PYTHONWARNINGS': 'ignore'}


@pytest.mark.slow
def test_two_processes_download_once(tmp_path, cache, server):
    content = file_bytes(tmp_path, size=2_000_000)
    name = hashed(content)
    server.files[name], server.seconds = content, 3
    code = (
        'from mmdet_backbones.weights import read_checkpoint;'
        'print("ready", flush=True); input();'
        f'print(read_checkpoint({server.url(name)!r}).sha256)'
    )
    runs = [
        subprocess.Popen(
            [sys.executable, '-c', code], env=environment(cache), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for run in runs:
        assert run.stdout.readline() == 'ready\n'
    for run in runs:
        run.stdin.write('\n')
        run.stdin.flush()
    for run in runs:
        out, err = run.communicate(timeout=100)
        assert out.split()[-1] == hashlib.sha256(content).hexdigest(), err
    assert server.asked == [(name, None)]
    assert files_in(cache) == [name]


@pytest.mark.slow
def test_ranks_of_one_run_download_once(tmp_path, cache, server):
    content = file_bytes(tmp_path)
    name = hashed(content)
    server.files[name], server.seconds = content, 0.5
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'torch.distributed.run', '--standalone'),
            *('--nproc-per-node', '2', str(HELPERS / 'read_in_ranks.py')),
            *(server.url(name), server.url('missing.pth'), 'torchvision://nothing'),
            server.url(name),
        ],
        capture_output=True, text=True, timeout=200, env=environment(cache),
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line[:4] in ('read', 'refu')]
    assert sum(line == 'read 4' for line in lines) == 4, lines
    assert sum('404' in line for line in lines) == 2, lines
    assert sum('torchvision://nothing' in line for line in lines) == 2, lines
    assert [asked for asked in server.asked if asked[0] == name] == [(name, None)]
