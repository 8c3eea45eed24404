"""From what a user writes as `checkpoint` to a file: paths, addresses and names."""

import hashlib
import socket

import pytest
import torch
from weight_files import assert_same, file_bytes, files_in, hashed, make_weights

from mmdet_backbones.weights import (
    CheckpointError,
    locate_checkpoint,
    read_checkpoint,
    read_shapes,
)


def test_home_in_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(make_weights(), tmp_path / 'net.pth')
    assert_same(read_checkpoint('~/net.pth').state_dict, make_weights())
    assert locate_checkpoint('~/net.pth') == tmp_path / 'net.pth'


def test_a_download_is_kept(tmp_path, cache, server):
    content = file_bytes(tmp_path)
    name = hashed(content)
    server.files[name] = content
    assert locate_checkpoint(server.url(name)) == server.url(name)
    assert server.asked == []
    for _ in range(2):
        found = read_checkpoint(server.url(name))
        assert found.path == cache / name
        assert found.source == server.url(name)
        assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert server.asked == [(name, None)]
    assert files_in(cache) == [name]
    assert locate_checkpoint(server.url(name)) == cache / name
    assert read_shapes(server.url(name))['conv.weight'] == (8, 3, 3, 3)


def test_one_name_at_two_addresses(tmp_path, cache, server):
    """torch.hub would give the first file for the second address."""
    for seed in range(2):
        server.files[f'{seed}/model.pth'] = file_bytes(tmp_path, seed)
    for seed in range(2):
        found = read_checkpoint(server.url(f'{seed}/model.pth')).state_dict
        assert torch.equal(found['conv.weight'], make_weights(seed)['conv.weight'])
    assert files_in(cache) == ['model.pth', 'model.pth']


def test_names_with_a_date_carry_no_hash(tmp_path, cache, server):
    server.files['net-20210831.pth'] = file_bytes(tmp_path)
    read_checkpoint(server.url('net-20210831.pth'))


def test_servers_that_do_not_have_it(cache, server):
    for read in (read_checkpoint, lambda source: locate_checkpoint(source, ask=True)):
        with pytest.raises(CheckpointError, match='404') as error:
            read(server.url('net.pth'))
        assert 'download it elsewhere and put it at' in str(error.value)
    assert locate_checkpoint(server.url('net.pth')) == server.url('net.pth')


def test_asking_takes_one_byte(tmp_path, cache, server):
    server.files['net.pth'] = file_bytes(tmp_path)
    url = server.url('net.pth')
    assert locate_checkpoint(url, ask=True) == url
    assert server.asked == [('net.pth', 'bytes=0-0')]
    assert files_in(cache) == []


def test_no_server(cache):
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{unused.getsockname()[1]}/net-0123abcd.pth'
    with pytest.raises(CheckpointError, match='cannot be downloaded') as error:
        read_checkpoint(url)
    assert str(cache / 'net-0123abcd.pth') in str(error.value)


@pytest.mark.parametrize(
    'host', ['127.0.0.1:99999', '127.0.0.1:port', f'{"a" * 70}.invalid', 'a..b']
)
def test_hosts_that_are_none(cache, host):
    with pytest.raises(CheckpointError, match='cannot be downloaded'):
        read_checkpoint(f'http://{host}/net.pth')


@pytest.mark.parametrize('url', ['http://', 'https://host', 'http://host/folder/'])
def test_addresses_without_a_file(cache, url):
    with pytest.raises(CheckpointError, match='names no file'):
        locate_checkpoint(url)


V1 = 'https://download.pytorch.org/models/resnet50-0676ba61.pth'
V2 = 'https://download.pytorch.org/models/resnet50-11ad3fa6.pth'


@pytest.mark.parametrize(
    ('source', 'address'),
    [
        ('torchvision://resnet50', V1),
        ('modelzoo://resnet50', V1),
        ('torchvision://resnet50.IMAGENET1K_V1', V1),
        ('torchvision://resnet50.IMAGENET1K_V2', V2),
        ('torchvision://resnet50.imagenet1k_v2', V2),
        ('torchvision://ResNet50_Weights.IMAGENET1K_V2', V2),
        ('torchvision://resnet50.DEFAULT', V2),
        # Not the name of mmengine's table, whose hash is not that of the file.
        ('torchvision://efficientnet_b0',
         'https://download.pytorch.org/models/efficientnet_b0_rwightman-7f5810bc.pth'),
        ('torchvision://shufflenetv2_x1.0',
         'https://download.pytorch.org/models/shufflenetv2_x1-5666bf0f80.pth'),
    ],
)  # fmt: skip
def test_torchvision(cache, source, address):
    assert locate_checkpoint(source) == address


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('torchvision://resnet50.IMAGENET1K_V3',
         'torchvision://resnet50.IMAGENET1K_V1, torchvision://resnet50.IMAGENET1K_V2'),
        ('torchvision://vit_h_14', 'torchvision://vit_h_14.IMAGENET1K_SWAG_E2E_V1'),
        ('torchvision://resnet5', 'write torchvision://resnet'),
        ('open-mmlab://resnet50_v1d', 'write open-mmlab://resnet50_v1c'),
        ('mmcls://resnet5', 'write mmcls://resnet'),
        ('timm://resnet18.nope', 'timm://resnet18.a1_in1k'),
        ('s3://bucket/net.pth', 'http://, https://, torchvision://'),
    ],
)  # fmt: skip
def test_names_that_are_not_there(cache, source, message):
    with pytest.raises(CheckpointError) as error:
        locate_checkpoint(source)
    assert message in str(error.value)
    assert f"'{source}'" in str(error.value)


@pytest.mark.parametrize('scheme', ['open-mmlab', 'openmmlab'])
def test_open_mmlab(cache, scheme):
    new = str(locate_checkpoint(f'{scheme}://detectron/resnet50_caffe'))
    assert new.endswith('/pretrain/third_party/resnet50_caffe-788b5fa3.pth')
    assert locate_checkpoint(f'{scheme}://resnet50_caffe') == new
    assert str(locate_checkpoint('mmcls://vgg11')).endswith('-4271cd6c.pth')


def test_the_own_table_of_mmengine(tmp_path, cache):
    """Names may be added in MMENGINE_HOME, with a file there."""
    home = tmp_path / 'mmengine'
    home.mkdir()
    (home / 'open_mmlab.json').write_text('{"mine": "mine.pth", "gone": "gone.pth"}')
    torch.save(make_weights(), home / 'mine.pth')
    assert_same(read_checkpoint('open-mmlab://mine').state_dict, make_weights())
    with pytest.raises(CheckpointError, match=r'gone\.pth, named in the own table'):
        read_checkpoint('open-mmlab://gone')


def test_timm_without_download(tmp_path, cache, run_python):
    """Where the hub's cache is empty, which is read when its package is imported."""
    code = (
        'from mmdet_backbones.weights import locate_checkpoint;'
        "print(locate_checkpoint('timm://resnet50.a1_in1k'))"
    )
    done = run_python('-c', code, HF_HOME=str(tmp_path), HF_HUB_OFFLINE='1')
    assert done.stdout.split() == [
        'https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors'
    ], done.stderr[-2000:]


def test_a_checkpoint_that_is_no_text():
    with pytest.raises(CheckpointError, match='as text, got 3'):
        read_checkpoint(3)
