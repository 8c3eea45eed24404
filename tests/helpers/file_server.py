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
        asked: Name and Range header of each request.
        sent: Bytes of content.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    breaks_after: int | None = None
    seconds: float = 0
    modified: float | None = None
    content_type: str = 'application/octet-stream'
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    port: int = 0

    def url(self, name: str) -> str:
        return f'http://127.0.0.1:{self.port}/{name}'

    def start(self) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(('127.0.0.1', 0), _handler(self))
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


def _handler(state: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, wanted = self.path.lstrip('/'), self.headers.get('Range')
            state.asked.append((name, wanted))
            time.sleep(state.seconds)
            if name not in state.files:
                return self.send_error(404)
            content, start = state.files[name], 0
            if state.ranges and wanted:
                start = int(re.match(r'bytes=(\d+)-', wanted)[1])
                if start >= len(content):
                    return self.refuse_range(len(content))
                self.send_response(206)
                end = f'{len(content) - 1}/{len(content)}'
                self.send_header('Content-Range', f'bytes {start}-{end}')
            else:
                self.send_response(200)
            return self.send(content[start:])

        def refuse_range(self, size: int) -> None:
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{size}')
            self.send_header('Content-Length', '0')
            self.end_headers()

        def send(self, content: bytes) -> None:
            self.send_header('Content-Length', str(len(content)))
            self.send_header('Content-Type', state.content_type)
            if state.modified is not None:
                self.send_header(
                    'Last-Modified', formatdate(state.modified, usegmt=True)
                )
            self.end_headers()
            content = content[: state.breaks_after]
            self.wfile.write(content)
            state.sent += len(content)
            if state.breaks_after is not None:
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    return Handler
