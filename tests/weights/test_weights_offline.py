"""Without a network: told at once, and where the file may be put by hand."""

import hashlib
import re
import socket
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from weight_files import assert_same, file_bytes, files_in, make_weights

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import errors_of
from mmdet_backbones.errors import UserError
from mmdet_backbones.swap.swapping import SwapOptions, swap_backbone
from mmdet_backbones.weights import (
    CheckpointError,
    locate_checkpoint,
    read_checkpoint,
    read_shapes,
)
from mmdet_backbones.weights.reading.download import torch_path
from mmdet_backbones.weights.reading.sources import SCHEMES

# One of each kind; the names of the last ones promise a hash that no file of ours has.
SOURCES = {
    'http': 'http://host.invalid/net.pth',
    'https': 'https://huggingface.co/facebook/dinov2-base/resolve/main/model.safetensors',
    'timm': 'timm://resnet18.a1_in1k',
    'hf': 'hf://facebook/dinov2-base',
    'open-mmlab': 'open-mmlab://mine',
    'openmmlab': 'openmmlab://mine',
    'torchvision': 'torchvision://resnet18',
    'modelzoo': 'modelzoo://resnet18',
    'mmcls': 'mmcls://vgg11',
}
PUT_AT = re.compile(r'Or download it elsewhere and put it at (\S+)$', re.MULTILINE)


@pytest.fixture
def unreachable(tmp_path, cache, monkeypatch):
    """Every way to a server ends at a port that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        proxy = f'http://127.0.0.1:{unused.getsockname()[1]}'
    for name in ('http_proxy', 'https_proxy'):
        monkeypatch.setenv(name, proxy)
    for name in ('no_proxy', 'NO_PROXY'):
        monkeypatch.delenv(name, raising=False)
    empty_hub(monkeypatch, tmp_path)
    home = tmp_path / 'mmengine'
    home.mkdir()
    (home / 'open_mmlab.json').write_text('{"mine": "https://host.invalid/net.pth"}')


def empty_hub(monkeypatch, tmp_path: Path, **constants: object) -> None:
    """What the hub's package reads from the environment when it is imported."""
    constants = {'HF_HUB_OFFLINE': False, 'HF_HUB_CACHE': str(tmp_path / 'hf'),
                 **constants}  # fmt: skip
    for name, value in constants.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)


def refusal(source: str, **options) -> str:
    begin = time.monotonic()
    with pytest.raises(CheckpointError) as error:
        locate_checkpoint(source, **options)
    assert time.monotonic() - begin < 8
    return str(error.value)


def test_every_kind_of_source_is_tried():
    assert SOURCES.keys() == SCHEMES.keys()


@pytest.mark.parametrize('kind', SOURCES)
def test_a_file_put_where_the_message_says_is_read(kind, tmp_path, unreachable):
    source = SOURCES[kind]
    told = {refusal(source, download=True), refusal(source, ask=True)}
    assert len(told) == 1, told
    path = Path(PUT_AT.search(told.pop())[1])
    assert path.is_relative_to(tmp_path / 'torch')
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(make_weights(), path)
    assert locate_checkpoint(source) == path
    if kind in ('torchvision', 'modelzoo', 'mmcls'):
        with pytest.raises(CheckpointError, match='promises a sha256'):
            read_checkpoint(source)
        return
    assert_same(read_checkpoint(source).state_dict, make_weights())
    assert read_shapes(source)['conv.weight'] == (8, 3, 3, 3)


@pytest.mark.parametrize(
    ('variable', 'folder'),
    [('TORCH_HOME', 'hub/checkpoints'), ('XDG_CACHE_HOME', 'torch/hub/checkpoints')],
)
def test_the_path_follows_the_environment(
    tmp_path, unreachable, monkeypatch, variable, folder
):
    monkeypatch.delenv('TORCH_HOME')
    monkeypatch.setenv(variable, str(tmp_path / 'elsewhere'))
    told = refusal('torchvision://resnet18', download=True)
    path = tmp_path / 'elsewhere' / folder / 'resnet18-f37072fd.pth'
    assert PUT_AT.search(told)[1] == str(path)


@pytest.mark.parametrize('name', ['model.safetensors', 'pytorch_model.bin'])
def test_what_the_cache_of_the_hub_holds_is_read(
    tmp_path, unreachable, server, monkeypatch, name
):
    empty_hub(monkeypatch, tmp_path, HF_HUB_OFFLINE=True)
    folder = tmp_path / 'hf' / 'models--timm--resnet18.a1_in1k'
    (folder / 'refs').mkdir(parents=True)
    (folder / 'refs' / 'main').write_text('0' * 40)
    path = folder / 'snapshots' / ('0' * 40) / name
    path.parent.mkdir(parents=True)
    path.write_bytes(file_bytes(tmp_path))
    assert locate_checkpoint('timm://resnet18.a1_in1k') == path
    read_checkpoint('timm://resnet18.a1_in1k')
    # The hub's own cache is not ours to clean up.
    path.write_bytes(file_bytes(tmp_path)[:9000])
    with pytest.raises(CheckpointError, match=f'The file is {path}'):
        read_checkpoint('timm://resnet18.a1_in1k')


