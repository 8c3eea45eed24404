"""Annotations without images, for what only counts them."""

import json
from pathlib import Path


def annotations(root: Path, train: int, splits=('train', 'val')) -> Path:
    """Annotations in COCO's format; nothing here opens the images."""
    (root / 'annotations').mkdir(parents=True)
    for split in splits:
        (root / split).mkdir()
        count = range(train if split == 'train' else 2)
        content = dict(
            images=[dict(id=i, file_name=f'{i}.png', width=64, height=48)
                    for i in count],
            annotations=[dict(id=i, image_id=i, category_id=1, bbox=[4, 4, 40, 40],
                              area=1600, iscrowd=0) for i in count],
            categories=[dict(id=1, name='tree')],
        )  # fmt: skip
        path = root / f'annotations/{split}.json'
        path.write_text(json.dumps(content))
    return root
