"""Addresses that are odd, and servers that do not mean to come to an end."""

import base64
import itertools
import socket
import threading
import time

import pytest
import torch
from weight_files import assert_same, file_bytes, files_in, hashed, make_weights

from mmdet_backbones.weights import CheckpointError, locate_checkpoint, read_checkpoint
from mmdet_backbones.weights.reading import transfer

HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n'


@pytest.fixture
def raw(cache):
    """Serve what is no proper HTTP: pieces of bytes, until the client has enough."""
    listener = socket.create_server(('127.0.0.1', 0))
    pieces: list = []
    done = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                # A mere attempt to connect asks for nothing.
                if not connection.recv(4096):
                    return
                for piece in pieces[0]():
                    connection.sendall(piece)
                    if done.is_set():
                        return
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()

    def url(content) -> str:
        pieces[:] = [content if callable(content) else lambda: [content]]
        return f'http://127.0.0.1:{listener.getsockname()[1]}/net.pth'

    yield url
    done.set()
    listener.close()


def refused(source: str, *words: str, seconds: float = 4) -> str:
    start = time.perf_counter()
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(source)
    assert time.perf_counter() - start < seconds
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 1500
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize(
    ('source', 'word'),
    [
        ('http://[::1/net.pth', 'cannot be downloaded'),
        ('http://[::g]/net.pth', 'cannot be downloaded'),
        ('http://127.0.0.1:0/net.pth', 'names no file'),
        ('http://127.0.0.1:-1/net.pth', 'cannot be downloaded'),
        ('http://127.0.0.1:99999999999999999999/net.pth', 'cannot be downloaded'),
        ('http://127.0.0.1:1/net%00.pth', 'such characters'),
        ('http://127.0.0.1:1/net%1b[31m.pth', 'such characters'),
        ('http://127.0.0.1:1/net%0a.pth', 'such characters'),
        ('http://127.0.0.1:1/a\\b.pth', 'such characters'),
        ('http://127.0.0.1:1/%5c..%5cb.pth', 'such characters'),
        (f'http://127.0.0.1:1/{"n" * 300}.pth', '304 bytes'),
        (f'http://127.0.0.1:1/{"n" * 100_000}.pth', 'bytes'),
        (f'http://127.0.0.1:1/{"%C3%A4" * 110}.pth', '224 bytes'),
        (f'http://{"a." * 2000}de/net.pth', '4002 bytes'),
        ('http://\xe4\xf6.invalid/net.pth', 'cannot be downloaded'),
        ('http:///net.pth', 'names no file'),
        ('http://host/..', 'names no file'),
        ('file:///etc/passwd', 'is not supported'),
        ('ftp://host/net.pth', 'is not supported'),
        ('\x1b[31m://host/net.pth', 'is not supported'),
        ('timm://', 'cannot be had'),
        ('timm://\x00', 'cannot be had'),
        ('hf://../..', 'cannot be'),
        ('torchvision://\x1b[31m', 'cannot be had'),
    ],
)
def test_addresses_that_are_none(cache, source, word):
    refused(source, word, seconds=8)


def test_names_are_below_the_cache(cache):
    for name in ('..%2f..%2fnet.pth', '%2e%2e/%2e%2e/net.pth', 'a/../../../net.pth'):
        found = refused(f'http://127.0.0.1:1/{name}', 'put it at')
        place = found.rpartition('put it at ')[2]
        assert place.startswith(f'{cache}/'), place
        assert '..' not in place


def test_addresses_in_other_letters(tmp_path, cache, server):
    server.files['n%C3%A4h%20e.pth'] = file_bytes(tmp_path)
    found = read_checkpoint(server.url('n\xe4h e.pth'))
    assert_same(
        {k: v for k, v in found.state_dict.items() if k != 'large'}, make_weights()
    )


