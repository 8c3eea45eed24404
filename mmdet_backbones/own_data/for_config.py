"""A user's data set: what is in the folder, and how a detector's config reads it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..commands import command
from ..detector_config.text import Code
from ..detector_config.tree import datasets_in, type_name, walk
from ..errors import UserError
from .placing import STATE
from .scan import MOST_LIST, read_bytes, read_json, read_text

# Where annotations and images of a split may be, the usual place first.
_ANNOTATIONS = (
    'annotations/{}.json',
    '{}.json',
    'annotations/instances_{}.json',
    'annotations/instances_{}2017.json',
)
_IMAGES = ('{}', 'images/{}', '{}2017', 'images')
_LISTS = {'train': ('train', 'trainval'), 'val': ('val', 'test')}
_COLOURS = ((34, 139, 34), (220, 20, 60), (0, 0, 230), (255, 165, 0), (106, 0, 228))


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        annotations: File below the folder.
        images: Folder below it, ending in a slash.
    """

    annotations: str
    images: str


@dataclass(frozen=True)
class DataFolder:
    """A data set as it was found.

    Attributes:
        root: The folder, ending in a slash.
        kind: Name of mmdet's class that reads it.
        classes: In the order of the category numbers; alphabetical for VOC.
        train: To train on.
        val: To measure on while training.
        test: To measure on in the end; None to measure on ``val``.
        masks: Whether the annotations outline the objects.
    """

    root: str
    kind: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    masks: bool
    test: Split | None = None

    @property
    def metainfo(self) -> dict[str, Any]:
        """Classes, and colours to draw them in."""
        palette = [_COLOURS[i % len(_COLOURS)] for i in range(len(self.classes))]
        return dict(classes=self.classes, palette=palette)


