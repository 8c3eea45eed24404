"""A config as a tree: walked, its data sets found, read by name, written as text."""

import pytest
from mmengine.config import Config

from mmdet_backbones.detector_config.detector import DetectorConfig
from mmdet_backbones.detector_config.read import read_by_name
from mmdet_backbones.detector_config.text import Code, assignment, nested, render
from mmdet_backbones.detector_config.tree import dataset_of, datasets_in, walk
from mmdet_backbones.errors import UserError


def test_every_dict_comes_with_its_place_and_may_be_changed():
    model = dict(a=dict(type='A', b=[dict(type='B'), (dict(type='C'),)]))
    places = []
    for place, part in walk(model):
        places.append(place)
        part.pop('type', None)
    assert places == [(), ('a',), ('a', 'b', 0), ('a', 'b', 1, 0)]
    assert model == dict(a=dict(b=[{}, ({},)]))


def test_a_data_set_is_found_inside_what_wraps_it():
    inner = dict(type='CocoDataset', pipeline=[dict(dataset=dict(type='Other'))])
    joined = dict(type='ConcatDataset', datasets=[inner, dict(type='Second')])
    config = dict(
        train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=inner)),
        val_dataloader=dict(dataset=joined),
        test_dataloader=None,
    )
    assert dataset_of(config, 'train') is inner
    assert dataset_of(config, 'val') is joined
    assert dataset_of(config, 'test') == {}
    assert [place for place, _ in datasets_in(config['val_dataloader'])] == [
        ('dataset',),
        ('dataset', 'datasets', 0),
        ('dataset', 'datasets', 1),
    ]


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (
            'mmdet::fastr_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
            'Nearest: mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        ),
        ('configs/yolox/yolox_efficientnet_trees.py', 'yolox_efficientnet-lite0_trees'),
        ('nowhere::a/b.py', "no config 'nowhere::a/b.py': mmengine does not support"),
    ],
)
def test_a_name_that_is_not_there(name, message):
    with pytest.raises(UserError, match=message):
        read_by_name(name)


def test_a_list_is_written_anew_in_one_line_where_its_entries_change_alike():
    base = dict(heads=[dict(n=80, kind='a'), dict(n=80, kind='b')])
    alike = nested(base, {('heads', 0, 'n'): 2, ('heads', 1, 'n'): 2})
    assert alike == dict(heads=Code('[dict(part, n=2) for part in _base_.model.heads]'))
    one = nested(base, {('heads', 1): dict(_delete_=True, kind='c'), ('x', 'y'): 1})
    assert one == dict(heads=[dict(n=80, kind='a'), dict(kind='c')], x=dict(y=1))
    assert base['heads'][1] == dict(n=80, kind='b')


def test_what_is_too_long_for_a_line_is_broken_and_a_string_is_not():
    address = f'https://{"x" * 90}.pth'
    value = dict(init_cfg=dict(type='Pretrained', checkpoint=address), out=(16,))
    text = assignment('backbone', value)
    assert f"checkpoint='{address}'" in text
    assert 'out=(16,)' in text
    assert eval(render(value)) == value


def test_what_cannot_be_had_is_raised():
    model = dict(type='FCOS', backbone=dict(type='ResNet', depth=51), neck=None)
    detector = DetectorConfig(Config(dict(model=model)))
    with pytest.raises(UserError, match='51'):
        detector.levels  # noqa: B018
    with pytest.raises(UserError, match='has no neck'):
        detector.reader  # noqa: B018
