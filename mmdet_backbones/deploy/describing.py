"""``detector.json`` and ``equality.md``: what an exported folder says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__
from ..detector_config.detector import DetectorConfig
from ..detector_config.tree import type_name
from ..files import write_atomically
from ..predict.locating import Trained
from ..runtime.description import MODEL_FILES, OUTPUTS, VERSION
from ..runtime.folder import DESCRIPTION
from .decoding import Limits
from .equality import LEAST_IOU, LOOSE, MOST_SCORE, Equality
from .intake import Intake, Size

_PACKAGES = ('torch', 'mmdet', 'onnx', 'onnxruntime', 'openvino', 'nncf')
_BLOCK = 1 << 20


def describe(
    trained: Trained,
    classes: Sequence[str],
    limits: Limits,
    intake: Intake,
    form: tuple[str, str],
    canvas: Size | None,
) -> dict[str, Any]:
    """Say what a folder holds, without its files and figures.

    Args:
        trained: What was exported.
        classes: Names, in the order of the labels.
        limits: Of its boxes.
        intake: Of its images.
        form: Format and precision.
        canvas: Height and width that the graph takes; None for any, in any number.
    """
    config = DetectorConfig(trained.config)
    height, width = canvas or (None, None)
    return dict(
        format_version=VERSION,
        format=form[0],
        precision=form[1],
        files={},
        classes=list(classes),
        input=dict(
            name='images',
            batch=1 if canvas else None,
            height=height,
            width=width,
            dtype='uint8',
            layout='NHWC',
            order='RGB',
        ),
        resize=dict(
            height=intake.scale[0],
            width=intake.scale[1],
            keep_ratio=intake.keep_ratio,
            interpolation=intake.interpolation,
            pad_value=intake.pad_value,
            pad=intake.pad,
            size_divisor=intake.divisor,
        ),
        normalisation=dict(
            mean=list(intake.rules.mean),
            std=list(intake.rules.std),
            order=intake.rules.order,
        ),
        outputs=list(OUTPUTS),
        max_per_image=limits.max_per_image,
        thresholds=dict(score=max(limits.score, 0.0), nms_iou=limits.nms_iou),
        detector=type_name(config.model),
        backbone=_backbone(config.backbone),
        weights_licence=_licence(trained),
        versions=_versions(),
        source=dict(
            config=Path(trained.config.filename or '').name,
            checkpoint=Path(trained.checkpoint).name,
            checkpoint_sha256=_digest(Path(trained.checkpoint)),
        ),
        max_difference=None,
    )


def _backbone(backbone: Mapping[str, Any]) -> str | None:
    kind = type_name(backbone)
    name = backbone.get('model_name')
    libraries = {'TIMMBackbone': 'timm', 'TorchvisionBackbone': 'torchvision'}
    if kind in libraries and name:
        return f'{libraries[kind]}/{name}'
    return kind or None


def _licence(trained: Trained) -> str | None:
    from ..errors import CheckpointError
    from ..weights.reading.reader import read_checkpoint

    try:
        found = read_checkpoint(trained.checkpoint).metadata
    except CheckpointError:
        return None
    licence = found.get('license') or found.get('licence')
    return str(licence) if licence else None


def _versions() -> dict[str, str]:
    found = dict(mmdet_backbones=__version__)
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_description(
    folder: Path, description: dict[str, Any], comparison: Equality | None = None
) -> None:
    """Write ``detector.json``, the last file of a folder.

    Args:
        folder: With its other files.
        description: Of it; files and figures are added.
        comparison: What was measured, if it was.
    """
    description['files'] = {
        name: dict(sha256=_digest(folder / name), bytes=(folder / name).stat().st_size)
        for name in MODEL_FILES[description['format']]
    }
    if comparison is not None:
        description['max_difference'] = dict(
            box_iou=round(comparison.least_iou, 6), score=comparison.largest_score
        )
    text = json.dumps(description, indent=1, ensure_ascii=False)
    write_atomically(folder / DESCRIPTION, f'{text}\n')


def write_equality(
    folder: Path,
    description: Mapping[str, Any],
    comparison: Equality,
    images: str,
    more: Sequence[str] = (),
) -> None:
    """Write ``equality.md``.

    Args:
        folder: Of the export.
        description: Of it.
        comparison: What was measured.
        images: Which.
        more: Further lines.
    """
    versions = ', '.join(f'{k} {v}' for k, v in description['versions'].items())
    form = f'{description["format"]}, {description["precision"]}'
    lines = [
        '# What the exported detector finds, and what the detector itself finds',
        '',
        f'{description["detector"]} ({form}) against its own `predict` in torch, '
        f'float32, on {images}.',
        '',
        '| | |',
        '|---|---|',
        f'| images | {comparison.images} |',
        f'| best boxes of each that count | {description["max_per_image"]} |',
        f'| boxes of score {comparison.threshold:g} and higher | {comparison.boxes} |',
        f'| missing | {comparison.missing} |',
        f'| extra | {comparison.extra} |',
        f'| ties | {comparison.ties} |',
        f'| lowest IoU of a pair | {comparison.least_iou:.6f} |',
        f'| largest difference of a score | {comparison.largest_score:.2e} |',
        f'| largest difference of a corner, pixels | {comparison.largest_corner:.2e} |',
        '',
        *more,
        'A pair is two boxes of one class whose IoU is at least '
        f'{LEAST_IOU} (or whose corners are within 0.01 pixels) and whose scores '
        f'differ by at most {MOST_SCORE:g}; of lower precisions at least '
        f'{LOOSE.iou} and at most {LOOSE.score}. A tie is a box of one side alone '
        'whose score is within that of the threshold or of the last box of a full '
        'list, or whose overlap with a better one is within 0.001 of the bound of '
        'suppression.',
        '',
        f'Written with {versions}.',
    ]
    write_atomically(folder / 'equality.md', '\n'.join(lines) + '\n')
