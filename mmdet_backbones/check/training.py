"""Images, classes, batch and optimiser against the backbone, its weights and data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from ..backbones.contract import Backbone
from ..catalog.preprocessing import preprocess_of_weights, preprocess_settings
from ..detector_config.detector import DetectorConfig
from ..detector_config.heads import class_counts
from ..detector_config.neck_rules import necks_of, rule_of
from ..detector_config.tree import dataset_of, dotted, type_name
from ..detector_config.weights import pretrained_of
from ..engine.lr_scaling import find_scale
from ..engine.recipes import choose_recipe, optimiser_settings, traits
from ..errors import UserError
from ..levels import IMAGENET, Preprocess
from .annotations import annotation_file, read_annotations
from .findings import Finding, line

_TOLERANCE = 1.0


def check_preprocessing(detector: DetectorConfig) -> Iterator[Finding]:
    """Report mean, std or channel order that the pretrained weights do not expect."""
    weights = pretrained_of(detector.backbone)
    if weights is None:
        return
    ours = isinstance(detector.net, Backbone)
    wanted = _wanted(detector.net, weights.checkpoint)
    place, given = detector.key, detector.model.get('data_preprocessor')
    if not given:  # of a wrapper around the detector
        place, given = 'model', detector.config.model.get('data_preprocessor')
    if wanted is None or not isinstance(given, Mapping):
        return
    settings = preprocess_settings(wanted)
    current = dict(
        mean=list(given.get('mean') or [0.0, 0.0, 0.0]),
        std=list(given.get('std') or [1.0, 1.0, 1.0]),
        bgr_to_rgb=bool(given.get('bgr_to_rgb', False)),
    )
    wrong = [key for key in settings if not _alike(settings[key], current[key])]
    if not wrong:
        return
    key = f'{place}.data_preprocessor'
    text = ', '.join(f'{name}={current[name]}' for name in wrong)
    expected = ', '.join(f'{name}={settings[name]}' for name in wrong)
    yield Finding(
        'preprocessing',
        key,
        f'the weights {weights.checkpoint} expect images with {expected}; they get '
        f'{text}',
        tuple(line(f'{key}.{name}', settings[name]) for name in wrong),
        # mmdet trains some of its nets with weights of caffe in either way.
        'error' if ours or wanted == IMAGENET else 'warning',
    )


def _wanted(net: nn.Module, checkpoint: str) -> Preprocess | None:
    if isinstance(net, Backbone):
        return net.preprocess
    return preprocess_of_weights(checkpoint)


def _alike(wanted: Any, given: Any) -> bool:
    if isinstance(wanted, bool):
        return wanted == given
    return len(wanted) == len(given) and all(
        math.isclose(a, b, abs_tol=_TOLERANCE)
        for a, b in zip(wanted, given, strict=True)
    )


def check_padding(detector: DetectorConfig) -> Iterator[Finding]:
    """Report images whose sizes the levels do not divide, where a neck needs that."""
    necks = necks_of(detector.model)
    try:
        doubling = [type_name(neck) for neck in necks if rule_of(neck).doubles]
    except UserError:
        return
    given = detector.model.get('data_preprocessor') or {}
    _, first, rule = detector.reader
    # Maps made of the image have the strides of the neck that makes them.
    made = rule.outputs(first, detector.strides) if rule.image else detector.strides
    deepest = int(max(made))
    divisor = given.get('pad_size_divisor', 1)
    sizes = [
        (f'data_preprocessor.batch_augments.{i}.size_divisor', a['size_divisor'])
        for i, a in enumerate(given.get('batch_augments') or ())
        if 'size_divisor' in a
    ]
    wrong = [(k, v) for k, v in sizes if v % deepest and divisor % deepest]
    if doubling and wrong:
        for key, value in wrong:
            yield Finding(
                'image size',
                f'{detector.key}.{key}',
                f'{doubling[0]} doubles the maps, so that sides of images must be '
                f'multiples of {deepest}, the deepest stride; they are of {value}',
                (line(f'{detector.key}.{key}', deepest),),
            )


def check_classes(detector: DetectorConfig) -> Iterator[Finding]:
    """Report heads whose number of classes is not that of the data set."""
    for split in ('train', 'val', 'test'):
        dataset = dataset_of(detector.config, split)
        if 'type' not in dataset:
            continue
        with DefaultScope.overwrite_default_scope(detector.scope):
            classes = metainfo_of(dataset, 'classes')
            things = metainfo_of(dataset, 'thing_classes')
        # GroundingDINO's number is that of the tokens of its prompt.
        reads_text = 'language_model' in detector.model
        if split == 'train' and classes is not None and not reads_text:
            yield from _heads(detector, classes, things)
        yield from _annotations(dataset, classes, f'{split}_dataloader.dataset')


def metainfo_of(dataset: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """Read what a data set says of itself, or its class does.

    Args:
        dataset: Its config, in the scope of the detector.
        name: Such as ``'classes'``.
    """
    given = (dataset.get('metainfo') or {}).get(name)
    if given is None:
        with DATASETS.switch_scope_and_registry(None) as registry:
            cls = registry.get(dataset['type'])
        given = (getattr(cls, 'METAINFO', None) or {}).get(name)
    if isinstance(given, str):
        return (given,)
    return tuple(given) if isinstance(given, Sequence) else None


def _heads(
    detector: DetectorConfig, classes: Sequence[str], things: Sequence[str] | None
) -> Iterator[Finding]:
    # Of panoptic data the heads of boxes know the countable classes only.
    right = {len(classes)} if things is None else {len(classes), len(things)}
    for place, count in class_counts(detector.model).items():
        if count not in right:
            key = dotted(detector.key, *place)
            names = ', '.join(classes[:4]) + (', ...' if len(classes) > 4 else '')
            yield Finding(
                'classes',
                key,
                f'the head has {count} classes, the data set {len(classes)} ({names})',
                (line(key, len(classes)),),
            )


def _annotations(
    dataset: Mapping[str, Any], classes: Sequence[str] | None, key: str
) -> Iterator[Finding]:
    """Names that are in the file and not in the config would lose all their boxes."""
    path = annotation_file(dataset)
    if classes is None or path.suffix != '.json' or not path.is_file():
        return
    there, *_, problem = read_annotations(path)
    found = [Finding('data', f'{key}.ann_file', f"'{path}' {problem}")]
    if not there:
        yield from found if problem else ()
        return
    lost = [name for name in there if name not in classes]
    absent = [name for name in classes if name not in there]
    # Of other classes the file may be another one altogether.
    yield from found if problem and not lost else ()
    if lost or absent:
        problem = f"'{path}' has the classes {', '.join(there[:8])}"
        if lost:
            problem += f'; boxes of {", ".join(lost[:8])} would be left out in silence'
        if absent:
            problem += f'; nothing in it is {", ".join(absent[:8])}'
        line_ = line(f'{key}.metainfo', dict(classes=there))
        severity = 'error' if lost else 'warning'
        yield Finding('classes', f'{key}.metainfo', problem, (line_,), severity)


def check_batch(detector: DetectorConfig, num_gpus: int = 1) -> Iterator[Finding]:
    """Report a learning rate that was chosen for another batch size.

    Args:
        detector: The config.
        num_gpus: Processes that will train together.
    """
    if not detector.config.get('train_dataloader'):
        return
    try:
        scale = find_scale(detector.config, num_gpus)
    except UserError as error:
        yield Finding('batch size', 'auto_scale_lr', str(error))
        return
    enabled = (detector.config.get('auto_scale_lr') or {}).get('enable', True)
    if scale is None or enabled or 0.5 <= scale.factor <= 2:
        return
    yield Finding(
        'batch size',
        'auto_scale_lr.enable',
        f'the learning rate is that of batches of {scale.base_batch_size} images, and '
        f'{scale.num_gpus} GPUs with {scale.samples_per_gpu} images each make '
        f'{scale.batch_size}: it is {1 / scale.factor:.3g} times what it should be',
        (line('auto_scale_lr.enable', True),),
        'warning',
    )


def check_optimiser(detector: DetectorConfig) -> Iterator[Finding]:
    """Report SGD with nets or weights that learn with AdamW only."""
    weights = pretrained_of(detector.backbone)
    if weights is None:
        return
    optimizer = (detector.config.get('optim_wrapper') or {}).get('optimizer') or {}
    if str(optimizer.get('type')) != 'SGD':
        return
    name = detector.backbone.get('model_name') or type_name(detector.backbone)
    arch = detector.backbone.get('arch')
    name = f'{name}-{arch}' if isinstance(arch, str) else name
    source = weights.checkpoint.partition('://')[0]
    levels = detector.offered or detector.levels
    strides = [level.stride for level in levels if not level.is_image]
    try:
        net = traits(detector.net, name, source, weights.checkpoint, strides)
    except Exception:  # of nets of the host that refuse the size of the probe
        twin = detector.twin
        if twin is None:
            return
        net = traits(twin, name, source, weights.checkpoint, strides)
    recipe = choose_recipe(net)
    settings, _ = optimiser_settings(detector.config, recipe, net.groups, True)
    if not settings:
        return
    yield Finding(
        'optimiser',
        'optim_wrapper.optimizer',
        f'SGD with {name}, of the family "{recipe.family}": {recipe.source}',
        tuple(line(key, value) for key, value in settings.items()),
        'warning',
    )
