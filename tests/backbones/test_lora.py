"""Adapters of LoRA on the attention of a net that stays as it is."""

import copy
import pickle

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from planted import RETINANET, load
from test_contract import build, image

from mmdet_backbones import fuse_for_inference, merge_lora
from mmdet_backbones.backbones.layer_groups import layer_groups
from mmdet_backbones.check.config import check_config
from mmdet_backbones.registry import MODELS

pytest.importorskip('peft')
DEIT = dict(type='VisionTransformer', arch='deit-tiny')
NETS = {
    'timm': dict(type='TIMMBackbone', model_name='test_vit'),
    'timm-swin': dict(type='TIMMBackbone', model_name='swin_tiny_patch4_window7_224'),
    'mmpretrain': dict(type='MMPretrainBackbone', model=DEIT, out_indices=(0, 3)),
}
some = pytest.mark.parametrize(
    'name', ['timm', 'mmpretrain', pytest.param('timm-swin', marks=pytest.mark.slow)]
)


def net_of(name, lora=None, **arguments):
    torch.manual_seed(0)
    cfg = {**NETS[name], **arguments}
    return MODELS.build(dict(cfg, type=f'mmdet_backbones.{cfg["type"]}', lora=lora))


def outputs_of(net, x):
    with torch.no_grad():
        return net.eval()(x)


def close(a, b, within=0.0):
    return all((p - q).abs().max() <= within for p, q in zip(a, b, strict=True))


def trained(net, x, steps=2):
    net.train()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.01)
    for _ in range(steps):
        sum(o.square().mean() for o in net(x)).backward()
        assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
        optimizer.step()
        optimizer.zero_grad()
    return net


@some
def test_adapters_alone_train_and_become_part_of_the_weights(name):
    net, plain, x = net_of(name, dict(r=4)), net_of(name), image(1)
    names = [n for n, p in net.named_parameters() if p.requires_grad]
    assert names
    assert all('.lora_' in n for n in names)
    assert {n for n in net.state_dict() if '.lora_' not in n} == {*plain.state_dict()}
    # A checkpoint of the plain net is one of this net.
    net.load_state_dict(plain.state_dict())
    assert close(outputs_of(net, x), outputs_of(plain, x))
    trained(net, x)
    after = net.state_dict()
    assert all(torch.equal(v, after[n]) for n, v in plain.state_dict().items())
    learned = outputs_of(net, x)
    assert not close(learned, outputs_of(plain, x))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert close(outputs_of(twin, x), learned)
    fused = fuse_for_inference(net)
    assert close(outputs_of(net, x), learned)
    for merged in (fused, merge_lora(net)):
        assert merged.state_dict().keys() == plain.state_dict().keys()
        assert close(outputs_of(merged, x), learned, within=1e-5)


@some
def test_weights_of_both_kinds_are_loaded(name, tmp_path):
    plain = net_of(name)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'))
    # So wide that without them less than 95 % of the net would be in the file.
    net = net_of(name, dict(r=32), init_cfg=init_cfg)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.3)
    net.init_weights()
    assert net.load_report.coverage == 1
    x = image(1)
    assert close(outputs_of(net, x), outputs_of(plain, x))
    learned = outputs_of(trained(net, x), x)
    torch.save(net.state_dict(), tmp_path / 'lora.pth')
    init_cfg = dict(init_cfg, checkpoint=str(tmp_path / 'lora.pth'))
    again = net_of(name, dict(r=32), init_cfg=init_cfg)
    again.init_weights()
    assert close(outputs_of(again, x), learned)


def test_a_detector_without_adapters_is_loaded_as_mmengine_does(tmp_path):
    model, plain = BaseModule(), BaseModule()
    model.backbone, plain.backbone = net_of('timm', dict(r=2)), net_of('timm')
    with torch.no_grad():
        next(plain.parameters()).fill_(0.5)
    torch.save(plain.state_dict(), tmp_path / 'detector.pth')
    load_checkpoint(model, str(tmp_path / 'detector.pth'), strict=True)
    x = image(1)
    assert close(outputs_of(model.backbone, x), outputs_of(plain.backbone, x))


def test_frozen_stages_have_none_and_others_learn_as_fast_as_their_layer():
    net = net_of('timm', dict(), frozen_stages=2)
    with_adapter = {n.partition('.lora_')[0] for n, _ in net.named_parameters()}
    blocks = {n.split('.')[3] for n in with_adapter if n.endswith('attn.qkv')}
    names = {n.split('.')[3] for n, _ in net.named_parameters() if '.lora_' in n}
    assert {'0', '1'}.isdisjoint(names)
    assert names == blocks - {'0', '1'}
    for group in layer_groups(net):
        for name in group:
            if '.lora_' in name:
                assert f'{name.partition(".lora_")[0]}.weight' in group


@pytest.mark.parametrize(
    ('net', 'lora', 'problem'),
    [
        (dict(type='TIMMBackbone', model_name='resnet18'), {}, 'no linear layer'),
        (NETS['timm'], dict(targets=['qvk']), "'qvk'; those that there are end in"),
        (NETS['timm'], dict(r=0, rank=8, alpha=0), "takes no 'rank', only r.*r must"),
        (NETS['timm'], 8, 'must be a dict, got 8'),
        (dict(NETS['timm'], frozen_stages='all'), {}, 'leaves nothing'),
        # Their functions take the weights; peft adds adapters and says nothing.
        (
            dict(type='TIMMBackbone', model_name='eva02_tiny_patch14_224'),
            {},
            r'blocks\.0\.attn\.qkv.*never calls them',
        ),
        (
            dict(type='TorchvisionBackbone', model_name='swin_t'),
            {},
            'never calls them, as torch.nn.MultiheadAttention',
        ),
    ],
)
def test_what_cannot_be_is_told_and_the_line_to_write_works(net, lora, problem):
    cfg = dict(net, type=f'mmdet_backbones.{net["type"]}')
    with pytest.raises(ValueError, match=problem) as error:
        MODELS.build(dict(cfg, lora=lora))
    settings = error.value.settings
    for name, value in settings.items():
        assert f'write {name}={value!r}' in str(error.value)
    MODELS.build({**cfg, 'lora': lora, **settings})


def test_the_check_tells_of_random_values(tmp_path):
    backbone = dict(
        type='mmdet_backbones.TIMMBackbone',
        model_name='test_vit',
        out_indices=(5,),
        lora=dict(r=2),
        init_cfg=None,
        _delete_=True,
    )
    neck = dict(
        type='mmdet_backbones.SimpleFeaturePyramid',
        in_channels=64,
        out_channels=256,
        _delete_=True,
    )
    config = load(tmp_path, RETINANET, model=dict(backbone=backbone, neck=neck))
    found = [f for f in check_config(config) if f.rule == 'frozen and random']
    assert [f.cure for f in found] == [('model.backbone.lora = None',)]


def test_an_other_net_without_adapters_is_left_alone():
    net = build('timm-resnet18')
    before = net.state_dict().keys()
    assert merge_lora(net) is net
    assert net.state_dict().keys() == before
