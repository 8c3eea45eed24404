"""A machine without torch and mmdet runs an exported folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from exported_folders import draw, write_exported
from PIL import Image
from test_wheel import PARTS

CLONE = Path(__file__).parents[2]
CODE = """
import json, sys
from mmdet_backbones.runtime import load
found, = load(sys.argv[1], threads=1).predict([sys.argv[2]], 0.3)
hosts = {'torch', 'mmengine', 'mmcv', 'mmdet', 'cv2', 'lazy_loader', 'rich'}
print(json.dumps([found.boxes.tolist(), found.labels.tolist(),
                  sorted(hosts & set(sys.modules))]))
"""


def copy_of_the_clone(source: Path) -> Path:
    """Copy what a wheel is made of: pip would leave its work in the clone."""
    source.mkdir()
    for part in PARTS:
        if (CLONE / part).is_dir():
            leave = shutil.ignore_patterns('__pycache__')
            shutil.copytree(CLONE / part, source / part, symlinks=True, ignore=leave)
        else:
            shutil.copy(CLONE / part, source)
    return source


@pytest.mark.slow
def test_an_environment_without_torch_and_mmdet(tmp_path):
    environment = tmp_path / 'env'
    subprocess.run([sys.executable, '-m', 'venv', str(environment)], check=True)
    python = environment / 'bin' / 'python'
    install = [str(python), '-m', 'pip', 'install', '-q']
    subprocess.run(
        [*install, '--no-deps', str(copy_of_the_clone(tmp_path / 'source'))],
        check=True, timeout=200,
    )  # fmt: skip
    needed = ['numpy', 'pillow', 'onnxruntime']
    subprocess.run([*install, *needed], check=True, timeout=280)
    folder = write_exported(tmp_path / 'exported')
    image = draw(64, 96, (16, 8, 56, 24)).repeat(2, 0).repeat(2, 1)
    Image.fromarray(image).save(tmp_path / 'image.png')
    run = subprocess.run(
        [str(python), '-c', CODE, str(folder), str(tmp_path / 'image.png')],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    boxes, labels, hosts = json.loads(run.stdout)
    assert boxes == [[32.0, 16.0, 112.0, 48.0]]
    assert labels == [1]
    assert hosts == []
