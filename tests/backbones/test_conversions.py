"""Converting a net keeps what it computes: normalisation, copies, number formats."""

import copy
import pickle
from collections import Counter
from functools import partial
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist
from mmdet.registry import MODELS
from mmengine.model import (
    BaseModel,
    convert_sync_batchnorm,
    revert_sync_batchnorm,
)
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from timm.layers import BatchNormAct2d, freeze_batch_norm_2d, unfreeze_batch_norm_2d
from timm.layers import convert_sync_batchnorm as convert_by_timm
from torch import nn
from torch.nn import SyncBatchNorm
from variants import REPRESENTATIVES, config

from mmdet_backbones import fuse_for_inference
from mmdet_backbones.compat.batch_norm import is_batch_norm

FROZEN = dict(type='mmdet_backbones.FrozenBN')


def timm(model_name, **arguments):
    return dict(type='mmdet_backbones.TIMMBackbone', model_name=model_name, **arguments)


# Small nets: a layer that normalises only, one that activates too, none of the kind.
SMALL = {
    'resnet': dict(type='mmdet_backbones.ResNet', depth=18, base_channels=16),
    'torchvision': dict(
        type='mmdet_backbones.TorchvisionBackbone', model_name='mobilenet_v3_small'
    ),
    'mmpretrain': dict(type='mmdet_backbones.MobileNetV2', widen_factor=0.35),
    'mmdet': dict(type='mmdet.ResNet', depth=18, base_channels=16),
    'timm': timm('test_resnet'),
    'timm-act': timm('test_efficientnet'),
    'timm-act-with-cp': timm('test_efficientnet', with_cp=True),
    'timm-act-frozen': timm('test_efficientnet', norm_layer='FrozenBN'),
    'timm-act-of-groups': timm('test_efficientnet_gn'),
    'frozen': dict(type='mmdet_backbones.ResNet', depth=18, norm_cfg=FROZEN),
}
LARGER = (
    'res2net50_14w_8s', 'mobilenetv3_small_050', 'regnetx_002', 'cspdarknet53',
    'tf_efficientnetv2_b0', 'resnetv2_18', 'densenet121', 'tresnet_m', 'resnest14d',
    'mobileone_s1', 'nextvit_small',
)  # fmt: skip
DEFAULT = ('resnet', 'mmdet', 'timm-act', 'timm-act-with-cp', 'frozen')
NETS = [
    pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow)
    for name in (*SMALL, *LARGER)
]
# There and back.
CONVERSIONS = {
    'torch': (SyncBatchNorm.convert_sync_batchnorm, revert_sync_batchnorm),
    'mmengine': (convert_sync_batchnorm, revert_sync_batchnorm),
    'mmcv': (
        partial(convert_sync_batchnorm, implementation='mmcv'),
        revert_sync_batchnorm,
    ),
    'timm': (convert_by_timm, revert_sync_batchnorm),
    'timm then torch': (
        lambda net: SyncBatchNorm.convert_sync_batchnorm(convert_by_timm(net)),
        revert_sync_batchnorm,
    ),
    'timm, frozen': (freeze_batch_norm_2d, unfreeze_batch_norm_2d),
}


@pytest.fixture
def one_process():
    """The group of processes that MMSyncBN asks for where it is built."""
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def build(name, **arguments):
    net = MODELS.build({**SMALL.get(name, timm(name)), **arguments})
    for layer in net.modules():
        if isinstance(getattr(layer, 'running_mean', None), torch.Tensor):
            draw(layer)
    return net


@torch.no_grad()
def draw(layer):
    for name, low in dict(weight=0.75, bias=-0.25, running_mean=-0.25).items():
        if getattr(layer, name, None) is not None:
            getattr(layer, name).uniform_(low, low + 0.5)
    layer.running_var.uniform_(0.75, 1.25)


def norms_of(net):
    return Counter(type(m).__name__ for m in net.modules() if hasattr(m, 'running_var'))


def frozen_in(net):
    return {name for name, p in net.named_parameters() if not p.requires_grad}


