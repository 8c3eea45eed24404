"""Pretrained weights: found under any wrapper and name, or refused."""

import pytest
import timm
import torch
from mmdet.models.backbones import PyramidVisionTransformerV2 as PVTv2
from mmengine.logging import MMLogger
from mmengine.model import PretrainedInit
from planted import RETINANET, load
from safetensors.torch import save_file

from mmdet_backbones import PretrainedWeightsError, TIMMBackbone
from mmdet_backbones.check.config import check_config
from mmdet_backbones.detector_config.weights import pretrained_of
from mmdet_backbones.weights import CheckpointError, load_pretrained, read_checkpoint
from mmdet_backbones.weights.loading.init_cfg import drop_pretrained, split_init_cfg

NET = 'resnet18'


def scrambled(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a net with every value changed, statistics included."""
    return {
        k: torch.rand_like(v) if v.is_floating_point() else v
        for k, v in model.state_dict().items()
    }


def backbone(checkpoint=None, **arguments) -> TIMMBackbone:
    init_cfg = None
    if checkpoint is not None:
        keys = ('prefix', 'min_coverage')
        options = {k: arguments.pop(k) for k in keys if k in arguments}
        init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), **options)
    return TIMMBackbone(NET, init_cfg=init_cfg, **arguments)


@pytest.fixture(scope='module')
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return scrambled(timm.create_model(NET))


def assert_loaded(net: TIMMBackbone, weights: dict[str, torch.Tensor]) -> None:
    for key, value in net.state_dict().items():
        assert torch.equal(value, weights[key.removeprefix('timm_model.')]), key


@pytest.mark.parametrize(
    'wrap',
    [
        lambda w: w,
        lambda w: {'state_dict': w},
        lambda w: {'model': w, 'epoch': 3},
        lambda w: {'state_dict_ema': w, 'state_dict': {}},
        lambda w: {f'module.{k}': v for k, v in w.items()},
        lambda w: {'state_dict': {f'backbone.{k}': v for k, v in w.items()}},
        lambda w: {'state_dict': {f'backbone.timm_model.{k}': v for k, v in w.items()}},
    ],
    ids=['plain', 'state_dict', 'model', 'ema', 'module.', 'backbone.', 'mmpretrain'],
)
def test_wrappers_are_taken_off(tmp_path, weights, wrap):
    path = tmp_path / 'net.pth'
    torch.save(wrap(weights), path)
    net = backbone(path)
    net.init_weights()
    assert_loaded(net, weights)
    assert net.load_report.coverage == 1


def test_safetensors(tmp_path, weights):
    path = tmp_path / 'net.safetensors'
    save_file(weights, path)
    net = backbone(path)
    net.init_weights()
    assert_loaded(net, weights)


def test_prefix_is_stripped(tmp_path, weights):
    path = tmp_path / 'net.pth'
    torch.save({f'encoder.{k}': v for k, v in weights.items()}, path)
    net = backbone(path, prefix='encoder')
    net.init_weights()
    assert_loaded(net, weights)


def test_wrong_prefix_names_those_there_are(tmp_path, weights):
    path = tmp_path / 'net.pth'
    torch.save({f'encoder.{k}': v for k, v in weights.items()}, path)
    with pytest.raises(PretrainedWeightsError, match='Its keys start with encoder'):
        backbone(path, prefix='backbone').init_weights()


def test_forgotten_prefix_stops_the_run_and_changes_nothing(tmp_path, weights):
    path = tmp_path / 'net.pth'
    torch.save({f'net.{k}': v for k, v in weights.items()}, path)
    net = backbone(path)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(PretrainedWeightsError, match=r'0\.0%.*at least 95%') as error:
        net.init_weights()
    assert "prefix='net.')" in str(error.value)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


def test_another_width_is_refused_with_the_shapes(tmp_path):
    path = tmp_path / 'net.pth'
    torch.save(timm.create_model('resnet50').state_dict(), path)
    with pytest.raises(PretrainedWeightsError, match='of another shape'):
        backbone(path).init_weights()


def test_min_coverage_accepts_a_part(tmp_path, weights):
    path = tmp_path / 'net.pth'
    part = {k: v for k, v in weights.items() if not k.startswith('layer4')}
    torch.save(part, path)
    with pytest.raises(PretrainedWeightsError, match=r'min_coverage=0\.2'):
        backbone(path).init_weights()
    net = backbone(path, min_coverage=0.2)
    net.init_weights()
    assert 0.2 < net.load_report.coverage < 0.3
    assert any('layer4' in key for key in net.load_report.missing)


def test_levels_that_are_dropped_do_not_count(tmp_path, weights):
    path = tmp_path / 'net.pth'
    torch.save(weights, path)
    net = backbone(path, out_strides=(8,))
    net.init_weights()
    assert net.load_report.coverage == 1
    assert not any('layer3' in key for key in net.state_dict())


def test_the_report_is_logged(tmp_path, weights, caplog):
    path = tmp_path / 'net.pth'
    torch.save(weights, path)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        net = backbone(path)
        net.init_weights()
    finally:
        logger.removeHandler(caplog.handler)
    assert '100.0% of the backbone' in str(net.load_report)
    assert 'layer4' in str(net.load_report)
    assert any('100.0% of the backbone' in r.getMessage() for r in caplog.records)


def _efficientnet_pytorch(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename timm's Lite0 the other way round, by position and not by our rules."""
    order = [
        ('_conv_stem', 1), ('_bn0', 5),
        *((f'_blocks.0.{part}', count) for part, count in (
            ('_depthwise_conv', 1), ('_bn1', 5), ('_project_conv', 1), ('_bn2', 5))),
        *((f'_blocks.{n}.{part}', count) for n in range(1, 16) for part, count in (
            ('_expand_conv', 1), ('_bn0', 5), ('_depthwise_conv', 1), ('_bn1', 5),
            ('_project_conv', 1), ('_bn2', 5))),
        ('_conv_head', 1), ('_bn1', 5), ('_fc', 2),
    ]  # fmt: skip
    names = [name for name, count in order for _ in range(count)]
    assert len(names) == len(state) == 296
    leaves = [key.rsplit('.', 1)[1] for key in state]
    new = [f'{name}.{leaf}' for name, leaf in zip(names, leaves, strict=True)]
    return dict(zip(new, state.values(), strict=True))


def test_efficientnet_pytorch_names(tmp_path):
    model = timm.create_model('tf_efficientnet_lite0')
    state = scrambled(model)
    path = tmp_path / 'lite0.pth'
    torch.save(_efficientnet_pytorch(state), path)
    net = TIMMBackbone(
        'tf_efficientnet_lite0', init_cfg=dict(type='Pretrained', checkpoint=str(path))
    )
    net.init_weights()
    report = net.load_report
    assert (report.dialect, report.coverage) == ('efficientnet-pytorch', 1)
    assert report.heads == 8
    assert report.unexpected == ()
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key.removeprefix('timm_model.')]), key