def test_a_password_is_used_and_not_shown(tmp_path, cache, server):
    server.files['net.pth'] = file_bytes(tmp_path)
    url = server.url('net.pth').replace('://', '://me:se%20cret@')
    found = read_checkpoint(url)
    expected = base64.b64encode(b'me:se cret').decode()
    assert server.authorized == [f'Basic {expected}']
    assert 'cret' not in found.source
    del server.files['net.pth']
    for path in cache.rglob('net.pth'):
        path.unlink()
    message = refused(url, '404')
    assert 'cret' not in message


@pytest.mark.parametrize('length', ['abc', '-5', '1e9', '9' * 5000, '\xb2', '1, 2'])
def test_lengths_that_are_no_numbers(raw, length):
    answer = HEAD + f'Content-Length: {length}\r\n\r\n'.encode('latin1') + b'x' * 100
    refused(raw(answer), 'is no number')


def test_more_than_the_disk_has(raw):
    answer = HEAD + b'Content-Length: 900000000000000000\r\n\r\nx'
    refused(raw(answer), 'are free')


def test_a_server_that_drips(raw, monkeypatch):
    monkeypatch.setattr(transfer, '_SECONDS_OF_WATCH', 0.5)

    def drip():
        yield HEAD + b'Content-Length: 1000000\r\n\r\n'
        for _ in range(1000):
            time.sleep(0.05)
            yield b'x'

    refused(raw(drip), 'bytes came in')


def test_a_head_that_drips(raw, monkeypatch):
    monkeypatch.setattr(transfer, '_SECONDS_TO_ANSWER', 0.5)

    def drip():
        yield HEAD
        for number in range(1000):
            time.sleep(0.05)
            yield f'X-{number}: a\r\n'.encode()

    refused(raw(drip), 'does not come to the end')


@pytest.mark.parametrize('chunked', [True, False])
def test_answers_without_an_end(raw, cache, monkeypatch, chunked):
    monkeypatch.setattr(transfer, '_LARGEST', 5_000_000)
    block = bytes(100_000)
    coding = b'Transfer-Encoding: chunked\r\n' if chunked else b''
    chunk = b'%x\r\n%b\r\n' % (len(block), block) if chunked else block
    url = raw(
        lambda: itertools.chain([HEAD + coding + b'\r\n'], itertools.repeat(chunk))
    )
    refused(url, 'does not say how long')
    assert files_in(cache) == []


@pytest.mark.parametrize(
    'answer',
    [
        b'', b'\x00' * 1000, b'HTTP/1.1 \x1b[31m\r\n\r\n', b'HTTP/1.1 200\r\n' * 200,
        b'HTTP/1.1 404 \x1b[31mgone\r\n\r\n', b'HTTP/1.1 999 \r\n\r\n',
        b'HTTP/1.1 200 OK\r\n' + b'a' * 100_000,
        HEAD + b'Content-Encoding: \x1b[31m\r\n\r\n',
        HEAD + b'Transfer-Encoding: chunked\r\n\r\nzzz\r\n',
        HEAD + b'Transfer-Encoding: chunked\r\n\r\n' + b'f' * 30 + b'\r\n',
    ],
)  # fmt: skip
def test_answers_that_are_none(raw, answer):
    refused(raw(answer))


@pytest.mark.parametrize(
    'place', ['ftp://127.0.0.1/net.pth', 'file:///etc/passwd', '/net.pth', '\x1b[31m']
)
def test_redirections_that_lead_nowhere(cache, server, place):
    server.moved['net.pth'] = place
    refused(server.url('net.pth'), 'cannot be downloaded')


def test_passwords_do_not_follow_a_redirection(tmp_path, cache, server):
    content = file_bytes(tmp_path)
    server.files[hashed(content)] = content
    server.moved['net.pth'] = server.url(hashed(content))
    read_checkpoint(server.url('net.pth').replace('://', '://me:secret@'))
    assert [bool(header) for header in server.authorized] == [True, False]


def test_where_a_file_would_be_is_said_without_the_network(cache):
    url = 'https://host.invalid:443/net.pth?token=1#part'
    assert locate_checkpoint(url) == url
    assert torch.hub.get_dir() in str(cache)