def read_folder(path: str) -> DataFolder:
    """Find out what a folder holds.

    Args:
        path: With ``annotations/train.json`` and ``val.json`` in COCO's format and the
            images in ``train/`` and ``val/``, and the same of ``test`` if it is there,
            or with ``Annotations/``,
            ``JPEGImages/`` and ``ImageSets/Main/`` as in Pascal VOC.

    Raises:
        UserError: If it is not there or holds neither; all that is missing is named.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"--data: there is no folder '{path}'")
    if (folder / 'Annotations').is_dir() and (folder / 'ImageSets').is_dir():
        return _voc(folder)
    splits, problems = {}, []
    for split in ('train', 'val'):
        annotations = _first(folder, _ANNOTATIONS, split, Path.is_file)
        images = _first(folder, _IMAGES, split, Path.is_dir)
        if annotations is None:
            tried = ', '.join(form.format(split) for form in _ANNOTATIONS)
            problems.append(f'no annotations to {split} with (looked for {tried})')
        if images is None:
            tried = ', '.join(f'{form.format(split)}/' for form in _IMAGES)
            problems.append(f'no images to {split} with (looked for {tried})')
        splits[split] = Split(annotations or '', f'{images}/')
    if problems and (folder / STATE).exists():
        problems.append(f'a run of {command("data")} that was stopped: write it again '
                        'as it was')  # fmt: skip
    if problems:
        raise UserError(f"--data: '{path}' has {'; '.join(problems)}")
    test = _test_split(folder)
    read = [*splits.values(), *([test] if test else [])]
    contents = [_read_json(folder / split.annotations) for split in read]
    classes = _classes(contents, path)
    masks = any(
        isinstance(a, dict) and a.get('segmentation')
        for a in contents[0]['annotations'][:100]
    )
    root = f'{path.rstrip("/")}/'
    return DataFolder(root, 'CocoDataset', classes, **splits, masks=masks, test=test)


def _test_split(folder: Path) -> Split | None:
    annotations, images = 'annotations/test.json', 'test/'
    if not (folder / annotations).is_file() or not (folder / images).is_dir():
        return None
    return Split(annotations, images)


def _first(folder: Path, forms: tuple[str, ...], split: str, there: Any) -> str | None:
    names = (form.format(split) for form in forms)
    return next((name for name in names if there(folder / name)), None)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
        if not all(
            isinstance(content[key], list)
            for key in ('images', 'annotations', 'categories')
        ):
            raise TypeError('images, annotations and categories must be lists')
        for category in content['categories']:
            if not isinstance(category['name'], str):
                raise TypeError(f"a category's name is text, got {category['name']!r}")
            # mmdet looks for what the file says, so '1' and 1 are two.
            if type(category['id']) is not int:
                raise TypeError(f"a category's id is a number, got {category['id']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--data: '{path}' is no annotation file of COCO's format: "
            f'{type(error).__name__}: {str(error)[:300]}. {command("data")} on the '
            'folder makes one of what is good in it'
        ) from error
    return content


def _classes(contents: list[dict[str, Any]], path: str) -> tuple[str, ...]:
    found = [
        tuple(c['name'] for c in sorted(content['categories'], key=lambda c: c['id']))
        for content in contents
    ]
    if not found[0]:
        raise UserError(f"--data: the training annotations in '{path}' name no class")
    for what, names in zip(('validation', 'test'), found[1:], strict=False):
        missing = set(found[0]) ^ set(names)
        if missing:
            raise UserError(
                f"--data: training and {what} in '{path}' have other classes: "
                f'{", ".join(sorted(missing))} in one of them only'
            )
    return found[0]


def _voc(folder: Path) -> DataFolder:
    lists = folder / 'ImageSets' / 'Main'
    splits, problems = {}, []
    for split, names in _LISTS.items():
        name = next((n for n in names if (lists / f'{n}.txt').is_file()), None)
        if name is None:
            tried = ' or '.join(f'{n}.txt' for n in names)
            problems.append(f"no {tried} in '{lists}'")
        # mmdet looks for JPEGImages and Annotations below the folder of images.
        splits[split] = Split(f'ImageSets/Main/{name}.txt', '')
    files = sorted((folder / 'Annotations').glob('*.xml'))
    classes: set[str] = set()
    for file in files:
        try:
            tree = ElementTree.fromstring(read_bytes(file))
        except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
            problems.append(
                f"'{file}' is damaged ({error}): run {command('data')} on the "
                'folder, which leaves such files out'
            )
            continue
        classes |= {str(o.findtext('name')) for o in tree.findall('object')}
    if not classes:
        problems.append(f"no objects in '{folder / 'Annotations'}'")
    if 'train' in splits:
        try:
            read_text(folder / splits['train'].annotations, MOST_LIST)
        except (OSError, ValueError) as error:
            problems.append(f"'{splits['train'].annotations}' cannot be read: {error}")
    if problems:
        more = f'; {len(problems) - 10} more' if len(problems) > 10 else ''
        raise UserError(f'--data: {"; ".join(problems[:10])}{more}')
    root = f'{str(folder).rstrip("/")}/'
    return DataFolder(
        root,
        'XMLDataset',
        tuple(sorted(classes)),
        **splits,
        masks=False,
    )


def data_settings(config: Mapping[str, Any], folder: DataFolder) -> dict[str, Any]:
    """What a config says to read a folder instead of its base's data.

    Args:
        config: The base.
        folder: The data set.

    Returns:
        Top-level names and values.

    Raises:
        UserError: If the base learns from annotations that the folder does not have.
    """
    if config['train_dataloader'] is None:
        raise UserError('the base has no train_dataloader that --data could change')
    masks = any(p.get('with_mask') for _, p in walk(config['train_dataloader']))
    if masks and not folder.masks:
        raise UserError(
            f"the base learns masks, and the annotations in '{folder.root}' outline "
            'no objects: take a base without masks, such as Faster R-CNN'
        )
    settings: dict[str, Any] = {}
    for split, part in (('train', folder.train), ('val', folder.val)):
        dataset = _dataset(config, f'{split}_dataloader', folder, part)
        settings[f'{split}_dataloader'] = dict(dataset=dataset)
    settings['val_evaluator'] = _evaluator(config, folder, folder.val)
    # mmengine takes _delete_ out of what it merges, so nothing of it is shared.
    settings['test_dataloader'] = deepcopy(settings['val_dataloader'])
    settings['test_evaluator'] = Code('dict(val_evaluator)')
    if folder.test is not None:
        files = dict(
            ann_file=folder.test.annotations, data_prefix=dict(img=folder.test.images)
        )
        innermost = [d for _, d in datasets_in(settings['test_dataloader'])][-1]
        innermost.update(files)
        settings['test_evaluator'] = _evaluator(config, folder, folder.test)
    return settings


def _evaluator(
    config: Mapping[str, Any], folder: DataFolder, split: Split
) -> dict[str, Any]:
    if folder.kind != 'CocoDataset':
        return dict(_delete_=True, type='VOCMetric', metric='mAP', eval_mode='area')
    return dict(
        _delete_=True,
        type='CocoMetric',
        ann_file=folder.root + split.annotations,
        metric=_metric(config) if folder.masks else 'bbox',
        classwise=True,
    )


def _metric(config: Mapping[str, Any]) -> Any:
    given = config.get('val_evaluator')
    metric = given.get('metric') if isinstance(given, Mapping) else None
    known = {'bbox', 'segm'}
    named = {metric} if isinstance(metric, str) else set(metric or ())
    return metric if named and named <= known else 'bbox'


def _dataset(
    config: Mapping[str, Any], loader: str, folder: DataFolder, split: Split
) -> dict[str, Any]:
    """The data set of a loader, inside what wraps it in the base."""
    # Of those that a data set joins the first one stands for all.
    *wrappers, (place, dataset) = (
        (place, part)
        for place, part in datasets_in(config[loader])
        if not any(isinstance(step, int) and step > 0 for step in place)
    )
    coco = folder.kind == 'CocoDataset'
    new: dict[str, Any] = dict(
        type=folder.kind,
        data_root=folder.root,
        ann_file=split.annotations,
        data_prefix=dict(img=split.images) if coco else dict(sub_data_root=''),
        metainfo=folder.metainfo,
    )
    # mmdet's mosaic and mixup need their wrapper; repeating belongs to the old data.
    mixing = [w for _, w in wrappers if type_name(w).endswith('MultiImageMixDataset')]
    if type_name(dataset) == folder.kind and len(mixing) == len(wrappers):
        del new['type']
    else:
        steps = (f'[{s}]' if isinstance(s, int) else f'.{s}' for s in place)
        pipeline = Code(f'_base_.{loader}{"".join(steps)}.pipeline')
        new = dict(_delete_=True, **new, pipeline=pipeline)
        if loader == 'train_dataloader':
            new['filter_cfg'] = dict(filter_empty_gt=True, min_size=32)
        else:
            new['test_mode'] = True
    return dict(dataset=new) if mixing else new
