"""A file server on this machine, with the faults that servers have."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Files by name, and what the clients asked for.

    Attributes:
        ranges: Whether parts of files are served.
        breaks_after: Bytes after which each connection is cut, None for never.
        seconds: Pause before an answer.
        modified: Time of the last change that the server reports, None for none.
        content_type: Of all files.
        etag: Of all files, None for none.
        encoding: How all files are packed, or said to be.
        heeds_if_range: Whether a part is served only of the version that is meant.
        says_length: Whether the size of an answer is told.
        starts_at: Byte at which every answer starts, whatever was asked.
        moved: Addresses of what lies elsewhere, by name.
        says_total: What a part is said to be of, None for the truth.
        stalls_after: Bytes after which nothing more comes until ``go_on`` is set.
        asked: Name and Range header of each request.
        conditions: If-Range header of each request.
        authorized: Authorization header of each request.
        sent: Bytes of content.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    breaks_after: int | None = None
    seconds: float = 0
    modified: float | None = None
    content_type: str = 'application/octet-stream'
    etag: str | None = None
    encoding: str | None = None
    heeds_if_range: bool = True
    says_total: int | None = None
    says_length: bool = True
    starts_at: int | None = None
    moved: dict[str, str] = field(default_factory=dict)
    stalls_after: int | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    conditions: list[str | None] = field(default_factory=list)
    authorized: list[str | None] = field(default_factory=list)
    sent: int = 0
    port: int = 0

    def url(self, name: str) -> str:
        return f'http://127.0.0.1:{self.port}/{name}'

    @property
    def last_modified(self) -> str | None:
        return None if self.modified is None else formatdate(self.modified, usegmt=True)

    def start(self) -> ThreadingHTTPServer:
        handler = type('Handler', (_Handler,), dict(state=self))
        server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


class _Handler(BaseHTTPRequestHandler):
    state: FileServer

    def do_GET(self) -> None:
        state, name = self.state, self.path.lstrip('/')
        state.asked.append((name, self.headers.get('Range')))
        state.conditions.append(self.headers.get('If-Range'))
        state.authorized.append(self.headers.get('Authorization'))
        time.sleep(state.seconds)
        if name in state.moved:
            self.send_response(302)
            self.send_header('Location', state.moved[name])
            return self.end_headers()
        if name not in state.files:
            return self.send_error(404)
        return self.answer(state.files[name], self.start_of_part())

    def start_of_part(self) -> int | None:
        """The byte at which a part begins; None if the whole is to be sent."""
        state, wanted = self.state, self.headers.get('Range')
        meant = self.headers.get('If-Range')
        if state.starts_at is not None:
            return state.starts_at
        other = meant and meant not in (state.etag, state.last_modified)
        if not state.ranges or not wanted or (state.heeds_if_range and other):
            return None
        return int(re.match(r'bytes=(\d+)-', wanted)[1])

    def answer(self, content: bytes, start: int | None) -> None:
        size = len(content)
        if start is None:
            self.send_response(200)
        elif start >= size:
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{size}')
            self.send_header('Content-Length', '0')
            return self.end_headers()
        else:
            self.send_response(206)
            end = f'{size - 1}/{self.state.says_total or size}'
            self.send_header('Content-Range', f'bytes {start}-{end}')
        return self.send(content[start or 0 :])

    def send(self, content: bytes) -> None:
        state = self.state
        headers = {
            'Content-Length': str(len(content)) if state.says_length else None,
            'Content-Type': state.content_type,
            'Last-Modified': state.last_modified,
            'ETag': state.etag,
            'Content-Encoding': state.encoding,
        }
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        content = content[: state.breaks_after]
        if state.stalls_after is not None:
            self.wfile.write(content[: state.stalls_after])
            content = content[state.stalls_after :]
            state.go_on.wait(60)
        self.wfile.write(content)
        state.sent += len(content)
        if state.breaks_after is not None:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""
