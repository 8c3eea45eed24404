"""How configs/README.md points the shipped configs at other data."""

import argparse
import functools
import json
import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.evaluator import Evaluator
from PIL import Image

from mmdet_backbones.cli.flags import add_config_flags
from mmdet_backbones.detector_config.read import read_config
from mmdet_backbones.engine.launch import require_data

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(
    {path.parent.name for path in (ROOT / 'configs').glob('[!_]*/*_coco.py')}
)


@pytest.fixture(scope='module', autouse=True)
def _metafiles_are_read_once():
    """mmengine reads a hundred of mmdet's metafiles for every base otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_utils, 'load', functools.cache(config_utils.load))
        yield


def readme_examples():
    """Configs and their flags as configs/README.md shows them."""
    text = (ROOT / 'configs' / 'README.md').read_text()
    for block in re.findall(r'```\n(.*?)```', text, flags=re.DOTALL):
        words = shlex.split(block.replace('\\\n', ' '))
        assert words[:2] == ['mmdet-backbones', 'train']
        yield words[2:]


def write_images(folder, count):
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new('RGB', (64, 48), (90, 140, 60)).save(folder / f'{number}.jpg')


def write_coco(root):
    for split in ('train', 'val'):
        write_images(root / split, 3)
        images = [
            dict(id=n, file_name=f'{n}.jpg', width=64, height=48) for n in range(3)
        ]
        boxes = [
            dict(
                id=n,
                image_id=n,
                category_id=n % 2,
                bbox=[8, 8, 24, 20],
                area=480,
                iscrowd=0,
            )
            for n in range(3)
        ]
        names = [dict(id=0, name='apple'), dict(id=1, name='pear')]
        content = dict(images=images, annotations=boxes, categories=names)
        (root / f'{split}.json').write_text(json.dumps(content))


def write_voc(root):
    write_images(root / 'JPEGImages', 4)
    lists, labels = root / 'ImageSets' / 'Main', root / 'Annotations'
    lists.mkdir(parents=True)
    labels.mkdir()
    for split, numbers in dict(trainval='0 1 2', test='3').items():
        (lists / f'{split}.txt').write_text(numbers.replace(' ', '\n'))
    for number in range(4):
        (labels / f'{number}.xml').write_text(
            '<annotation><size><width>64</width><height>48</height></size>'
            '<object><name>dog</name><difficult>0</difficult><bndbox><xmin>8</xmin>'
            '<ymin>8</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>'
            '</annotation>'
        )


def test_readme_points_configs_at_other_data(tmp_path, monkeypatch):
    from mmdet.datasets import VOCDataset
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    register_all_modules()
    write_coco(tmp_path / 'data' / 'fruit')
    write_voc(tmp_path / 'data' / 'VOCdevkit' / 'VOC2007')
    expected = [(('apple', 'pear'), 2), (VOCDataset.METAINFO['classes'], 20)]
    parser = argparse.ArgumentParser()
    add_config_flags(parser)
    configs = []
    monkeypatch.chdir(ROOT)
    for words in readme_examples():
        configs.append(read_config(parser.parse_args(words)))
    monkeypatch.chdir(tmp_path)
    for config, (classes, count) in zip(configs, expected, strict=True):
        require_data(config, 'train', 'val')
        sizes = []
        for loader in (config.train_dataloader, config.val_dataloader):
            data = DATASETS.build(loader.dataset)
            assert tuple(data.metainfo['classes']) == classes
            sizes.append(len(data))
            assert len(data[0]['inputs'].shape) == 3
        assert sizes in ([3, 3], [3, 1])
        Evaluator(config.val_evaluator)
        heads = config.model.get('roi_head') or config.model
        assert heads.bbox_head.num_classes == count == len(classes)


CLASSES = dict(
    cascade_rcnn=[f'model.roi_head.bbox_head.{n}.num_classes' for n in range(3)],
    faster_rcnn=['model.roi_head.bbox_head.num_classes'],
)


@pytest.mark.parametrize('folder', FOLDERS)
def test_readme_names_every_number_of_classes(folder):
    config = Config.fromfile(next((ROOT / 'configs' / folder).glob('*_coco.py')))
    keys = CLASSES.get(folder, ['model.bbox_head.num_classes'])
    text = (ROOT / 'configs' / 'README.md').read_text()
    assert f'`{keys[0]}`' in text
    config.merge_from_dict(dict.fromkeys(keys, 3))
    assert list(class_numbers(config.model.to_dict())) == [3] * len(keys)


def class_numbers(part):
    """Every number of classes below a part of a config."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        if key == 'num_classes':
            yield value
        if isinstance(value, (dict, list)):
            yield from class_numbers(value)