def check_same(net, image, expected, **tolerance):
    with torch.no_grad():
        outputs = net(image)
    for output, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, wanted, **tolerance)
        last = torch.channels_last
        assert output.is_contiguous(memory_format=last) is wanted.is_contiguous(
            memory_format=last
        )


@pytest.mark.parametrize('conversion', CONVERSIONS)
@pytest.mark.parametrize('name', NETS)
def test_other_normalisation_computes_the_same(name, conversion, request):
    if conversion == 'mmcv':
        request.getfixturevalue('one_process')
    convert, back = CONVERSIONS[conversion]
    net = build(name, frozen_stages=1, norm_eval=True)
    net.eval()  # mmdet's returns None
    # Layers that are written out in another way, or folded, round in another way.
    net.to(torch.float64, memory_format=torch.channels_last)
    norms = norms_of(net)
    frozen = frozen_in(net)
    state = copy.deepcopy(net.state_dict())
    image = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = net(image)
    plain = copy.deepcopy(net)
    modes = {n: m.training for n, m in net.named_modules()}

    net = convert(net)
    ordinary = any(is_batch_norm(m) for m in plain.modules())
    assert (norms_of(net) != norms) is ordinary
    if conversion != 'timm, frozen':
        assert {n: m.training for n, m in net.named_modules()} == modes
        check_same(net, image, expected, rtol=0, atol=0)
        assert net.state_dict().keys() == state.keys()
        assert all(torch.equal(v, state[n]) for n, v in net.state_dict().items())
        assert frozen_in(net) == frozen
        # What the backbone itself keeps in eval mode; mmdet's does not know MMSyncBN.
        net.train()
        if (name, conversion) != ('mmdet', 'mmcv'):
            assert not any(m.training for m in net.modules() if is_batch_norm(m))
    net.eval()
    for twin in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        check_same(twin, image, expected)
    net = back(net)
    if conversion == 'timm, frozen':
        net.eval()  # timm's own way back leads into training mode
    check_same(net, image, expected)
    check_same(fuse_for_inference(net), image, expected)
    check_same(plain, image, expected, rtol=0, atol=0)


@pytest.mark.parametrize('conversion', [c for c in CONVERSIONS if 'frozen' not in c])
@pytest.mark.parametrize('name', ['resnet', 'timm-act', 'timm-act-with-cp'])
def test_other_normalisation_trains_the_same(name, conversion, request):
    if conversion == 'mmcv':
        request.getfixturevalue('one_process')
        if find_spec('mmcv._ext').origin != 'mmdet_backbones.compat.ext':
            pytest.skip('compiled mmcv synchronises on GPUs only')
    net = build(name, norm_eval=False).train()
    other = CONVERSIONS[conversion][0](copy.deepcopy(net)).train()
    image = torch.rand(2, 3, 64, 96)
    results = []
    for each in (net, other):
        sum(output.square().mean() for output in each(image)).backward()
        grads = {n: p.grad for n, p in each.named_parameters()}
        results.append({**grads, **dict(each.named_buffers())})
    assert results[0].keys() == results[1].keys()
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('conversion', ['torch', 'mmengine', 'timm'])
@pytest.mark.parametrize(
    'arguments',
    [
        dict(affine=False),
        dict(track_running_stats=False),
        dict(momentum=None),
        dict(apply_act=False),
        dict(act_layer=nn.SiLU, drop_layer=nn.Dropout),
    ],
    ids=lambda arguments: ','.join(arguments),
)
def test_a_layer_keeps_its_arguments(conversion, arguments):
    layer = BatchNormAct2d(4, **arguments)
    if layer.track_running_stats:
        draw(layer)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), layer).eval()
    image = torch.randn(2, 3, 8, 8)
    expected = net(image)
    for convert in CONVERSIONS[conversion]:
        net = convert(net)
        assert torch.equal(net(image), expected)
        kept = (net[1].affine, net[1].track_running_stats, net[1].momentum)
        assert kept == (layer.affine, layer.track_running_stats, layer.momentum)
    assert type(net[1]) is BatchNormAct2d


