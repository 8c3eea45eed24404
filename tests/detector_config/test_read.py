"""Configs that are no configs: one message each, for every tool that reads one."""

from __future__ import annotations

import os

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from odd_configs import INHERITED, NEW_STYLE, TOLD

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.trial import try_model
from mmdet_backbones.detector_config.read import read_by_name
from mmdet_backbones.errors import UserError


@pytest.fixture
def written(tmp_path):
    def write(content: str | bytes, name: str = 'odd.py') -> str:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize('name', TOLD)
def test_what_a_config_does_is_one_message(name, written):
    content, words = TOLD[name]
    path = written(content)
    with pytest.raises(UserError) as told:
        read_by_name(path)
    assert words in str(told.value)
    assert path in str(told.value)


def test_a_circle_is_named(written, tmp_path):
    a = written("_base_ = './b.py'\n", 'a.py')
    written("_base_ = './a.py'\n", 'b.py')
    with pytest.raises(UserError) as told:
        read_by_name(a)
    circle = ' -> '.join(f"'{os.path.relpath(tmp_path / n)}'" for n in
                         ('a.py', 'b.py', 'a.py'))  # fmt: skip
    assert f'it inherits from itself: {circle}' in str(told.value)


def test_the_base_that_is_not_utf_8_is_named(written, tmp_path):
    path = written("_base_ = './base.py'\n")
    written(b"a = '\xe9'\n", 'base.py')
    with pytest.raises(UserError, match=r"base\.py' is not in UTF-8"):
        read_by_name(path)


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('odd.json', '{"a"', 'JSONDecodeError'),
        ('odd.yml', 'a: [1', 'ParserError'),
        ('odd.json', '[1]', 'AttributeError'),
        ('odd.json', '{"a":' * 3000 + '1' + '}' * 3000, 'RecursionError'),
        ('odd.txt', 'a = 1', 'ends in one of .py, .json, .yaml, .yml'),
    ],
)
def test_other_formats(name, content, words, written):
    with pytest.raises(UserError, match=words):
        read_by_name(written(content, name))


@pytest.mark.parametrize('inherited', [False, True])
def test_tags_of_yaml_run_nothing(written, tmp_path, inherited):
    ran = tmp_path / 'ran'
    path = written(f'a: !!python/object/apply:os.mkdir ["{ran}"]', 'odd.yml')
    if inherited:
        path = written("_base_ = './odd.yml'\n", 'mine.py')
    with pytest.raises(UserError, match=r"odd.yml' is no plain YAML: ConstructorError"):
        read_by_name(path)
    assert not ran.exists()


def test_json_and_yaml_are_read(written):
    assert read_by_name(written('{"a": 1}', 'odd.json')).a == 1
    assert read_by_name(written('a: 1', 'odd.yml')).a == 1


@pytest.mark.parametrize(
    'name', ['', '.', '/', '\n', 'a\0.py', 'x' * 5000, '::', 'mmdet::', '::x',
             '/dev/zero', 'mmdet::../x.py', 'a::b::c', 'http://x/y.py',
             '/dev/null/x.py']
)  # fmt: skip
def test_names_of_no_config(name):
    with pytest.raises(UserError):
        read_by_name(name)


def test_what_stands_in_the_place_of_a_config_is_said(tmp_path):
    os.mkfifo(tmp_path / 'pipe.py')
    with pytest.raises(UserError, match=r"config file '.*' is a pipe, not a file"):
        read_by_name(str(tmp_path / 'pipe.py'))


def test_a_folder_names_its_configs(written, tmp_path):
    written('a = 1\n')
    with pytest.raises(UserError, match=r'is a folder: name a config .*odd\.py'):
        read_by_name(str(tmp_path))


def test_ctrl_c_stays_ctrl_c(written):
    with pytest.raises(KeyboardInterrupt):
        read_by_name(written('raise KeyboardInterrupt\n'))


def test_classes_are_read_as_names(written):
    cfg = read_by_name(written(NEW_STYLE))
    assert cfg.model.type == 'RetinaNet'
    assert cfg.model.train_cfg.assigner.type == 'MaxIoUAssigner'
    assert cfg.optim_wrapper == dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)
    )
    assert 'tasks' not in cfg
    assert [f.rule for f in check_config(cfg)] == ['random weights']
    again = Config.fromstring(cfg.pretty_text, '.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert try_model(again.model).loss > 0


def test_a_class_of_ones_own_keeps_its_path(written, tmp_path, monkeypatch):
    (tmp_path / 'own_part_x.py').write_text('class Part:\n    pass\n')
    monkeypatch.syspath_prepend(tmp_path)
    cfg = read_by_name(written('from own_part_x import Part\na = dict(type=Part)\n'))
    assert cfg.a.type == 'own_part_x.Part'


@pytest.mark.parametrize('setting', ['a', 'a=[1,2', '=3', 'a..b=3', 'model.a=1'])
def test_malformed_settings(setting, written, run_tool):
    path = written(f'{INHERITED}model = 3\n' if 'model' in setting else INHERITED)
    done = run_tool('tools/print_lr.py', path, '--cfg-options', setting)
    assert done.returncode in (1, 2)
    assert 'error: --cfg-options' in done.stderr


@pytest.mark.parametrize(
    'tool',
    [
        ('train', '{}'),
        ('test', '{}', 'x.pth'),
        ('check_config', '{}'),
        ('swap_backbone', '{}', 'timm/resnet18', '-o', 'odd_out.py'),
        ('print_lr', '{}'),
        ('visualize_levels', '{}', 'x.png'),
        ('benchmark_backbones', 'timm/resnet18', '--detector', '{}'),
    ],
    ids=lambda tool: tool[0],
)
def test_every_tool_tells(tool, written, run_tool):
    path = written('import sys\nsys.exit(0)\n')
    name, *arguments = tool
    arguments = [argument.format(path) for argument in arguments]
    done = run_tool(f'tools/{name}.py', *arguments)
    assert done.returncode == 1
    assert done.stderr.count('error: ') == 1
    assert 'it ends the program (line 2 of' in done.stderr
