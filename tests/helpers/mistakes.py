"""Mistakes that a line mends: of arguments, of sizes, of weights, of any config."""

from __future__ import annotations

from planted import R18, R18_FPN, RETINANET, YOLOX, merged

from mmdet_backbones.arguments import arguments_of
from mmdet_backbones.detector_config.neck_rules import reader_of
from mmdet_backbones.registry import MODELS

CONTEXT = dict(type='ContextBlock', ratio=1.0 / 16)
PLUGINS = [dict(cfg=CONTEXT, stages=(False, True, True, True), position='after_conv3')]
# What mmdet's ResNet takes, as it is copied into the dict of another backbone.
FOREIGN = dict(
    plugins=PLUGINS,
    style='pytorch',
    dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
)
OTHERS = {
    'timm': R18,
    'torchvision': dict(
        R18,
        type='mmdet_backbones.TorchvisionBackbone',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    ),
    'mmpretrain': dict(
        _delete_=True,
        type='mmdet_backbones.MMPretrainBackbone',
        model=dict(type='ResNet', depth=18, drop_path_rate=0.1),
        out_strides=(4, 8, 16, 32),
    ),
    'ours of mmpretrain': dict(
        _delete_=True, type='mmdet_backbones.ConvNeXt', arch='atto'
    ),
}


def on(backbone, **arguments):
    """RetinaNet on a net of 64 to 512 channels."""
    return RETINANET, dict(R18_FPN, backbone=dict(backbone, **arguments))


OURS = dict(_delete_=True, type='mmdet_backbones.ResNet', depth=18)
INHERITING = dict(type='mmdet_backbones.TIMMBackbone', model_name='resnet18')
PYRAMID = dict(_delete_=True, type='mmdet_backbones.TIMMBackbone')

MISTAKES = {
    **{
        f'{argument} on a backbone of {source}': on(
            net, **{argument: FOREIGN[argument]}
        )
        for source, net in OTHERS.items()
        for argument in FOREIGN
    },
    **{
        f'frozen_stage on a backbone of {source}': on(net, frozen_stage=1)
        for source, net in OTHERS.items()
    },
    'a typo in weights beside _delete_': on(
        R18, init_cfg=dict(type='Pretrained', chekpoint='timm://resnet18')
    ),
    'a typo in inherited weights': (
        RETINANET,
        dict(backbone=dict(init_cfg=dict(prefx='backbone.'))),
    ),
    'weights as mmdet 2 has them': (
        RETINANET,
        dict(pretrained='torchvision://resnet50'),
    ),
    'plugins in front of YOLOX': (
        YOLOX,
        dict(
            backbone=dict(R18, out_strides=(8, 16, 32), plugins=PLUGINS),
            neck=dict(in_channels=[128, 256, 512]),
        ),
    ),
    'a typo beside the right argument': on(R18, frozen_stages=1, frozen_stage=1),
    'a typo in the net of mmpretrain': on(
        OTHERS['mmpretrain'], model=dict(type='ResNet', depth=18, drop_path_rat=0.1)
    ),
    'stages frozen inside the net of mmpretrain': on(
        OTHERS['mmpretrain'],
        model=dict(type='ResNet', depth=18, frozen_stages=1, norm_eval=True),
        init_cfg=dict(type='Pretrained', checkpoint='no/such/resnet18.pth'),
    ),
    'style of the base, written again': on(R18, style='pytorch', depth=50),
    'arguments of the base and a typo': on(INHERITING, frozen_stage=1),
    'arguments of the base and plugins': on(INHERITING, plugins=PLUGINS),
    'arguments of the neck of the base': (
        RETINANET,
        merged(
            R18_FPN,
            neck=dict(type='mmdet_backbones.SimpleFeaturePyramid', in_channels=512),
            backbone=dict(out_strides=(32,)),
        ),
    ),
    'a typo in the neck': (RETINANET, merged(R18_FPN, neck=dict(num_out=5))),
    'a typo in the head': (RETINANET, merged(R18_FPN, bbox_head=dict(num_class=80))),
    'a number of levels and their strides': on(R18, out_indices=(1, 2, 3, 4)),
    'levels of a ResNet on a ConvNeXt': on(
        dict(PYRAMID, model_name='convnext_atto'), out_indices=(1, 2, 3, 4)
    ),
    'levels deep to shallow': on(R18, out_strides=(32, 16, 8, 4)),
    'a level as a number': on(R18, out_strides=32),
    'more stages frozen than there are': on(R18, frozen_stages=9),
    'no number of stages frozen': on(R18, frozen_stages='every'),
    'a depth that is not there': on(OURS, depth=19),
    'a block of another depth': on(OURS, depth=50, block='basic'),
    'deformable convolutions of no kind': on(
        OURS, stage_with_dcn=(False, True, True, True)
    ),
    'drop_path_rate of a VGG': on(
        dict(PYRAMID, model_name='vgg11_bn', out_strides=(4, 8, 16, 32)),
        drop_path_rate=0.1,
    ),
    'norm_layer of a ConvNeXt': on(
        dict(PYRAMID, model_name='convnext_atto'), norm_layer='FrozenBN'
    ),
    'output_stride of an EdgeNeXt': on(
        dict(PYRAMID, model_name='edgenext_xx_small'), output_stride=16
    ),
    'weights from two sources': on(R18, pretrained=True),
    'a path as pretrained': on(R18, pretrained='model.pth', init_cfg=None),
    'weights as a string': on(R18, init_cfg='timm://resnet18'),
    'a tag that is not there': on(
        R18, init_cfg=dict(type='Pretrained', checkpoint='timm://resnet18.nope')
    ),
    'a size that CoaT does not take': on(
        dict(PYRAMID, model_name='coat_lite_tiny'), img_size=(800, 1333)
    ),
}

