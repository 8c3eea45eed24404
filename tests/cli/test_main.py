"""The one command: help, names, and JSON of every subcommand."""

import json
import shlex
import shutil
import subprocess
import sys
from importlib import import_module

import pytest
from conftest import ROOT
from squares import SMALL, draw_squares, write_config

from mmdet_backbones.cli.main import add_flags, main
from mmdet_backbones.commands import SCRIPTS, command

BASE = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'


def parser_of(name):
    import argparse

    module = import_module(f'mmdet_backbones.cli.{name}')
    parser = argparse.ArgumentParser()
    add_flags(parser, module)
    return parser, module


def test_help_of_all_imports_no_torch(run_python):
    code = (
        'import contextlib, io, sys\n'
        'from mmdet_backbones.cli.main import main\n'
        'for words in ([], *([name] for name in sys.argv[1:])):\n'
        '    said = io.StringIO()\n'
        '    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):\n'
        '        main([*words, "--help"])\n'
        '    assert "Usage" in said.getvalue(), words\n'
        'heavy = {"torch", "mmengine", "mmdet", "numpy", "timm"} & set(sys.modules)\n'
        'assert not heavy, heavy\n'
    )
    done = run_python('-c', code, *SCRIPTS)
    assert done.returncode == 0, done.stderr


