"""The files that an export copies run, without this package, where they lie."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from exported_folders import draw, write_exported
from PIL import Image

from mmdet_backbones.runtime import examples, load

EXAMPLES = [
    Path(examples.__file__).with_name(f'example.{end}') for end in ('py', 'cpp')
]

PICTURE = draw(64, 96, (16, 8, 56, 24), (4, 40, 12, 60)).repeat(3, 0).repeat(2, 1)
FIXED = dict(batch=2, height=64, width=96)
KINDS = [
    ('onnx', {}),
    ('onnx', dict(input=FIXED)),
    ('onnx', dict(resize=dict(keep_ratio=False))),
    ('onnx', dict(resize=dict(pad=True, size_divisor=None))),
    pytest.param('openvino', {}, marks=pytest.mark.slow),
    pytest.param('torch', {}, marks=pytest.mark.slow),
]


@pytest.fixture
def image(tmp_path) -> Path:
    Image.fromarray(PICTURE).save(tmp_path / 'image.ppm')
    return tmp_path / 'image.ppm'


def wanted(folder, names=True) -> list[str]:
    (found,) = load(folder, trust=True).predict([PICTURE], 0.3)
    assert len(found.scores) == 2
    return [
        f'{found.names[label] if names else label} {score:.3f} '
        + ' '.join(f'{side:.1f}' for side in box)
        for box, score, label in zip(
            found.boxes, found.scores, found.labels, strict=True
        )
    ]


def test_they_are_short():
    for path in EXAMPLES:
        text = path.read_text(encoding='utf-8')
        assert len(text.splitlines()) <= 90
        assert 'mmdet' not in text


@pytest.mark.parametrize(('kind', 'changes'), KINDS)
def test_the_example_in_python(tmp_path, image, monkeypatch, capsys, kind, changes):
    folder = write_exported(tmp_path / 'f', kind, **changes)
    example = shutil.copy(EXAMPLES[0], folder)
    monkeypatch.setattr(sys, 'argv', [example, str(image), '0.3'])
    runpy.run_path(example, run_name='__main__')
    assert capsys.readouterr().out.splitlines() == wanted(folder)


@pytest.mark.slow
def test_the_example_in_cpp(tmp_path, image):
    if shutil.which('g++') is None:
        pytest.skip('there is no C++ compiler')
    import openvino

    package = Path(openvino.__file__).parent
    (library,) = (package / 'libs').glob('libopenvino.so*')
    if not (package / 'include').is_dir():
        pytest.skip('this wheel of OpenVINO has no headers')
    program = tmp_path / 'example'
    subprocess.run(
        ['g++', '-std=c++17', '-Wall', '-Werror', str(EXAMPLES[1]), '-o', str(program),
         '-I', str(package / 'include'), str(library),
         f'-Wl,-rpath,{library.parent}'],
        check=True, timeout=200,
    )  # fmt: skip
    for number, (kind, changes) in enumerate([('openvino', {}), *KINDS[:4]]):
        folder = write_exported(tmp_path / str(number), kind, **changes)
        run = subprocess.run(
            [str(program), str(folder), str(image), '0.3'],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert run.stdout.splitlines() == wanted(folder, names=False)
    assert subprocess.run([str(program)], check=False).returncode == 2
