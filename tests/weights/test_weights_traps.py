"""Ways to lose pretrained weights without a word: the host's class, then ours.

Those of timm are in test_timm_traps.py, stems of other channels in
test_weights_shapes.py.
"""

import json

import pytest
import timm
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import Runner
from torch import nn
from torchvision import models

from mmdet_backbones import PretrainedWeightsError
from mmdet_backbones.registry import MODELS

UNREACHABLE = 'http://127.0.0.1:9/none.pth'


def build(kind, **arguments):
    return MODELS.build(dict(type=f'mmdet_backbones.{kind}', **arguments))


def pretrained(path, **arguments):
    return dict(type='Pretrained', checkpoint=str(path), **arguments)


@pytest.fixture
def save(tmp_path):
    def write(content, name='net.pth'):
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return write


class HostNet(BaseModule):
    """A net of the host: mmengine loads its weights."""

    def __init__(self, net: nn.Module, init_cfg=None, under=None):
        super().__init__(init_cfg)
        if under is None:
            for name, module in net.named_children():
                self.add_module(name, module)
        else:
            self.add_module(under, net)


def equal_tensors(net: nn.Module, weights: dict[str, torch.Tensor]) -> int:
    return sum(
        torch.equal(value, weights[key])
        for key, value in net.state_dict().items()
        if key in weights and 'num_batches' not in key
    )


@pytest.fixture(scope='module')
def weights():
    torch.manual_seed(1)
    state = models.resnet18().state_dict()
    return {
        k: torch.rand_like(v) if v.is_floating_point() else v for k, v in state.items()
    }


def assert_loaded(net, weights):
    for key, value in net.state_dict().items():
        assert torch.equal(value, weights[key]), key


@pytest.mark.parametrize(
    ('wrap', 'wrapped'),
    [
        (lambda w: {f'net.{k}': v for k, v in w.items()}, False),
        (lambda w: {'model': w}, True),
        (lambda w: {'state_dict_ema': w}, True),
    ],
    ids=['prefix forgotten', 'model', 'ema'],
)
def test_weights_that_the_host_ignores_are_loaded_or_refused(
    save, weights, wrap, wrapped
):
    path = save(wrap(weights))
    host = HostNet(models.resnet18(), pretrained(path))
    host.init_weights()
    assert equal_tensors(host, weights) == 0

    net = build('ResNet', depth=18, init_cfg=pretrained(path))
    if wrapped:
        net.init_weights()
        assert_loaded(net, weights)
    else:
        with pytest.raises(PretrainedWeightsError, match=r"prefix='net\.'"):
            net.init_weights()


def test_convolutions_of_another_shape_are_refused(save, weights):
    wide = {k: torch.cat([v, v]) if v.dim() == 4 else v for k, v in weights.items()}
    path = save(wide)
    host = HostNet(models.resnet18(), pretrained(path))
    host.init_weights()
    assert 0 < equal_tensors(host, weights) < len(weights) / 1.2

    net = build('ResNet', depth=18, init_cfg=pretrained(path))
    with pytest.raises(PretrainedWeightsError, match='width or depth'):
        net.init_weights()


def test_a_prefix_inside_another_one_is_found(save, weights):
    path = save({f'module.backbone.{k}': v for k, v in weights.items()})
    host = HostNet(models.resnet18(), pretrained(path, prefix='backbone.'))
    with pytest.raises(AssertionError):
        host.init_weights()

    net = build('ResNet', depth=18, init_cfg=pretrained(path, prefix='backbone.'))
    net.init_weights()
    assert net.load_report.coverage == 1


def test_a_plain_file_fits_a_net_that_is_wrapped(save, weights):
    path = save(weights)
    host = HostNet(timm.create_model('resnet18'), pretrained(path), 'timm_model')
    host.init_weights()
    inside = {f'timm_model.{k}': v for k, v in weights.items()}
    assert equal_tensors(host, inside) == 0

    net = build('TIMMBackbone', model_name='resnet18', init_cfg=pretrained(path))
    net.init_weights()
    assert net.load_report.coverage == 1
    assert torch.equal(net.timm_model.conv1.weight, weights['conv1.weight'])


@pytest.mark.parametrize('as_list', [False, True])
def test_a_list_of_initialisers_does_not_undo_the_weights(save, as_list):
    host_class = type(build('ShuffleNetV2', widen_factor=0.5)._net)
    source = host_class(widen_factor=0.5)
    source.init_weights()
    state = {
        k: torch.rand_like(v) if v.is_floating_point() else v
        for k, v in source.state_dict().items()
    }
    path = save(state)
    init_cfg = pretrained(path)
    if as_list:
        init_cfg = [dict(type='Kaiming', layer='Conv2d'), init_cfg]
        host = host_class(widen_factor=0.5, init_cfg=init_cfg)
        host.init_weights()
        expected = [k for k in state if 'num_batches' not in k]
        assert equal_tensors(host, state) < len(expected)

    net = build('ShuffleNetV2', widen_factor=0.5, init_cfg=init_cfg)
    for _ in range(2):
        net.init_weights()
        for key, value in net.state_dict().items():
            assert torch.equal(value, state[key]), key


