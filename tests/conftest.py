"""What several test files share."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_default_scope_of_another_test():
    """A Runner leaves its scope behind, under which others look types up."""
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture
def run_python():
    """Run code or a tool in a fresh process, from the clone's root."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, 'PYTHONWARNINGS': 'ignore', **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Run a tool in this process, which saves importing mmdet once more."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, 'argv', list(arguments))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(arguments[0], run_name='__main__')
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, stop.value.code, out, err)

    return run
