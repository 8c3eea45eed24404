"""Small detectors that find something, with work folders as a training leaves them.

Their weights are random, and the scores are stretched: what they find is synthetic.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from planted import merged
from small_detectors import OURS, build, save, small_config

CLASSES = ('tree', 'shrub', 'rock')
SIZE = (160, 128)


def photographs(folder: Path, count: int = 3, size=SIZE) -> Path:
    """Draw synthetic photographs: rectangles on noise."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(90, 160, (size[1], size[0], 3), dtype=np.uint8)
        for _ in range(6):
            x, y = random.integers(0, size[0] - 24), random.integers(0, size[1] - 24)
            pixels[y : y + 24, x : x + 24] = random.integers(0, 255, 3)
        Image.fromarray(pixels).save(folder / f'{number}.png')
    return folder


def work_folder(folder: Path, data: Path | None = None) -> Path:
    """Make a config and a checkpoint of a detector that is sure of some boxes.

    Args:
        folder: That they go to.
        data: Data set with val.json and val/, to test on.

    Returns:
        The folder, with ``best_coco_bbox_mAP_epoch_3.pth``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=SIZE, keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape',
                                              'img_shape', 'scale_factor')),
    ]  # fmt: skip
    dataset = dict(
        _delete_=True, type='CocoDataset', metainfo=dict(classes=CLASSES),
        data_root=f'{data}/', ann_file='val.json', data_prefix=dict(img='val/'),
        test_mode=True, pipeline=pipeline,
    )  # fmt: skip
    loader = dict(dataset=dataset, num_workers=0, persistent_workers=False)
    evaluator = dict(ann_file=f'{data}/val.json')
    model = merged(OURS, bbox_head=dict(num_classes=len(CLASSES)))
    config = small_config(
        folder, model, val_dataloader=loader, test_dataloader=loader,
        val_evaluator=evaluator, test_evaluator=evaluator,
    )  # fmt: skip
    torch.manual_seed(0)
    detector = build(config)
    with torch.no_grad():
        detector.bbox_head.retina_cls.weight.normal_(0, 0.3)
        detector.bbox_head.retina_cls.bias.fill_(-2)
        detector.bbox_head.retina_reg.weight.normal_(0, 0.02)
    save(folder / 'best_coco_bbox_mAP_epoch_3.pth', detector.state_dict())
    return folder


def truth_from(found, path: Path, images: list[Path]) -> None:
    """Write a synthetic truth: some of the boxes that were found, moved a little."""
    random = np.random.default_rng(0)
    entries, boxes = [], []
    for number, name in enumerate((p.name for p in images), 1):
        entries.append(
            dict(id=number, file_name=name, width=SIZE[0], height=SIZE[1])
        )  # fmt: skip
        one = found[number - 1]
        for i in random.choice(len(one.scores), 12, replace=False):
            x0, y0, x1, y1 = one.boxes[i] + random.normal(0, 0.7, 4)
            size = [float(max(x1 - x0, 2)), float(max(y1 - y0, 2))]
            boxes.append(
                dict(id=len(boxes) + 1, image_id=number, iscrowd=0,
                     category_id=int(one.labels[i]) * 2 + 7, area=size[0] * size[1],
                     bbox=[float(x0), float(y0), *size])
            )  # fmt: skip
    categories = [dict(id=i * 2 + 7, name=name) for i, name in enumerate(CLASSES)]
    content = dict(images=entries, annotations=boxes, categories=categories)
    path.write_text(json.dumps(content))
