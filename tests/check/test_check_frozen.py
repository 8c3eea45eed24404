"""What stays random and never trains, whoever was thought to fill it."""

import pytest
import torch
from cures import applied
from planted import R18, RETINANET, load, merged
from small_detectors import HOSTS, OURS, build, save, small_config

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import describe, errors_of

QUIET = dict(train_dataloader=None)
FROZEN = dict(frozen_stages=1, norm_eval=True)
MOBILENET = dict(
    backbone=dict(_delete_=True, type='MobileNetV2', widen_factor=0.25,
                  out_indices=(1, 2, 4, 7), frozen_stages=1),
    neck=dict(in_channels=[8, 8, 16, 320], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
)  # fmt: skip


def random_ones(config):
    findings = check_config(config)
    return [f for f in findings if f.rule == 'frozen and random'], findings


def sound_after(config, findings):
    for finding in findings:
        config = applied(config, finding.cure)
    after = check_config(config)
    assert errors_of(after) == [], describe(after)


@pytest.mark.parametrize(
    'model',
    [
        merged(OURS, backbone=FROZEN),
        merged(HOSTS, backbone=FROZEN),
        # It freezes only when training begins.
        MOBILENET,
        merged(HOSTS, backbone=dict(norm_cfg=dict(type='mmdet_backbones.FrozenBN'))),
    ],
    ids=['ours', 'mmdet', 'mmdet, late', 'a frozen kind'],
)
def test_nothing_fills_what_is_frozen(model, tmp_path):
    config = small_config(tmp_path, model, **QUIET)
    found, findings = random_ones(config)
    assert found, describe(findings)
    sound_after(config, errors_of(findings))


def test_what_was_thought_to_fill_it(tmp_path):
    config = small_config(tmp_path, merged(HOSTS, backbone=FROZEN), **QUIET)
    whole = build(config).state_dict()
    heads = {k: v for k, v in whole.items() if not k.startswith('backbone')}
    stem_lost = {k: v for k, v in whole.items() if not k.startswith('backbone.bn1')}
    full, part, most = (
        save(tmp_path / f'{name}.pth', weights)
        for name, weights in dict(full=whole, part=heads, most=stem_lost).items()
    )
    for key in ('load_from', 'model.init_cfg'):
        for path, expected in ((full, False), (part, True), (most, True)):
            value = dict(type='Pretrained', checkpoint=path)
            new = applied(config, ())
            new.merge_from_dict({key: path if key == 'load_from' else value})
            found, findings = random_ones(new)
            assert bool(found) == expected, describe(findings)
    # An initialiser fills nothing that is learned, and is no mistake either.
    new = applied(config, ["model.init_cfg = {'type': 'Normal', 'std': 0.01}"])
    assert random_ones(new)[0]


def test_a_file_that_lacks_a_frozen_stem_only(tmp_path):
    config = small_config(tmp_path, merged(HOSTS, backbone=FROZEN), **QUIET)
    weights = build(config).backbone.state_dict()
    path = save(tmp_path / 'all.pth', weights)
    init_cfg = dict(type='Pretrained', checkpoint=path)
    config.model.backbone.init_cfg = init_cfg
    assert errors_of(check_config(config)) == []
    kept = {k: v for k, v in weights.items() if not k.startswith('bn1.')}
    save(path, kept)
    (finding,) = errors_of(check_config(config))
    assert '99' in finding.problem
    assert 'frozen, are bn1.weight' in finding.problem


def test_pretrained_of_old_configs(tmp_path):
    model = merged(HOSTS, backbone=dict(FROZEN, pretrained='torchvision://resnet18'))
    assert random_ones(small_config(tmp_path, model, **QUIET))[0] == []
    model = dict(merged(HOSTS, backbone=FROZEN), pretrained='torchvision://resnet18')
    _, findings = random_ones(small_config(tmp_path, model, **QUIET))
    (told,) = (f for f in findings if f.rule == 'arguments')
    init_cfg = "{'type': 'Pretrained', 'checkpoint': 'torchvision://resnet18'}"
    assert told.cure == (f'model.backbone.init_cfg = {init_cfg}',)
    assert told.remove == ('model.pretrained',)


def test_a_rate_of_zero_freezes_as_well(tmp_path):
    rates = {'backbone': dict(lr_mult=0), 'backbone.layer4': dict(lr_mult=0.1)}
    still = dict(paramwise_cfg=dict(custom_keys=rates))
    model = merged(OURS, backbone=dict(norm_eval=False))
    config = small_config(tmp_path, model, optim_wrapper=still, **QUIET)
    (finding,) = errors_of(check_config(config))
    assert "lr_mult=0 for 'backbone'" in finding.problem
    sound_after(config, [finding])


@pytest.mark.parametrize(
    ('backbone', 'cure'),
    [
        (
            {**{k: v for k, v in R18.items() if k != 'init_cfg'},
             'model_name': 'convnext_atto'},
            # Nothing is inherited there that _delete_ could take away.
            "model.backbone.init_cfg = {'type': 'Pretrained', "
            "'checkpoint': 'timm://convnext_atto'}",
        ),
        pytest.param(
            dict(_delete_=True, type='SwinTransformer', embed_dims=96,
                 depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]),
            None,
            marks=pytest.mark.slow,
        ),
    ],
    ids=['timm', 'mmdet'],
)  # fmt: skip
def test_nets_that_learn_little_from_random_weights(backbone, cure, tmp_path):
    channels = [96, 192, 384, 768] if cure is None else [40, 80, 160, 320]
    model = dict(backbone=backbone, neck=dict(in_channels=channels))
    config = load(tmp_path, RETINANET, model=model, **QUIET)
    findings = check_config(config)
    (told,) = findings
    assert (told.rule, told.severity) == ('random weights', 'warning')
    if cure is not None:
        assert told.cure == (cure,)
    after = check_config(applied(config, told.cure))
    assert 'random weights' not in [finding.rule for finding in after]
    meant = check_config(applied(config, ['model.backbone.init_cfg = None']))
    assert [(f.rule, f.severity) for f in meant] == [('random weights', 'note')]
    # A detector's checkpoint is as good.
    address = 'https://host.invalid/all.pth'
    assert check_config(applied(config, [f'load_from = {address!r}'])) == []


