"""Maps of one stride, as of a plain ViT, in front of DINO: they train."""

import pytest
from cures import applied
from planted import RETINANET, load

from mmdet_backbones.check.config import check_config
from mmdet_backbones.check.findings import describe, errors_of
from mmdet_backbones.check.trial import try_model

DINO = 'mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py'
VIT = dict(
    _delete_=True,
    type='mmdet_backbones.TIMMBackbone',
    model_name='vit_tiny_patch16_224',
    out_indices=(3, 5, 7, 9, 11),
    init_cfg=dict(type='Pretrained', checkpoint='timm://vit_tiny_patch16_224'),
)
ONE_LAYER = dict(num_layers=1)


def dino(tmp_path, **neck):
    model = dict(
        backbone=VIT,
        neck=dict(in_channels=[192] * 5, **neck),
        encoder=ONE_LAYER,
        decoder=ONE_LAYER,
        data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    )
    return load(tmp_path, DINO, model=model, train_dataloader=None)


def test_five_equal_maps_are_told_with_the_lines_of_a_pyramid(tmp_path):
    config = dino(tmp_path)
    (told,) = check_config(config)
    assert (told.severity, told.rule) == ('warning', 'levels')
    assert 'stride 16 comes 5 times' in told.problem
    assert told.cure[0] == 'model.backbone.out_indices = (11,)'
    after = applied(config, told.cure)
    assert check_config(after) == [], describe(check_config(after))
    assert after.model.neck[0].scale_factors == (4, 2, 1, 0.5)
    assert after.model.neck[1].in_channels == [256] * 4


@pytest.mark.slow
@pytest.mark.parametrize('pyramid', [False, True])
def test_both_train(pyramid, tmp_path):
    config = dino(tmp_path)
    if pyramid:
        config = applied(config, check_config(config)[0].cure)
    config.model.backbone.init_cfg = None
    assert errors_of(check_config(config, fast=False)) == []
    assert try_model(config.model).idle == ()


def test_equal_maps_are_an_error_where_strides_are_told(tmp_path):
    model = dict(backbone=dict(VIT, out_indices=(5, 7, 9, 11)),
                 neck=dict(in_channels=[192] * 4))  # fmt: skip
    findings = errors_of(check_config(load(tmp_path, RETINANET, model=model)))
    problem = next(f.problem for f in findings if f.rule == 'levels')
    assert 'stride 16 comes 4 times' in problem
