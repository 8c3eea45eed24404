"""What several test files share."""

import os
import runpy
import subprocess
import sys
import warnings
from logging import FileHandler
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from file_server import FileServer
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[1]


# Their tests take seconds each; what starts a process leaves fast runs by itself.
LONG = {
    'adapters/test_timm_backbone.py',
    'backbones/test_contract.py',
    'backbones/test_conversions.py',
    'check/test_check.py',
    'check/test_check_frozen.py',
    'check/test_check_load_from.py',
    'docs/test_docs.py',
    'engine/test_checkpoints.py',
    'engine/test_detectors.py',
    'engine/test_kills.py',
    'engine/test_tools.py',
    'own_data/test_prepare_data.py',
    'pictures/test_visualize_levels.py',
    'runs/test_compare_runs.py',
    'search/test_searching.py',
    'search/test_trial_config.py',
    'swap/test_swap.py',
    'swap/test_swap_data.py',
    'swap/test_swap_recipes.py',
    'weights/test_weights_diagnosis.py',
    'weights/test_weights_dialects.py',
    'weights/test_weights_downloads.py',
    'weights/test_weights_hostile.py',
    'weights/test_weights_offline.py',
    'weights/test_weights_sources.py',
    'weights/test_weights_traps.py',
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--fast', action='store_true', help='no test that starts a process or is long'
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    name = collection_path.relative_to(ROOT / 'tests').as_posix()
    return True if config.getoption('--fast') and name in LONG else None


@pytest.fixture(scope='session', autouse=True)
def _no_process_in_fast_runs(request):
    """Leave a test where it would start a process; nobody has to mark it."""
    if not request.config.getoption('--fast'):
        yield
        return

    def leave(*_, **__) -> None:
        pytest.skip('it starts a process')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, '__init__', leave)
        patch.setattr(BaseProcess, 'start', leave)
        yield


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _gradients_for_the_next_test(request):
    """Tell which test leaves gradients switched off: all that follow would fail."""
    yield
    if not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        warnings.warn(f'{request.node.nodeid} leaves gradients off', stacklevel=1)


@pytest.fixture(autouse=True)
def _no_default_scope_of_another_test():
    """A Runner leaves its scope behind, under which others look types up."""
    # Also one that a fixture of the whole module has built.
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def _no_visualizer_of_another_test():
    """Runners of one second have one name, and would write to a folder that is gone."""
    yield
    if 'mmengine.visualization' in sys.modules:
        classes = [sys.modules['mmengine.visualization'].Visualizer]
        for cls in classes:
            classes += cls.__subclasses__()
            cls._instance_dict.clear()


@pytest.fixture(autouse=True)
def _no_log_of_another_test():
    """A Runner's log files stay open, in folders that pytest removes."""
    yield
    for logger in MMLogger._instance_dict.values():
        for handler in [h for h in logger.handlers if isinstance(h, FileHandler)]:
            logger.removeHandler(handler)
            handler.close()
    MMLogger._instance_dict.clear()


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