def test_the_prefix_of_swin_is_heeded(save):
    from mmdet.models.backbones.swin import SwinTransformer

    prefix = 'backbone.net.'
    state = SwinTransformer().state_dict()
    state = {k: torch.rand_like(v) for k, v in state.items() if 'position' not in k}
    path = save({f'backbone.net.{k}': v for k, v in state.items()})
    host = SwinTransformer(init_cfg=ConfigDict(pretrained(path, prefix=prefix)))
    host.init_weights()  # neither an error nor a warning
    assert equal_tensors(host, state) == 0

    state = timm.create_model('swin_tiny_patch4_window7_224').state_dict()
    path = save({f'backbone.net.{k}': v for k, v in state.items()})
    net = build(
        'SwinTransformer', arch='tiny', init_cfg=pretrained(path, prefix=prefix)
    )
    net.init_weights()
    loaded = net.state_dict()['patch_embed.projection.weight']
    assert torch.equal(loaded, state['patch_embed.proj.weight'])


def test_the_stem_of_res2net_loads_under_all_three_names(save):
    from mmdet.models.backbones import Res2Net as HostRes2Net

    net = build('Res2Net', depth=50, deep_stem=True, avg_down=True)
    state = {
        k: torch.rand_like(v) if v.is_floating_point() else v
        for k, v in net.state_dict().items()
    }
    for dialect in net.dialects[:2]:
        path = save(dialect.write(state))
        host = HostRes2Net(depth=50, scales=4, base_width=26)
        host.init_cfg = pretrained(path)
        host.init_weights()
        assert equal_tensors(host.stem, state) == 0

        ours = build(
            'Res2Net', depth=50, deep_stem=True, avg_down=True,
            init_cfg=pretrained(path),
        )  # fmt: skip
        ours.init_weights()
        assert ours.load_report.dialect == dialect.name
        for key, value in ours.state_dict().items():
            assert torch.equal(value, state[key]), key


def test_a_shufflenet_v1_file_in_v2_is_told(save):
    from mmpretrain.models.backbones import ShuffleNetV1, ShuffleNetV2

    first = ShuffleNetV1(groups=3)
    path = save(
        {'state_dict': {f'backbone.{k}': v for k, v in first.state_dict().items()}}
    )
    host = ShuffleNetV2(widen_factor=1.0, init_cfg=pretrained(path, prefix='backbone.'))
    host.init_weights()  # says nothing that would stop anybody

    net = build('ShuffleNetV2', init_cfg=pretrained(path))
    with pytest.raises(PretrainedWeightsError) as error:
        net.init_weights()
    assert 'looks like a ShuffleNetV1, the net is a ShuffleNetV2' in str(error.value)
    assert 'torchvision://shufflenet_v2_x1_0' in str(error.value)


def test_statistics_that_were_not_loaded_are_not_frozen(save, weights):
    part = {k: v for k, v in weights.items() if not k.startswith(('bn1', 'conv1'))}
    path = save(part)
    net = build(
        'ResNet', depth=18, frozen_stages=1, norm_eval=True, init_cfg=pretrained(path)
    )
    with pytest.raises(PretrainedWeightsError) as error:
        net.init_weights()
    assert 'freezes random values in stage 0' in str(error.value)
    assert 'norm_eval=True' in str(error.value)
    allowed = build(
        'ResNet', depth=18, frozen_stages=1, norm_eval=True,
        init_cfg=pretrained(
            path, allow_random_frozen=True, allow_missing=['conv1.*', 'bn1.*']),
    )  # fmt: skip
    allowed.init_weights()
    assert not torch.equal(allowed.conv1.weight, weights['conv1.weight'])


