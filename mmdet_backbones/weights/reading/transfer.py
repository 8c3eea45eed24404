"""Get a file over HTTP: one attempt where nobody answers, and never of two versions."""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
import socket
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlparse, urlsplit, urlunsplit
from urllib.request import (
    HTTPRedirectHandler,
    Request,
    build_opener,
    getproxies,
    proxy_bypass,
)

from mmengine.logging import print_log

from ...errors import CheckpointError, printable

_T = TypeVar('_T')
_BLOCK = 1 << 20
# Of the characters of an address, those that stand for themselves.
_KEPT = "%/:=&?~#+!$,;'@()*[]"
# To wait for the next bytes, for one address of a server, and for all of them.
_SECONDS = 30
_SECONDS_TO_CONNECT = 3
_SECONDS_TO_REACH = 6
_ATTEMPTS = 5
# To send the head of an answer, redirections and all.
_SECONDS_TO_ANSWER = 60
# A server that sends less than so many bytes in so many seconds does not mean to end.
_SECONDS_OF_WATCH = 60
_LEAST = 1 << 14
# Of an answer that does not say how long it is.
_LARGEST = 20 << 30
_NUMBER = re.compile(r'[0-9]{1,18}')


class _Version(NamedTuple):
    """Which of the files that an address has had in its life an answer is of."""

    etag: str | None = None
    modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """What ``If-Range`` takes, which no weak tag is."""
        weak = self.etag is None or self.etag.startswith('W/')
        return self.modified if weak else self.etag

    def fits(self, other: _Version) -> bool:
        """Whether nothing that both say differs."""
        pairs = zip(self, other, strict=True)
        return all(a is None or b is None or a == b for a, b in pairs)


def probe(url: str) -> None:
    """Ask for one byte of a file.

    Raises:
        OSError: If the server does not answer or does not have it.
        HTTPException: If what it answers is not HTTP.
        CheckpointError: If it answers with something else.
    """
    with _open(url, {'Range': 'bytes=0-0'}):
        pass


def complete(url: str, part: Path, has_digest: bool) -> None:
    """Download a file, or the rest of it.

    Args:
        url: Its address.
        part: What has arrived, and will be the whole. Of which version it is stands
            beside it until then.
        has_digest: Whether the caller can tell if the whole is of one piece. If not,
            a part of an unknown version is dropped.

    Raises:
        OSError: If the server does not answer, does not have it or breaks off.
        HTTPException: If what it answers is not HTTP.
        CheckpointError: If it answers with something else.
    """
    reached = size_of(part)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _transfer(url, part, has_digest)
            return _note_of(part).unlink(missing_ok=True)
        except HTTPError:
            raise
        except (OSError, HTTPException):
            size = size_of(part)
            # Without progress another attempt will not help either.
            if size in (0, reached) or attempt == _ATTEMPTS:
                raise
            reached = size


def drop(part: Path) -> None:
    """Forget what has arrived."""
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


def size_of(part: Path) -> int:
    """Bytes that have arrived."""
    return part.stat().st_size if part.is_file() else 0


def _transfer(url: str, part: Path, has_digest: bool) -> None:
    before = _read_note(part)
    if before.validator is None and not has_digest:
        drop(part)
    have = size_of(part)
    headers = {'Range': f'bytes={have}-'} if have else {}
    if have and before.validator is not None:
        headers['If-Range'] = before.validator
    try:
        with _open(url, headers) as response:
            start, version = _extent(response)
            if start == 0 and response.status != 206:
                drop(part)
                _note_of(part).write_text(json.dumps(version))
                return _write(response, part, 0, version.total)
            if have and start == have and version.fits(before):
                return _write(response, part, start, version.total)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        if error.headers.get('Content-Range') == f'bytes */{have}':
            return None
    if not have:
        raise ConnectionError('the server gives a part of it where all was asked for')
    # What is here does not fit what the server has.
    drop(part)
    return _transfer(url, part, has_digest)


def _extent(response: HTTPResponse) -> tuple[int | None, _Version]:
    """Read at which byte the answer starts, and of what."""
    size = response.headers.get('Content-Length')
    start: int | None = 0
    if response.status == 206:
        given = response.headers.get('Content-Range') or ''
        found = re.match(r'bytes (\d+)-\d+/(\d+|\*)', given)
        start = int(found[1]) if found else None
        size = found[2] if found else None
    if size and size != '*' and not _NUMBER.fullmatch(size):
        raise CheckpointError(
            f"the server says that the file has '{printable(size)}' bytes, which is no "
            'number: download it by hand and write its path as checkpoint'
        )
    total = int(size) if size and size != '*' else None
    headers = response.headers
    return start, _Version(headers.get('ETag'), headers.get('Last-Modified'), total)


def _note_of(part: Path) -> Path:
    return part.with_name(f'{part.name}.json')


def _read_note(part: Path) -> _Version:
    try:
        etag, modified, total = json.loads(_note_of(part).read_text())
    # None was written, or a process was killed while it wrote.
    except (OSError, ValueError):
        return _Version()
    return _Version(etag, modified, total)


