"""How many images a config trains on."""

import json

import pytest

from mmdet_backbones.own_data.counting import count_images


@pytest.fixture
def config(tmp_path):
    """Three images in COCO's format, and a list of two as in Pascal VOC."""
    content = dict(images=[dict(id=i, file_name=f'{i}.png') for i in range(3)])
    (tmp_path / 'train.json').write_text(json.dumps(content))
    (tmp_path / 'train.txt').write_text('a\nb\n\n')
    coco = dict(type='CocoDataset', data_root=f'{tmp_path}/', ann_file='train.json')
    voc = dict(type='XMLDataset', data_root=str(tmp_path), ann_file='train.txt')

    def make(name: str) -> dict:
        repeated = dict(type='RepeatDataset', times=5, dataset=coco)
        dataset = {
            'coco': coco,
            'voc': voc,
            'mixed': dict(type='MultiImageMixDataset', dataset=coco, pipeline=[]),
            'repeated': repeated,
            'joined': dict(type='ConcatDataset', datasets=[repeated, voc]),
            'half there': dict(
                type='ConcatDataset', datasets=[coco, dict(ann_file='no.json')]
            ),
            'absent': dict(coco, ann_file='absent.json'),
            'whole path': dict(ann_file=str(tmp_path / 'train.json')),
            'none': None,
        }[name]
        return dict(train_dataloader=dict(dataset=dataset))

    return make


@pytest.mark.parametrize(
    ('name', 'count'),
    [
        ('coco', 3),
        ('voc', 2),
        ('mixed', 3),
        ('repeated', 15),
        ('joined', 17),
        ('whole path', 3),
        ('half there', None),
        ('absent', None),
        ('none', None),
    ],
)
def test_images_of_an_epoch(config, name, count):
    assert count_images(config(name)) == count


@pytest.mark.parametrize('text', ['', '[]', '{"images": 3}', '{"images": []}', '\0\0'])
def test_a_damaged_file_tells_nothing(config, tmp_path, text):
    (tmp_path / 'train.json').write_text(text)
    assert count_images(config('coco')) is None


def test_no_data_at_all():
    assert count_images({}) is None
    assert count_images(dict(train_dataloader=None)) is None
