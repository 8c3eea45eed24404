"""A synthetic data set, the demo's config on it, and what makes a run on it short."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

TREES = 'configs/yolox/yolox_efficientnet-lite0_trees.py'
SMALL = (
    'train_dataloader.dataset.pipeline.2.scale=(128,128)',
    'train_dataloader.dataset.pipeline.3.crop_size=(96,96)',
    'train_dataloader.dataset.pipeline.6.size=(96,96)',
    'val_dataloader.dataset.pipeline.1.scale=(128,128)',
    'test_dataloader.dataset.pipeline.1.scale=(128,128)',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
)


def draw_squares(root: Path) -> Path:
    """Draw a synthetic data set in COCO format: dark squares on noise."""
    generator = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 2)):
        (root / split).mkdir()
        images, boxes = [], []
        for number in range(1, count + 1):
            noise = generator.integers(150, 255, (96, 128, 3), dtype=np.uint8)
            picture = Image.fromarray(noise)
            for x, y in ((10, 12), (70, 40)):
                box = (x, y, x + 30, y + 30)
                ImageDraw.Draw(picture).rectangle(box, fill=(30, 30, 30))
                boxes.append(
                    dict(id=len(boxes) + 1, image_id=number, category_id=1, area=900,
                         bbox=[x, y, 30, 30], iscrowd=0)
                )  # fmt: skip
            name = f'{number}.png'
            picture.save(root / split / name)
            images.append(dict(id=number, file_name=name, width=128, height=96))
        content = dict(
            images=images, annotations=boxes, categories=[dict(id=1, name='tree')]
        )
        (root / f'{split}.json').write_text(json.dumps(content))
    return root


def write_config(path: Path, squares: Path) -> Path:
    """Write the demo's config on the synthetic data, small and without weights."""
    root = f'{squares}/'
    path.write_text(
        f"_base_ = 'mmdet_backbones::{TREES.removeprefix('configs/')}'\n"
        'model = dict(backbone=dict(init_cfg=None, frozen_stages=-1,\n'
        '                           norm_eval=False))\n'
        f'data_root = {root!r}\n'
        f'train_dataloader = dict(dataset=dict(data_root={root!r}))\n'
        f'val_dataloader = dict(dataset=dict(data_root={root!r}))\n'
        f'test_dataloader = dict(dataset=dict(data_root={root!r}))\n'
        f'val_evaluator = dict(ann_file={root + "val.json"!r})\n'
        f'test_evaluator = dict(ann_file={root + "val.json"!r})\n'
        'train_cfg = dict(max_epochs=2, val_interval=2)\n'
        'default_hooks = dict(checkpoint=dict(save_best=None, max_keep_ckpts=3))\n'
    )
    return path
