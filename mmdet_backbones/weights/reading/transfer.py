"""Get a file over HTTP: one attempt where nobody answers, and never of two versions."""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import (
    HTTPRedirectHandler,
    Request,
    build_opener,
    getproxies,
    proxy_bypass,
)

from mmengine.logging import print_log

from ...errors import CheckpointError

_BLOCK = 1 << 20
# To wait for the next bytes, for one address of a server, and for all of them.
_SECONDS = 30
_SECONDS_TO_CONNECT = 3
_SECONDS_TO_REACH = 6
_ATTEMPTS = 5


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
    total = int(size) if size and size.isdigit() else None
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
    with _progress(part, start, total) as advance, part.open('ab') as file:
        while block := response.read(_BLOCK):
            file.write(block)
            advance(len(block))
    size = size_of(part)
    if total is not None and size != total:
        raise ConnectionError(f'the connection broke after {size} of {total} bytes')


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
        _reach(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    if _is_forbidden(url):
        raise ConnectionError('HF_HUB_OFFLINE is set')
    _reach(url)
    own = {'User-Agent': 'mmdet_backbones', 'Accept-Encoding': 'identity'}
    request = Request(url, headers={**own, **headers})
    for name, value in _authorization(url).items():
        # The servers that the hub sends us on to are not to know it.
        request.add_unredirected_header(name, value)
    response = build_opener(_Redirects).open(request, timeout=_SECONDS)
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
    answer: Future[None] = Future()

    def connect() -> None:
        try:
            socket.create_connection((host, port), _SECONDS_TO_CONNECT).close()
        # Of a name that is none, a ValueError.
        except (OSError, ValueError) as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)

    # As a daemon, the end of the program does not wait for it.
    threading.Thread(target=connect, daemon=True).start()
    try:
        answer.result(_SECONDS_TO_REACH)
    except (NotInTime, TimeoutError):
        raise TimeoutError(f'no connection to {host}:{port} comes about') from None


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
    if not _is_of_hub(url):
        return {}
    from huggingface_hub import get_token

    token = get_token()
    return {'Authorization': f'Bearer {token}'} if token else {}


def _is_of_hub(url: str) -> bool:
    from huggingface_hub import constants

    return url.startswith(f'{constants.ENDPOINT}/')