def test_flattened_names_of_timm(tmp_path):
    state = scrambled(timm.create_model('convnext_atto'))
    path = tmp_path / 'net.pth'
    torch.save(state, path)
    net = TIMMBackbone(
        'convnext_atto', init_cfg=dict(type='Pretrained', checkpoint=str(path))
    )
    net.init_weights()
    assert net.load_report.coverage == 1
    value = net.state_dict()['timm_model.stages_2.blocks.0.mlp.fc1.weight']
    assert torch.equal(value, state['stages.2.blocks.0.mlp.fc1.weight'])


class _Payload:
    def __reduce__(self):
        return print, ('this must never be printed',)


def test_pickles_are_not_executed(tmp_path, capsys):
    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'payload': _Payload()}, path)
    with pytest.raises(CheckpointError, match='and is not opened'):
        read_checkpoint(str(path))
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('content', [b'', b'not weights', b'PK\x03\x04' + b'\0' * 64])
def test_broken_files_get_a_clear_error(tmp_path, suffix, content):
    path = tmp_path / f'broken{suffix}'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match='broken'):
        read_checkpoint(str(path))


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('/nowhere/net.pth', 'is not there'),
        ('/', 'is a directory'),
        ('s3://bucket/net.pth', 's3:// is not supported'),
    ],
)
def test_sources_that_cannot_be_read(source, message):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(source)