def _write(response: HTTPResponse, part: Path, start: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise OSError(
            errno.ENOSPC, f'{total - start} bytes are to come and {free} are free'
        )
    watch = _Watch()
    with _progress(part, start, total) as advance, part.open('ab') as file:
        # What has come, where `read` waits until a whole block has.
        while block := response.read1(_BLOCK):
            file.write(block)
            advance(len(block))
            watch.saw(len(block))
            if total is None and file.tell() > _LARGEST:
                drop(part)
                raise CheckpointError(
                    f'the server does not say how long the file is, and sent more than '
                    f'{_LARGEST} bytes'
                )
    size = size_of(part)
    if total is not None and size != total:
        raise ConnectionError(f'the connection broke after {size} of {total} bytes')


class _Watch:
    """Ends a transfer that goes on without coming to anything."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.since, self.bytes = time.monotonic(), 0

    def saw(self, count: int) -> None:
        """Note what has come.

        Raises:
            TimeoutError: If it was next to nothing in all the time of the watch.
        """
        self.bytes += count
        seconds = time.monotonic() - self.since
        if seconds < _SECONDS_OF_WATCH:
            return
        if self.bytes < _LEAST:
            raise TimeoutError(f'{self.bytes} bytes came in {seconds:.0f} seconds')
        self._begin()


@contextmanager
def _progress(part: Path, start: int, total: int | None) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    name = part.name.removesuffix('.part')
    size = f'{total / 1e6:.1f} MB' if total else 'unknown size'
    rest = f', of which {start / 1e6:.1f} MB are here' if start else ''
    print_log(
        f'Downloading {name} ({size}{rest}) to {part.parent}', 'current', logging.INFO
    )
    columns = (
        TextColumn('{task.description}'), BarColumn(), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=total, completed=start)
        yield lambda count: bar.advance(task, count)


class _Redirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if urlparse(newurl).scheme not in ('http', 'https'):
            raise ConnectionError(f'it is moved to {newurl}, which is no web address')
        _reach(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    if _is_forbidden(url):
        raise ConnectionError('HF_HUB_OFFLINE is set')
    _reach(url)
    own = {'User-Agent': 'mmdet_backbones', 'Accept-Encoding': 'identity'}
    request = Request(_plain(url), headers={**own, **headers})
    for name, value in _authorization(url).items():
        # The servers that the hub sends us on to are not to know it.
        request.add_unredirected_header(name, value)
    opener = build_opener(_Redirects)
    response: HTTPResponse = _in_time(
        lambda: opener.open(request, timeout=_SECONDS),
        _SECONDS_TO_ANSWER,
        'the server does not come to the end of its answer',
    )
    try:
        _refuse_other_content(url, response)
    except CheckpointError:
        response.close()
        raise
    return response


def _reach(url: str) -> None:
    """Raise soon if no connection comes about; nothing is asked for.

    An attempt to connect waits for each address of a server in turn, of which large
    ones have a dozen, and asking for the addresses waits for each name server.
    """
    host, port = _next_hop(url)
    _in_time(
        lambda: socket.create_connection((host, port), _SECONDS_TO_CONNECT).close(),
        _SECONDS_TO_REACH,
        f'no connection to {host}:{port} comes about',
    )


def _in_time(step: Callable[[], _T], seconds: float, problem: str) -> _T:
    """Do something that waits for others, and wait no longer than that for it."""
    answer: Future[_T] = Future()

    def go() -> None:
        try:
            answer.set_result(step())
        except BaseException as error:  # raised again where it is waited for
            answer.set_exception(error)

    # As a daemon, the end of the program does not wait for it.
    threading.Thread(target=go, daemon=True).start()
    try:
        return answer.result(seconds)
    except (NotInTime, TimeoutError):
        raise TimeoutError(problem) from None


def _plain(url: str) -> str:
    """Spell an address as servers take it: in ASCII, and without a password."""
    parts = urlsplit(url)
    host = (parts.hostname or '').encode('idna').decode()
    host = f'[{host}]' if ':' in host else host
    place = host if parts.port is None else f'{host}:{parts.port}'
    path, query = (quote(part, safe=_KEPT) for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, place, path, query, ''))


def _next_hop(url: str) -> tuple[str, int]:
    """The server, or the proxy that stands before it."""
    parts = urlparse(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.netloc):
        parts = urlparse(proxy if '://' in proxy else f'http://{proxy}')
    port = parts.port or (443 if parts.scheme == 'https' else 80)
    return parts.hostname or '', port


def _refuse_other_content(url: str, response: HTTPResponse) -> None:
    if response.headers.get_content_type() == 'text/html':
        raise CheckpointError(
            f"'{url}' answers with a web page, not with a file: it may want a login, "
            'or is the page about the file. Write the address of the file itself '
            '(on GitHub and Hugging Face the one behind the download button)'
        )
    packed = response.headers.get('Content-Encoding', 'identity')
    if packed.lower() != 'identity':
        raise CheckpointError(
            f"'{url}' comes packed with {packed}, though the plain file was asked for"
        )


def _is_forbidden(url: str) -> bool:
    """Whether HF_HUB_OFFLINE says that the hub is not to be asked."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) and _is_of_hub(url)


def _authorization(url: str) -> dict[str, str]:
    """Return the header that opens the user's own and gated repositories."""
    parts = urlsplit(url)
    if parts.username:
        pair = f'{unquote(parts.username)}:{unquote(parts.password or "")}'
        return {'Authorization': f'Basic {b64encode(pair.encode()).decode()}'}
    if not _is_of_hub(url):
        return {}
    from huggingface_hub import get_token

    token = get_token()
    return {'Authorization': f'Bearer {token}'} if token else {}


def _is_of_hub(url: str) -> bool:
    from huggingface_hub import constants

    return url.startswith(f'{constants.ENDPOINT}/')