# Nets of several strides that hang on the size of the image.
SIZES = {
    name: on(
        dict(PYRAMID, model_name=name, out_strides=(4, 8, 16, 32)),
        img_size=(800, 1333),
    )
    for name in (
        'coatnet_0_224',
        'efficientformer_l1',
        'gcvit_xxtiny',
        'hiera_tiny_224',
        'maxvit_tiny_tf_224',
        'mvitv2_tiny',
        'pvt_v2_b0',
        'swin_tiny_patch4_window7_224',
        'swinv2_tiny_window8_256',
        'twins_svt_small',
    )
}


def of_weights(path):
    """Mistakes of weights in a file of a ResNet-18, and whether a line mends them."""
    init = dict(type='Pretrained', checkpoint=path)
    host = dict(depth=18, init_cfg=dict(init, prefix='backbone'))
    return {
        'a prefix that no name has': (
            *on(R18, init_cfg=dict(init, prefix='backbone')),
            True,
        ),
        'the same in a list': (
            *on(R18, init_cfg=[dict(init, prefix='backbone')]),
            True,
        ),
        'a prefix that mmdet would lose all with': (
            RETINANET,
            dict(backbone=host, neck=R18_FPN['neck']),
            True,
        ),
        'another depth': (*on(R18, model_name='resnet34', init_cfg=init), True),
        'a file of another name': (
            *on(R18, init_cfg=dict(init, checkpoint='x')),
            False,
        ),
    }


def _class(backbone):
    return MODELS.get(str(backbone['type']).rpartition('.')[2])


def _foreign(model):
    known, _ = arguments_of(_class(model['backbone']))
    wrong = {name: value for name, value in FOREIGN.items() if name not in known}
    return dict(backbone=wrong) if wrong else None


def _wrong_channels(model):
    place, reader, _ = reader_of(model)
    given = reader['in_channels']
    wrong = given + 8 if isinstance(given, int) else [given[0] + 8, *given[1:]]
    settings = dict(in_channels=wrong)
    for step in reversed(place):
        settings = {step: settings}
    return settings


def _shallower(model):
    strides = model['backbone'].get('out_strides')
    if strides is None or len(strides) < 2:
        return None
    return dict(backbone=dict(out_strides=tuple(s // 2 for s in strides)))


def _delete_forgotten(model):
    timm = 'TIMMBackbone' in str(model['backbone']['type'])
    other = dict(type='mmdet_backbones.ResNet', depth=18) if timm else INHERITING
    known, _ = arguments_of(_class(other))
    stays = all(name in known for name in model['backbone'] if name != '_scope_')
    return None if stays else dict(backbone=other)


# From the model of a shipped config to what a user adds to it; None where it cannot be.
ZOO_MISTAKES = {
    'mean of nothing': lambda model: dict(data_preprocessor=dict(mean=[0.0, 0.0, 0.0])),
    'channels of the other order': lambda model: dict(
        data_preprocessor=dict(
            bgr_to_rgb=not model['data_preprocessor'].get('bgr_to_rgb', False)
        )
    ),
    'frozen_stage': lambda model: dict(backbone=dict(frozen_stage=1)),
    'out_indice': lambda model: dict(backbone=dict(out_indice=(1, 2, 3))),
    'more stages than there are': lambda model: dict(backbone=dict(frozen_stages=99)),
    'foreign arguments': _foreign,
    'channels of the neck': _wrong_channels,
    'levels of half the strides': _shallower,
    '_delete_ forgotten': _delete_forgotten,
}
