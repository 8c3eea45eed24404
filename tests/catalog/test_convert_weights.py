"""tools/convert_weights.py: keys, metadata, and files that are never lost."""

import json

import pytest
import timm
import torch
from safetensors import safe_open
from torchvision import models

from mmdet_backbones.registry import MODELS
from mmdet_backbones.weights import load_pretrained

TOOL = 'tools/convert_weights.py'


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'source.pth'
    torch.save({'state_dict': models.mobilenet_v2().state_dict()}, path)
    return path


def test_a_file_goes_to_another_library_and_back(run_tool, tmp_path, source):
    ours = tmp_path / 'ours.pth'
    done = run_tool(
        TOOL, str(source), '--to', 'mmpretrain/mobilenet-v2', '-o', str(ours)
    )
    assert done.returncode == 0, done.stderr
    assert '100.0% of the backbone' in done.stdout
    back = tmp_path / 'back.safetensors'
    done = run_tool(
        TOOL, str(ours), '--to', 'torchvision/mobilenet_v2@torchvision', '-o', str(back)
    )
    assert done.returncode == 0, done.stderr
    expected = torch.load(source, weights_only=True)['state_dict']
    with safe_open(back, 'pt') as file:
        assert set(file.keys()) == {k for k in expected if 'classifier' not in k}
        for key in file.keys():  # noqa: SIM118 - no mapping
            assert torch.equal(file.get_tensor(key), expected[key]), key


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_metadata_stands_in_the_file(run_tool, tmp_path, source, suffix):
    target = tmp_path / f'net.{suffix}'
    done = run_tool(
        TOOL, str(source), '--to', 'torchvision/mobilenet_v2', '-o', str(target),
        '--licence', 'BSD-3-Clause', '--json',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout[done.stdout.index('{') :])
    if suffix == 'pth':
        meta = torch.load(target, weights_only=True)['meta']
    else:
        with safe_open(target, 'pt') as file:
            meta = file.metadata()
    assert meta == printed['meta']
    assert meta['licence'] == 'BSD-3-Clause'
    assert meta['source'] == str(source)
    assert meta['source_sha256'] == printed['report']['sha256']
    assert json.loads(meta['mean']) == [123.675, 116.28, 103.53]
    assert meta['channel_order'] == 'rgb'
    assert 'mmdet_backbones' in meta['converted_by']
    net = MODELS.build(
        dict(type='mmdet_backbones.TorchvisionBackbone', model_name='mobilenet_v2')
    )
    assert load_pretrained(net, str(target)).dialect == 'own names'


def test_nothing_is_overwritten_without_force(run_tool, tmp_path, source):
    target = tmp_path / 'net.pth'
    target.write_text('precious')
    arguments = (TOOL, str(source), '--to', 'timm/mobilenetv2_100', '-o', str(target))
    done = run_tool(*arguments)
    assert done.returncode == 1
    assert 'is there already: write --force, or another -o' in done.stderr
    assert target.read_text() == 'precious'
    assert run_tool(*arguments, '--force').returncode == 0
    assert 'state_dict' in torch.load(target, weights_only=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['net.pth', 'source.pth']


def test_a_refused_file_leaves_nothing_behind(run_tool, tmp_path, source):
    target = tmp_path / 'net.pth'
    done = run_tool(TOOL, str(source), '--to', 'timm/resnet18', '-o', str(target))
    assert done.returncode == 1
    assert 'Cause: another architecture' in done.stderr
    assert not target.exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ('--to', 'timm/resnet18', '-o', 'net.bin'),
            'must end in .pth or',
        ),
        (('--to', 'timm/resnet18', '-o', '/'), 'must end in'),
        (('--to', 'timm/resnet18', '-o', '/no/where/net.pth'), "no folder '/no/where'"),
        (('--to', 'timm/resnet18x', '-o', 'n.pth'), "no backbone 'timm/resnet18x'"),
        (('--to', 'timm/resnet18@caffe', '-o', 'n.pth'), "'timm/resnet18@timm'"),
        (('--to', 'timm/resnet18'), '-o FILE'),
    ],
)
def test_mistakes_on_the_command_line(run_tool, source, arguments, message):
    done = run_tool(TOOL, str(source), *arguments)
    assert done.returncode == 1
    assert message in done.stderr


def test_names_and_shapes_are_listed(run_tool, tmp_path):
    path = tmp_path / 'net.pth'
    torch.save(timm.create_model('resnet18').state_dict(), path)
    done = run_tool(TOOL, str(path), '--list-keys')
    assert 'layer1.0.conv1.weight' in done.stdout
    assert '64 x 3 x 7 x 7' in done.stdout
    done = run_tool(TOOL, str(path), '--list-keys', '--json')
    assert json.loads(done.stdout)['conv1.weight'] == [64, 3, 7, 7]
