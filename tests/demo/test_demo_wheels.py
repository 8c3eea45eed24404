"""Wheels with data are fetched once, checked, and unpacked without surprises."""

import subprocess
import zipfile
from pathlib import Path

import pytest
import wheels

NAME = 'tiny_data-1.0-py3-none-any.whl'


def build_wheel(folder, content=b'some data'):
    """Write a wheel that pip accepts, and return its pin."""
    path = folder / NAME
    info = 'tiny_data-1.0.dist-info'
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('tiny_data/data.bin', content)
        file.writestr('../evil.txt', 'evil')
        file.writestr(
            f'{info}/METADATA', 'Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n'
        )
        file.writestr(
            f'{info}/WHEEL',
            'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
        )
        file.writestr(f'{info}/RECORD', '')
    return wheels.Wheel('tiny-data', '1.0', NAME, wheels.sha256_of(path))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its only index, and a cache of our own."""
    folder = tmp_path / 'index'
    folder.mkdir()
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', folder.as_uri())
    monkeypatch.setenv(wheels.CACHE_ENV, str(tmp_path / 'cache'))
    return folder


def forbid_pip(monkeypatch):
    def run(*args, **kwargs):
        raise AssertionError('pip was started')

    monkeypatch.setattr(subprocess, 'run', run)


def test_cache_dir_follows_the_environment(monkeypatch):
    monkeypatch.delenv(wheels.CACHE_ENV, raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', '/some/cache')
    assert wheels.cache_dir() == Path('/some/cache/mmdet_backbones/wheels')
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert wheels.cache_dir() == Path.home() / '.cache/mmdet_backbones/wheels'
    monkeypatch.setenv(wheels.CACHE_ENV, '/mine')
    assert wheels.cache_dir() == Path('/mine/wheels')


def test_fetch_gets_the_wheel_once_and_then_works_offline(index, monkeypatch):
    pin = build_wheel(index)
    path = wheels.fetch(pin)
    assert path == wheels.cache_dir() / NAME
    assert [file.name for file in path.parent.iterdir()] == [NAME]
    forbid_pip(monkeypatch)
    assert wheels.fetch(pin) == path


@pytest.mark.parametrize('half', [b'', b'PK half a file'])
def test_fetch_replaces_a_damaged_file(index, half):
    pin = build_wheel(index)
    cached = wheels.cache_dir() / NAME
    cached.parent.mkdir(parents=True)
    cached.write_bytes(half)
    # What a copy that was killed leaves.
    (cached.parent / f'.{NAME}.1.partial').write_bytes(b'half')
    assert wheels.sha256_of(wheels.fetch(pin)) == pin.sha256


def test_fetch_keeps_nothing_that_has_the_wrong_hash(index):
    pin = build_wheel(index)
    build_wheel(index, b'other data')
    with pytest.raises(wheels.DownloadError, match='sha256'):
        wheels.fetch(pin)
    assert not (wheels.cache_dir() / NAME).exists()


def test_fetch_without_network_says_what_to_do(index):
    pin = wheels.Wheel('tiny-data', '1.0', NAME, '0' * 64)
    with pytest.raises(wheels.DownloadError) as caught:
        wheels.fetch(pin)
    message = str(caught.value)
    assert '\n' not in message
    assert 'pip download --no-deps tiny-data==1.0' in message
    assert f'put {NAME} into {wheels.cache_dir()}' in message


def test_extract_writes_the_member_where_the_caller_wants_it(tmp_path):
    build_wheel(tmp_path / 'index')
    target = tmp_path / 'deep' / 'name.bin'
    wheels.extract(tmp_path / 'index' / NAME, 'tiny_data/data.bin', target)
    assert target.read_bytes() == b'some data'
    assert {path.name for path in tmp_path.iterdir()} == {'index', 'deep'}
    assert [path.name for path in target.parent.iterdir()] == ['name.bin']


def test_extract_replaces_another_file_only_by_force(tmp_path):
    build_wheel(tmp_path)
    target = tmp_path / 'mine.bin'
    target.write_bytes(b'mine')
    with pytest.raises(FileExistsError, match='--force'):
        wheels.extract(tmp_path / NAME, 'tiny_data/data.bin', target)
    assert target.read_bytes() == b'mine'
    wheels.extract(tmp_path / NAME, 'tiny_data/data.bin', target, force=True)
    assert target.read_bytes() == b'some data'


@pytest.mark.parametrize('member', ['../evil.txt', '/etc/passwd', 'a\\..\\evil.txt'])
def test_members_that_lead_outside_are_refused(tmp_path, member):
    build_wheel(tmp_path)
    with pytest.raises(ValueError, match='relative path'):
        wheels.read_members(tmp_path / NAME, [member])


def test_missing_members_and_damaged_archives_are_named(tmp_path):
    build_wheel(tmp_path)
    with pytest.raises(wheels.DownloadError, match=r'nothing\.bin'):
        wheels.read_members(tmp_path / NAME, ['nothing.bin'])
    damaged = bytearray((tmp_path / NAME).read_bytes())
    damaged[damaged.index(b'some data')] ^= 1
    (tmp_path / 'bad.whl').write_bytes(damaged)
    with pytest.raises(wheels.DownloadError, match='damaged'):
        wheels.read_members(tmp_path / 'bad.whl', ['tiny_data/data.bin'])