def test_a_file_without_tensors(tmp_path):
    path = tmp_path / 'meta.pth'
    torch.save({'epoch': 3}, path)
    with pytest.raises(CheckpointError, match='holds no weights'):
        read_checkpoint(str(path))


def test_init_cfg_is_split():
    pretrained, others = split_init_cfg(
        [
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Pretrained', checkpoint='a.pth', prefix='backbone.'),
        ]
    )
    assert pretrained == [dict(checkpoint='a.pth', prefix='backbone.')]
    assert others == [dict(type='Kaiming', layer='Conv2d')]
    assert split_init_cfg(None) == ([], [])


@pytest.mark.parametrize('extra', [{'strict': True}, {}])
def test_unknown_arguments_of_init_cfg(extra):
    with pytest.raises(TypeError, match='takes checkpoint'):
        split_init_cfg(dict(type='Pretrained', **extra))


@pytest.mark.parametrize(
    'init_cfg', ['net.pth', dict(checkpoint='net.pth'), [{}], ['net.pth'], 3]
)
def test_an_init_cfg_that_is_none_says_what_to_write(init_cfg):
    net = TIMMBackbone(NET, init_cfg=init_cfg)
    with pytest.raises(TypeError, match=r"write init_cfg=dict\(type='Pretrained'"):
        net.init_weights()
    with pytest.raises(TypeError, match='init_cfg must be'):
        pretrained_of(dict(type='ResNet', init_cfg=init_cfg))


@pytest.mark.parametrize('init_cfg', ['net.pth', dict(checkpoint='net.pth')])
def test_the_check_of_a_config_reports_such_an_init_cfg(tmp_path, init_cfg):
    backbone = dict(_delete_=True, type='mmdet_backbones.ResNet', depth=50)
    model = dict(backbone=dict(**backbone, init_cfg=init_cfg))
    findings = check_config(load(tmp_path, RETINANET, model=model))
    finding = next(f for f in findings if 'init_cfg must be' in f.problem)
    assert (finding.rule, finding.key) == ('weights', 'model.backbone.init_cfg')
    assert "write init_cfg=dict(type='Pretrained'" in finding.problem
    # The check goes on with what was meant.
    (other,) = (f for f in findings if f is not finding and f.severity == 'error')
    assert 'net.pth' in other.problem


@pytest.mark.parametrize(
    'kind', ['SwinTransformer', 'mmdet.PyramidVisionTransformer', PVTv2]
)
def test_classes_of_mmdet_that_imply_the_type(kind):
    part = dict(type=kind, init_cfg=dict(checkpoint='a.pth'))
    assert pretrained_of(part).checkpoint == 'a.pth'
    assert [entry['checkpoint'] for entry in drop_pretrained(part)] == ['a.pth']
    assert part['init_cfg'] is None


def test_pretrained_weights_are_taken_out_of_a_config():
    other = dict(type='Kaiming', layer='Conv2d')
    here, far = (dict(type='Pretrained', checkpoint=c) for c in ('a.pth', 'b.pth'))
    part = dict(init_cfg=[far, other, here])
    dropped = drop_pretrained(part, unless=lambda entry: entry is here)
    assert (dropped, part) == ([far], dict(init_cfg=[other, here]))
    part = dict(init_cfg=dict(type=PretrainedInit, checkpoint='a.pth'))
    assert drop_pretrained(part) == [dict(type=PretrainedInit, checkpoint='a.pth')]
    assert part == dict(init_cfg=None)
    for init_cfg in (None, other, []):
        part = dict(init_cfg=init_cfg)
        assert (drop_pretrained(part), part) == ([], dict(init_cfg=init_cfg))


def test_min_coverage_out_of_range(tmp_path):
    with pytest.raises(ValueError, match='from 0 to 1'):
        load_pretrained(backbone(), 'net.pth', min_coverage=95)
