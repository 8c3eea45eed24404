"""A swapped config on a data set of one's own."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmdet_backbones.swap.swapping import SwapOptions, save, swap_backbone

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
MASK = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
YOLOX = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
VOC_BASE = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'


def coco(root: Path, *names: str, annotations: str = 'annotations') -> Path:
    """Two images with one box each, in COCO's format."""
    (root / annotations).mkdir(parents=True, exist_ok=True)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(names)]
    for split in ('train', 'val'):
        (root / split).mkdir()
        Image.new('RGB', (64, 48), (90, 90, 90)).save(root / split / '1.png')
        box = dict(id=1, image_id=1, category_id=1, bbox=[4, 4, 40, 40], area=1600)
        content = dict(
            images=[dict(id=1, file_name='1.png', width=64, height=48)],
            annotations=[dict(box, iscrowd=0)],
            categories=categories,
        )
        path = root / annotations / f'{split}.json'
        path.write_text(json.dumps(content))
    return root


def voc(root: Path) -> Path:
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    for name in ('a', 'b'):
        Image.new('RGB', (64, 48), (90, 90, 90)).save(root / f'JPEGImages/{name}.jpg')
        (root / f'Annotations/{name}.xml').write_text(
            '<annotation><size><width>64</width><height>48</height></size>'
            '<object><name>tree</name><difficult>0</difficult><bndbox><xmin>5</xmin>'
            '<ymin>5</ymin><xmax>45</xmax><ymax>45</ymax></bndbox></object>'
            '</annotation>'
        )
    (root / 'ImageSets/Main/train.txt').write_text('a\n')
    (root / 'ImageSets/Main/val.txt').write_text('b\n')
    return root


def built(config: Config, loader: str):
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    register_all_modules()
    return DATASETS.build(config[loader].dataset)


def swapped(base: str, data: Path, tmp_path: Path) -> Config:
    out = tmp_path / 'swapped.py'
    save(SwapOptions(base, 'res2net50_26w_4s', out, data=str(data), force=True))
    return Config.fromfile(out)


@pytest.mark.parametrize(
    ('base', 'annotations'),
    [
        (FASTER, 'annotations'),
        (YOLOX, '.'),
        pytest.param(FASTER, '.', marks=pytest.mark.slow),
        pytest.param(YOLOX, 'annotations', marks=pytest.mark.slow),
    ],
)
def test_a_folder_in_the_format_of_coco(tmp_path, base, annotations):
    data = coco(tmp_path / 'data', 'tree', 'shrub', annotations=annotations)
    config = swapped(base, data, tmp_path)
    head = config.model.get('bbox_head') or config.model.roi_head.bbox_head
    assert head.num_classes == 2
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = built(config, loader)
        assert dataset.metainfo['classes'] == ('tree', 'shrub')
        assert len(dataset) == 1
        assert dataset[0]['inputs'].shape[0] == 3
    for name in ('val_evaluator', 'test_evaluator'):
        evaluator = config[name]
        assert evaluator.type == 'CocoMetric'
        assert Path(evaluator.ann_file).is_file()


@pytest.mark.parametrize('base', [FASTER, YOLOX])
def test_a_folder_as_in_pascal_voc(tmp_path, base):
    config = swapped(base, voc(tmp_path / 'data'), tmp_path)
    head = config.model.get('bbox_head') or config.model.roi_head.bbox_head
    assert head.num_classes == 1
    for loader in ('train_dataloader', 'val_dataloader'):
        dataset = built(config, loader)
        assert len(dataset) == 1
        # The mosaic may leave no box in the picture: the same one every time.
        np.random.seed(0)
        random.seed(0)
        sample = dataset[0]['data_samples']
        # The mosaic of YOLOX shows the one image several times.
        assert sample.gt_instances.bboxes.shape[1] == 4
        assert set(sample.gt_instances.labels.tolist()) == {0}
    assert config.val_evaluator == dict(
        type='VOCMetric', metric='mAP', eval_mode='area'
    )


def test_coco_data_in_a_base_for_voc(tmp_path):
    data = coco(tmp_path / 'data', 'tree')
    config = swapped(VOC_BASE, data, tmp_path)
    dataset = built(config, 'train_dataloader')
    # The base repeats VOC2007 and VOC2012; here it is the folder once.
    assert type(dataset).__name__ == 'CocoDataset'
    assert config.val_evaluator.type == 'CocoMetric'


@pytest.mark.parametrize(
    ('order', 'words'),
    [
        (dict(data='nowhere'), ["no folder 'nowhere'"]),
        (dict(data='.'), ['annotations/train.json', 'annotations/val.json']),
        (dict(data='data', num_classes=5), ['--num-classes 5', 'has 1 classes (tree']),
    ],
)
def test_mistakes(tmp_path, monkeypatch, order, words):
    monkeypatch.chdir(tmp_path)
    coco(tmp_path / 'data', 'tree')
    with pytest.raises(ValueError, match='data') as caught:
        swap_backbone(SwapOptions(FASTER, 'res2net50_26w_4s', Path('out.py'), **order))
    for word in words:
        assert word in str(caught.value)


def test_masks_need_outlines(tmp_path):
    data = coco(tmp_path / 'data', 'tree')
    with pytest.raises(ValueError, match='learns masks'):
        swapped(MASK, data, tmp_path)


def test_other_classes_to_validate_with(tmp_path):
    data = coco(tmp_path / 'data', 'tree')
    path = data / 'annotations/val.json'
    content = json.loads(path.read_text())
    content['categories'][0]['name'] = 'shrub'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='shrub, tree in one of them only'):
        swapped(FASTER, data, tmp_path)


def test_other_classes_to_test_with(tmp_path):
    data = coco(tmp_path / 'data', 'tree')
    (data / 'test').mkdir()
    content = json.loads((data / 'annotations/val.json').read_text())
    content['categories'][0]['name'] = 'shrub'
    (data / 'annotations/test.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'training and test .*shrub, tree in one'):
        swapped(FASTER, data, tmp_path)


@pytest.mark.slow
def test_the_printed_command_trains(tmp_path, run_python):
    """Layer-wise rates, data and heads as written, through the Runner."""
    data = coco(tmp_path / 'data', 'tree')
    out = tmp_path / 'swapped.py'
    save(SwapOptions(YOLOX, 'timm/convnext_atto', out, data=str(data)))
    done = run_python(
        'tools/train.py', str(out), '--work-dir', str(tmp_path / 'work'),
        '--cfg-options', 'model.backbone.init_cfg=None', 'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=1', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False', 'train_cfg.val_interval=1',
        'train_dataloader.dataset.pipeline.4.scale=(128,128)',
        'val_dataloader.dataset.pipeline.1.scale=(128,128)',
        'model.data_preprocessor.batch_augments.0.random_size_range=(128,128)',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert '13 layer groups of TIMMBackbone' in done.stdout + done.stderr
    assert 'Epoch(val)' in done.stdout + done.stderr
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