def test_a_loader_of_the_host_reads_what_is_put_there(unreachable):
    """A check names the path for it with :func:`torch_path`."""
    source = 'https://host.invalid/swin_tiny.pth'
    told = refusal(source, ask=True, place=torch_path)
    path = Path(PUT_AT.search(told)[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(make_weights(), path)
    assert_same(CheckpointLoader.load_checkpoint(source, 'cpu'), make_weights())
    assert locate_checkpoint(source, place=torch_path) == path


RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'


def test_swap_check_and_training_name_one_path(tmp_path, unreachable, run_tool):
    config = str(tmp_path / 'swapped.py')
    swap = ('tools/swap_backbone.py', RETINANET, 'timm/resnet18', '-o', config)
    check = ('tools/check_config.py', config)
    told = [run_tool(*swap).stdout, run_tool(*check).stdout]
    net = MODELS.build(Config.fromfile(config).model.backbone)
    with pytest.raises(CheckpointError) as error:
        net.init_weights()
    told.append(str(error.value))
    (path,) = {found for text in told for found in PUT_AT.findall(text)}
    assert all(PUT_AT.search(text) for text in told), told

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(timm.create_model('resnet18').state_dict(), path)
    net.init_weights()
    assert net.load_report.coverage == 1
    for tool in ((*swap, '--force'), (*check, '--fast')):
        done = run_tool(*tool)
        assert 'sound: ' in done.stdout
        assert not PUT_AT.search(done.stdout)


@pytest.mark.parametrize(
    'checkpoint', ['nowhere.pth', 'timm://resnet18.nope', 's3://bucket/net.pth']
)
def test_the_swap_refuses_what_the_check_refuses(tmp_path, cache, checkpoint):
    init = dict(type='Pretrained', checkpoint=checkpoint)
    cfg = Config.fromfile(Config._get_cfg_path(RETINANET, '')[0])
    cfg.model.backbone = dict(
        type='mmdet_backbones.TIMMBackbone',
        init_cfg=init,
        model_name='resnet18',
        out_strides=(4, 8, 16, 32),
    )
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    (finding,) = errors_of(check_config(cfg))
    options = SwapOptions(RETINANET, 'timm/resnet18', tmp_path / 'swapped.py',
                          checkpoint=checkpoint)  # fmt: skip
    with pytest.raises(UserError) as error:
        swap_backbone(options)
    assert str(error.value) == f'--checkpoint: {finding.problem}'


@pytest.mark.parametrize('checkpoint', [SOURCES['timm'], SOURCES['hf']])
def test_addresses_that_the_loader_of_the_host_does_not_know(checkpoint):
    cfg = Config.fromfile(Config._get_cfg_path(RETINANET, '')[0])
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    (finding,) = errors_of(check_config(cfg))
    assert 'takes ' + checkpoint in finding.problem
    assert finding.cure == ("model.backbone.type = 'mmdet_backbones.ResNet'",)
    with pytest.raises(FileNotFoundError):
        CheckpointLoader.load_checkpoint(checkpoint)


# Servers


def test_a_server_that_drops_what_is_sent_to_it(cache):
    """As a firewall does; a full queue of the kernel answers no more than that."""
    with socket.socket() as full:
        full.bind(('127.0.0.1', 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f'http://127.0.0.1:{full.getsockname()[1]}/net.pth'
        told = refusal(url, download=True)
        for one in waiting:
            one.close()
    assert 'no connection to 127.0.0.1' in told
    assert PUT_AT.search(told)


def test_a_name_that_does_not_resolve(cache):
    assert PUT_AT.search(refusal('http://host.invalid/net.pth', download=True))


def test_what_a_server_sends_on_to_may_be_unreachable(cache, server):
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        server.moved['net.pth'] = f'http://127.0.0.1:{unused.getsockname()[1]}/net.pth'
    told = refusal(server.url('net.pth'), download=True)
    assert 'Connection refused' in told
    assert len(server.asked) == 1


# The Hugging Face hub, as a server on this machine plays it


REPOSITORY = 'facebook/dinov2-base/resolve/main'


@pytest.fixture
def hub(tmp_path, cache, server, monkeypatch):
    address = server.url('').rstrip('/')
    empty_hub(
        monkeypatch, tmp_path, ENDPOINT=address,
        HUGGINGFACE_CO_URL_TEMPLATE=
        f'{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}',
    )  # fmt: skip
    monkeypatch.setenv('HF_TOKEN', 'secret')
    return server


@pytest.mark.parametrize('name', ['model.safetensors', 'pytorch_model.bin'])
@pytest.mark.parametrize('suffix', ['', '/'])
def test_a_repository_of_the_hub(tmp_path, cache, hub, name, suffix):
    hub.files[f'{REPOSITORY}/{name}'] = content = file_bytes(tmp_path)
    source = 'hf://facebook/dinov2-base' + (suffix and f'/{name}')
    assert str(locate_checkpoint(source, ask=True)).endswith(name)
    found = read_checkpoint(source)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert files_in(cache) == [name]
    asked = len(hub.asked)
    read_checkpoint(source)
    assert len(hub.asked) == asked


def test_the_token_is_for_the_hub_alone(tmp_path, hub):
    hub.moved[f'{REPOSITORY}/model.safetensors'] = hub.url('elsewhere')
    hub.files['elsewhere'] = file_bytes(tmp_path)
    read_checkpoint('hf://facebook/dinov2-base')
    assert hub.authorized == ['Bearer secret', None]


def test_a_repository_without_weights(hub):
    told = refusal('hf://facebook/dinov2-base', download=True)
    assert '404' in told
    assert PUT_AT.search(told)[1].endswith('/model.safetensors')
    assert len(hub.asked) == 2


def test_the_hub_is_not_asked_where_its_variable_forbids(tmp_path, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    for options in (dict(ask=True), dict(download=True)):
        told = refusal('hf://facebook/dinov2-base', **options)
        assert 'HF_HUB_OFFLINE is set' in told
        assert PUT_AT.search(told)
    assert hub.asked == []


@pytest.mark.parametrize('name', ['dinov2-base', 'a/b--c'])
def test_no_repository(name):
    assert f"'hf://{name}' cannot be had" in refusal(f'hf://{name}')