def test_help_fits_80_columns_and_names_every_subcommand(capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    with pytest.raises(SystemExit) as stop:
        main(['--help'])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert [name for name in SCRIPTS if f'\n  {name} ' not in text] == []


@pytest.mark.parametrize('name', SCRIPTS)
def test_examples_can_be_parsed(name):
    parser, module = parser_of(name)
    assert module.EXAMPLES
    for example in module.EXAMPLES:
        program, subcommand, *words = shlex.split(example)
        assert (program, subcommand) == ('mmdet-backbones', name)
        parser.parse_intermixed_args(words)


@pytest.mark.parametrize('name', SCRIPTS)
def test_the_script_of_a_clone_is_the_same(name, monkeypatch):
    script = f'tools/{SCRIPTS[name]}'
    assert f"main(['{name}', *sys.argv[1:]])" in (ROOT / script).read_text()


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['trian'], "no subcommand 'trian'; nearest: train"),
        (['train', 'x.py', '--no-chek'], 'nearest to --no-chek: --no-check'),
        (['list', '--sorce', 'timm'], 'nearest to --sorce: --source'),
    ],
)
def test_misspelt_names_get_the_nearest(words, told, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


def test_next_steps_are_written_as_the_process_was_started(monkeypatch):
    for started, written in {
        '/opt/bin/mmdet-backbones': 'mmdet-backbones swap',
        'tools/train.py': 'python tools/swap_backbone.py',
        '/x/mmdet_backbones/__main__.py': 'python -m mmdet_backbones swap',
        '/other/train.py': 'python -m mmdet_backbones swap',
    }.items():
        monkeypatch.setattr(sys, 'argv', [started])
        assert command('swap') == written


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Synthetic data, a config of it, and a checkpoint."""
    import timm
    import torch

    folder = tmp_path_factory.mktemp('json')
    squares = folder / 'squares'
    squares.mkdir()
    write_config(folder / 'c.py', draw_squares(squares))
    (folder / 'own').mkdir()
    for number in range(1, 5):
        shutil.copy(squares / 'train' / f'{number}.png', folder / 'own')
        (folder / 'own' / f'{number}.txt').write_text('0 0.3 0.3 0.2 0.2\n')
    (folder / 'own' / 'classes.txt').write_text('tree\n')
    torch.save(timm.create_model('resnet18').state_dict(), folder / 'resnet18.pth')
    return folder


CALLS = {
    'list': ['list', 'timm/resnet18*'],
    'list nothing': ['list', 'nosuchnet'],
    'inspect': ['inspect', 'timm/resnet18'],
    'inspect nothing': ['inspect', 'timm/resnet1888'],
    'swap': ['swap', BASE, 'timm/resnet18', '-o', 'swapped.py', '--force'],
    'swap dry': ['swap', BASE, 'timm/resnet18', '-o', 'dry.py', '--dry-run'],
    'check': ['check', 'c.py', '--fast'],
    'check nothing': ['check', 'nothing.py'],
    'benchmark': ['benchmark', 'timm/resnet18', '--size', '64', '64', '--rounds', '1'],
    'lr': ['lr', 'c.py'],
    'data': ['data', 'own', '-o', 'prepared', '--force'],
    'convert': ['convert', 'resnet18.pth', '--to', 'timm/resnet18', '-o', 'x.pth',
                '--force'],
    'convert keys': ['convert', 'resnet18.pth', '--list-keys'],
    'levels': ['levels', 'c.py', 'squares/val/1.png', '--size', '64', '--force'],
    'compare nothing': ['compare', 'squares'],
    'train nothing': ['train', 'nothing.py'],
    'test nothing': ['test', 'nothing.py', 'nothing.pth'],
    'predict nothing': ['predict', 'c.py', 'squares/val'],
    'app nothing': ['app', 'c.py'],
}  # fmt: skip
FAIL = ('nothing',)


@pytest.mark.parametrize(
    'call',
    [
        pytest.param(call, marks=[pytest.mark.slow] * (call == 'benchmark'))
        for call in CALLS
    ],
)
def test_json_is_alone_on_stdout(call, folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    status = main([*CALLS[call], '--json'])
    said = capfd.readouterr()
    found = json.loads(said.out)
    assert status == (1 if call.endswith(FAIL) else 0), said.err
    assert ('error' in found) == ('error: ' in said.err)


def test_a_failed_demo_is_json_too(folder, monkeypatch, capfd):
    from mmdet_backbones.cli import demo

    monkeypatch.chdir(folder)
    monkeypatch.setattr(demo, 'CONFIG', 'mmdet_backbones::yolox/nothing.py')
    (folder / 'data').write_text('in the way of the data set')
    assert main(['demo', '--json']) == 1
    assert 'ended with exit status' in json.loads(capfd.readouterr().out)['error']


@pytest.mark.slow
def test_json_of_a_training_and_a_test(folder, monkeypatch):
    def run(*words):
        done = subprocess.run(
            [sys.executable, '-m', 'mmdet_backbones', *words, '--json',
             '--cfg-options', *SMALL, 'train_cfg.max_epochs=2',
             'train_cfg.val_interval=2'],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout), done.stderr

    found, said = run('train', 'c.py', '--gpus', '1', '--no-scale-lr')
    assert found['reached'] == 2
    before = said.splitlines()
    first = next(i for i, text in enumerate(before) if 'Epoch(train)' in text)
    assert first <= 60
    assert 'python -m mmdet_backbones test c.py' in said
    metrics, _ = run('test', 'c.py', found['checkpoint'])
    assert isinstance(metrics, dict)


@pytest.mark.slow
def test_doctor_in_json(capfd):
    status = main(['doctor', '--json'])
    assert status in (0, 1)
    assert json.loads(capfd.readouterr().out)['versions']['torch']


def test_choices_are_those_of_the_library():
    """They are written twice, so that ``--help`` imports nothing."""
    from mmdet_backbones.catalog.entries import SOURCES
    from mmdet_backbones.catalog.listing import SORTS
    from mmdet_backbones.cli import data, levels, predict
    from mmdet_backbones.cli import list as listing
    from mmdet_backbones.own_data.prepare import FORMATS
    from mmdet_backbones.pictures.visualizing import LONGEST
    from mmdet_backbones.predict import outputs

    assert tuple(SOURCES) == listing._SOURCES
    assert tuple(SORTS) == listing._SORTS
    assert data._FORMATS == FORMATS
    assert predict._FORMATS == outputs.FORMATS
    assert levels._LONGEST == LONGEST


def test_a_conversion_is_told_once_and_by_the_command_alone(run_python, folder):
    converted = folder / 'once.pth'
    done = run_python(
        *('-m', 'mmdet_backbones', 'convert', str(folder / 'resnet18.pth')),
        *('--to', 'timm/resnet18', '-o', str(converted)),
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert said.count('Pretrained weights: ') == 1
    assert 'mmengine' not in said
    assert said.splitlines()[-1] == f'written to {converted}'
