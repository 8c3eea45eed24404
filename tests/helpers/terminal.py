"""Runs a program on a terminal of its own."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

COLUMNS, LINES = 120, 40


def run_on_terminal(*command: str, timeout: float = 300) -> tuple[int, str]:
    """Run Python with a command line; give the exit status and what was drawn."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack('HHHH', LINES, COLUMNS, 0, 0))
    # What says to rich that there is no terminal, or one without colours, stays out.
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ('COLUMNS', 'LINES', 'NO_COLOR', 'TTY_COMPATIBLE', 'FORCE_COLOR')
    }
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**environment, 'TERM': 'xterm-256color'},
    )
    os.close(its)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side has been closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    return process.wait(timeout), b''.join(parts).decode(errors='replace')