@MODEL_WRAPPERS.register_module()
class Wrapped(nn.Module):
    """DistributedDataParallel of torch takes SyncBatchNorm on GPUs only."""

    def __init__(self, module):
        super().__init__()
        self.module = module


class Whole(BaseModel):
    """The smallest thing that a Runner takes."""

    def __init__(self):
        super().__init__()
        self.backbone = build('timm-act')

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone(inputs)


@pytest.mark.parametrize('implementation', ['torch', 'mmcv'])
def test_a_runner_converts(implementation, one_process, tmp_path):
    model = Whole().eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(image)
    runner = Runner(
        model,
        work_dir=str(tmp_path),
        launcher='pytorch',
        cfg=dict(sync_bn=implementation, model_wrapper_cfg=dict(type='Wrapped')),
    )
    kinds = {'torch': 'SyncBatchNormAct', 'mmcv': 'MMSyncBatchNormAct'}
    assert set(norms_of(runner.model)) == {kinds[implementation]}
    check_same(runner.model.module, image, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    'cfg',
    [
        pytest.param(timm('levit_128s', img_size=64), id='timm'),
        pytest.param(
            dict(
                type='mmdet_backbones.MMPretrainBackbone',
                model=dict(type='LeViT', arch='128s', img_size=64),
            ),
            id='mmpretrain',
        ),
    ],
)
def test_what_a_net_keeps_in_eval_mode_follows_its_parameters(cfg):
    net, other = MODELS.build(cfg).eval(), MODELS.build(cfg).eval()
    tables = [n for n, _ in net.named_parameters() if n.endswith('attention_biases')]
    assert tables
    image = torch.rand(1, 3, 64, 64)
    first = net(image)  # with gradients, which its tables then have too
    state = {n: torch.rand_like(v) if n in tables else v for n, v in
             net.state_dict().items()}  # fmt: skip
    other.load_state_dict(state)
    net.load_state_dict(state)
    expected = [output.detach() for output in net(image)]
    assert not torch.allclose(first[-1], expected[-1])
    check_same(other, image, expected, rtol=0, atol=0)
    check_same(copy.deepcopy(net), image, expected, rtol=0, atol=0)
    check_same(pickle.loads(pickle.dumps(net)), image, expected, rtol=0, atol=0)
    rounded = [output.bfloat16() for output in expected]
    check_same(net.bfloat16(), image.bfloat16(), rounded, rtol=0.1, atol=0.1)
    assert all(output.is_meta for output in net.to('meta')(image.bfloat16().to('meta')))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', ['frozen', 'timm-act-frozen', 'timm-act'])
def test_half_precision_is_near(name, dtype):
    net = build(name).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = net(image)
    half = copy.deepcopy(net).to(dtype)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            outputs = half(image.to(dtype))
        for output, wanted in zip(outputs, expected, strict=True):
            assert output.dtype is dtype
            error = (output.float() - wanted).abs().max() / wanted.abs().max()
            assert error < 8 * torch.finfo(dtype).eps


@pytest.mark.slow
def test_whole_nets_are_loaded_by_a_new_process(run_python, tmp_path):
    image = torch.rand(1, 3, 64, 96)
    nets = {name: MODELS.build(config(name)).eval() for name in REPRESENTATIVES}
    with torch.no_grad():
        outputs = {name: net(image) for name, net in nets.items()}
    torch.save((image, nets, outputs), tmp_path / 'nets.pth')
    # Under spawn, processes of a data loader get a model in the same way.
    code = (
        'import sys, torch\n'
        'image, nets, outputs = torch.load(sys.argv[1], weights_only=False)\n'
        'with torch.no_grad():\n'
        '    for name, net in nets.items():\n'
        '        for a, b in zip(net(image), outputs[name], strict=True):\n'
        '            torch.testing.assert_close(a, b)\n'
        'print(len(nets))'
    )
    done = run_python('-c', code, str(tmp_path / 'nets.pth'))
    assert done.stdout.split() == [str(len(REPRESENTATIVES))], done.stderr[-2000:]