def retinanet(backbone):
    cfg = Config.fromfile(
        Config._get_cfg_path('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '')[0]
    )
    cfg.model.backbone = backbone
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    return cfg


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='mmdet_backbones.TIMMBackbone', model_name='resnet18',
             out_strides=(4, 8, 16, 32), pretrained=True),
        dict(type='mmdet_backbones.ResNet', depth=18,
             init_cfg=pretrained(UNREACHABLE)),
    ],
    ids=['pretrained=True', 'init_cfg'],
)  # fmt: skip
@pytest.mark.parametrize('options', [None, {'model.test_cfg.score_thr': 0.1}])
def test_a_detector_for_inference_reads_no_weights(
    tmp_path, monkeypatch, backbone, options
):
    from mmdet.apis import init_detector
    from mmdet.utils import register_all_modules

    def refuse(*_args, **_kwargs):
        raise AssertionError('a file was asked for')

    monkeypatch.setattr(
        'mmdet_backbones.weights.loading.loader.open_checkpoint', refuse
    )
    register_all_modules()
    cfg = retinanet(backbone)
    settings = dict(palette='random', device='cpu', cfg_options=options)
    detector = init_detector(cfg, None, **settings)
    assert detector.backbone.load_report is None

    trained = tmp_path / 'trained.pth'
    torch.save(dict(state_dict=detector.state_dict(), meta={}), trained)
    again = init_detector(cfg, str(trained), **settings)
    assert again.backbone.load_report is None
    assert all(torch.equal(again.state_dict()[k], v)
               for k, v in detector.state_dict().items())  # fmt: skip


def test_a_detector_for_inference_refuses_the_checkpoint_of_another(tmp_path):
    from mmdet.apis import init_detector
    from mmdet.utils import register_all_modules

    register_all_modules()
    settings = dict(palette='random', device='cpu')
    of_timm = dict(type='mmdet_backbones.TIMMBackbone', out_strides=(4, 8, 16, 32))
    backbones = {
        'ours': dict(type='mmdet_backbones.ResNet', depth=18),
        'plain': dict(of_timm, model_name='resnet18'),
        'squeezed': dict(of_timm, model_name='seresnet18'),
    }
    files = {}
    for name, backbone in backbones.items():
        detector = init_detector(retinanet(backbone), None, **settings)
        files[name] = str(tmp_path / f'{name}.pth')
        torch.save(dict(state_dict=detector.state_dict(), meta={}), files[name])
    for of_file, of_net, message in (
        ('plain', 'ours', r'of 100 tensors of its backbone, ResNet, it fills 0, not c'),
        ('ours', 'plain', r'of 100 tensors of its backbone, TIMMBackbone, it fills 0'),
        ('plain', 'squeezed', r'of 132 .* fills 100, not timm_model.layer1.0.se'),
        ('squeezed', 'plain', r'fills 100, and has more for it, .*layer1.0.se'),
    ):
        with pytest.raises(PretrainedWeightsError, match=message):
            init_detector(retinanet(backbones[of_net]), files[of_file], **settings)


class Toy(BaseModel):
    """The smallest thing that mmengine's Runner trains."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = MODELS.build(backbone)

    def forward(self, x, mode='tensor'):
        loss = self.backbone(x)[-1].mean()
        return {'loss': loss} if mode == 'loss' else [loss]


def runner(work_dir, init_cfg, **arguments):
    model = Toy(dict(type='mmdet_backbones.ResNet', depth=18, init_cfg=init_cfg))
    return Runner(
        model,
        str(work_dir),
        train_dataloader=dict(
            dataset=[[torch.rand(3, 32, 32)] for _ in range(2)],
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
            batch_size=2,
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        train_cfg=dict(by_epoch=True, max_epochs=arguments.pop('epochs', 1)),
        custom_hooks=[dict(type='mmdet_backbones.PretrainedReportHook')],
        experiment_name=f'run-{len(list(work_dir.iterdir()))}',
        default_scope='mmengine',
        **arguments,
    )


def test_a_resumed_training_reads_no_weights_and_keeps_the_report(
    save, tmp_path, weights
):
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    runner(work_dir, pretrained(save(weights))).train()
    report = json.loads((work_dir / 'pretrained_report.json').read_text())
    assert report['backbone']['coverage'] == 1
    assert report['backbone']['source'].endswith('net.pth')
    assert len(report['backbone']['sha256']) == 64
    assert not list(work_dir.glob('*.partial'))

    again = runner(work_dir, pretrained(UNREACHABLE), epochs=2, resume=True)
    again.train()
    assert again.epoch == 2
    assert again.model.backbone.load_report is None
    assert json.loads((work_dir / 'pretrained_report.json').read_text()) == report


def test_resume_without_a_checkpoint_starts_with_the_weights(save, tmp_path, weights):
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    first = runner(work_dir, pretrained(save(weights)), resume=True)
    first.train()
    assert first.model.backbone.load_report.coverage == 1


def test_a_test_run_reads_no_weights(tmp_path):
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    tester = Runner(
        Toy(dict(type='mmdet_backbones.ResNet', depth=18,
                 init_cfg=pretrained(UNREACHABLE))),
        str(work_dir),
        test_dataloader=dict(
            dataset=[[torch.rand(3, 32, 32)]],
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        test_cfg=dict(),
        test_evaluator=[],
        experiment_name='test',
        default_scope='mmengine',
    )  # fmt: skip
    tester.test()
    assert tester.model.backbone.load_report is None
