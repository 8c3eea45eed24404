"""A cache and a server of their own for the tests that download."""

from pathlib import Path

import pytest
from file_server import FileServer


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for torch's hub, and no proxy between us and our server."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'mmengine'))
    monkeypatch.setenv('no_proxy', '*')
    return tmp_path / 'torch' / 'hub' / 'checkpoints'


@pytest.fixture
def server():
    state = FileServer()
    running = state.start()
    yield state
    running.shutdown()
    running.server_close()