def test_nets_with_batch_normalisation_take_longer_from_random_weights(tmp_path):
    config = small_config(
        tmp_path, merged(OURS, backbone=dict(norm_eval=False)), **QUIET
    )
    config.model.backbone.base_channels = 64
    config.model.neck.in_channels = [64, 128, 256, 512]
    (told,) = check_config(config)
    assert 'takes a training several times as long' in told.problem
    assert 'If that is meant, write init_cfg=None' in told.problem
    assert check_config(applied(config, told.cure)) == []
    config.model.backbone.init_cfg = None
    assert [f.severity for f in check_config(config)] == ['note']


def test_a_vit_of_mmpretrain_fits_its_positions_while_it_loads(tmp_path):
    pytest.importorskip('mmpretrain.models')
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    backbone = dict(
        _delete_=True, type='mmpretrain.VisionTransformer', arch=arch, img_size=64,
        patch_size=16, out_type='featmap', with_cls_token=True)  # fmt: skip
    neck = dict(_delete_=True, type='mmdet_backbones.SimpleFeaturePyramid',
                in_channels=32, out_channels=16, num_outs=5)  # fmt: skip
    head = dict(in_channels=16, feat_channels=16, stacked_convs=1,
                anchor_generator=dict(strides=[4, 8, 16, 32, 64]))  # fmt: skip
    model = dict(backbone=backbone, neck=neck, bbox_head=head)
    config = load(tmp_path, RETINANET, model=model, **QUIET)
    weights = build(config).backbone.state_dict()
    path = save(tmp_path / 'vit.pth', weights)
    config.merge_from_dict(
        {
            'model.backbone.img_size': 128,
            'model.backbone.init_cfg': dict(type='Pretrained', checkpoint=path),
        }
    )
    rules = [f.rule for f in errors_of(check_config(config))]
    assert 'weights' not in rules
    save(path, {k: v for k, v in weights.items() if 'ffn' not in k})
    rules = [f.rule for f in errors_of(check_config(config))]
    assert 'weights' in rules


def test_a_swin_of_mmdet_takes_the_authors_names(tmp_path):
    backbone = dict(
        _delete_=True, type='SwinTransformer', embed_dims=12, depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 4], convert_weights=True)  # fmt: skip
    model = merged(OURS, neck=dict(in_channels=[12, 24, 48, 96]))
    config = load(tmp_path, RETINANET, model=dict(model, backbone=backbone), **QUIET)
    path = tmp_path / 'swin.pth'
    torch.save(dict(model=as_the_authors(build(config).backbone.state_dict())), path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='no notice taken')
    config.model.backbone.init_cfg = init_cfg
    findings = check_config(config)
    assert errors_of(findings) == [], describe(findings)
    config.model.backbone.convert_weights = False
    (finding,) = errors_of(check_config(config))
    assert finding.problem.startswith('0.0% of the parameters of SwinTransformer')


def as_the_authors(weights):
    renamed = {}
    for name, value in weights.items():
        name = name.replace('patch_embed.projection', 'patch_embed.proj')
        name = name.replace('stages.', 'layers.').replace('attn.w_msa.', 'attn.')
        name = name.replace('ffn.layers.0.0.', 'mlp.fc1.')
        name = name.replace('ffn.layers.1.', 'mlp.fc2.')
        renamed[name] = value
    return renamed


@pytest.mark.parametrize(
    ('changes', 'known'),
    [
        (dict(depth=18, base_channels=64), True),
        pytest.param(dict(depth=50, base_channels=64), True, marks=pytest.mark.slow),
        (dict(depth=50, base_channels=64, deep_stem=True), False),
        pytest.param(
            dict(depth=50, base_channels=64, avg_down=True),
            False,
            marks=pytest.mark.slow,
        ),
        (dict(depth=18, base_channels=8), False),
    ],
)
def test_weights_are_named_that_are_of_the_net(changes, known, tmp_path):
    model = merged(HOSTS, backbone=dict(changes, frozen_stages=-1, norm_eval=False))
    wide = changes['base_channels'] * (4 if changes['depth'] == 50 else 1)
    model = merged(model, neck=dict(in_channels=[wide << i for i in range(4)]))
    (told,) = check_config(small_config(tmp_path, model, **QUIET))
    assert told.rule == 'random weights'
    assert bool(told.cure) == known
    address = f"'torchvision://resnet{changes['depth']}'"
    assert not known or address in told.cure[0]
