"""RT-DETR with the weights that transformers publishes."""

from __future__ import annotations

import re
from collections.abc import Collection
from copy import deepcopy
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.registry import DefaultScope
from torch import Tensor

from .. import __version__
from ..catalog.conversion import Conversion, write_weights
from ..errors import CheckpointError, PretrainedWeightsError, UserError
from ..files import path_of, target_problem
from ..weights.loading.loader import load_checkpoint
from ..weights.loading.matching import Match, match
from ..weights.loading.report import LoadReport, some
from ..weights.names.dialect import Dialect, Form, is_computed
from ..weights.reading.reader import read_checkpoint
from .rtdetr import RTDETR

_BRANCH = re.compile(r'bbox_head\.(cls|reg)_branches\.(\d+)\.')
_CLASSES = r'^dn_query_generator\.label_embedding\.weight$'


def _name_branches(keys: Collection[str]) -> dict[str, str]:
    """Tell the last branch, which belongs to the encoder, from those of the decoder."""
    found = {key: match for key in keys if (match := _BRANCH.match(key))}
    last = max((int(match[2]) for match in found.values()), default=0)
    heads = dict(cls='enc_score_head.', reg='enc_bbox_head.')
    lists = dict(cls='decoder.class_embed.', reg='decoder.bbox_embed.')
    return {
        key: (
            heads[match[1]]
            if int(match[2]) == last
            else f'{lists[match[1]]}{match[2]}.'
        )
        + key[match.end() :]
        for key, match in found.items()
    }


def _without_padding(classes: Tensor) -> Tensor:
    """Leave out the last row, zeros that stand for no object in batches of theirs."""
    return classes[:-1]


def _with_padding(classes: Tensor) -> Tensor:
    return torch.cat((classes, torch.zeros_like(classes[:1])))


_NORM = {'conv': '0', 'bn': '1'}
# The backbone has dialects of its own. Published files may be older than the names
# that transformers has today.
RTDETR_OF_TRANSFORMERS = Dialect(
    'RT-DETR of transformers',
    marker=r'(?:model\.)?encoder_input_proj\.0\.0\.',
    renumber=_name_branches,
    rules=(
        *(
            (
                rf'^neck\.input_proj\.(\d+)\.{ours}\.',
                rf'encoder_input_proj.\1.{theirs}.',
            )
            for ours, theirs in _NORM.items()
        ),
        *(
            (rf'^input_proj\.(\d+)\.{ours}\.', rf'decoder_input_proj.\1.{theirs}.')
            for ours, theirs in _NORM.items()
        ),
        (r'^neck\.encoder\.layers\.', 'encoder.aifi.0.layers.'),
        (r'^(encoder\..*)\.norms\.1\.', r'\1.final_layer_norm.'),
        (r'^(decoder\..*)\.norms\.1\.', r'\1.encoder_attn_layer_norm.'),
        (r'\.norms\.0\.', '.self_attn_layer_norm.'),
        (r'\.norms\.2\.', '.final_layer_norm.'),
        (r'\.self_attn\.attn\.out_proj\.', '.self_attn.o_proj.'),
        (r'\.self_attn\.attn\.', '.self_attn.'),
        (r'\.cross_attn\.', '.encoder_attn.'),
        (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
        (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
        (r'^neck\.(.*)\.bn\.', r'encoder.\1.norm.'),
        (r'^neck\.', 'encoder.'),
        (r'^memory_trans_fc\.', 'enc_output.0.'),
        (r'^memory_trans_norm\.', 'enc_output.1.'),
        (r'^dn_query_generator\.label_embedding\.', 'denoising_class_embed.'),
        *(
            (rf'bbox_(embed\.\d+|head)\.{2 * i}\.', rf'bbox_\1.layers.{i}.')
            for i in range(3)
        ),
        (r'^', 'model.'),
    ),
    split=(
        (
            r'in_proj_(weight|bias)$',
            tuple(rf'{part}_proj.\1' for part in ('q', 'k', 'v')),
        ),
    ),
    older=(
        (r'\.out_proj\.', '.o_proj.'),
        (r'(layers\.\d+)\.(fc[12])\.', r'\1.mlp.\2.'),
        (r'^model\.encoder\.encoder\.', 'model.encoder.aifi.'),
    ),
    forms=(Form(_CLASSES, _without_padding, _with_padding),),
)
_BACKBONE = ('model.backbone.', 'backbone.')
# Older files hold the branches of the decoder a second time.
_TWICE = ('class_embed.', 'bbox_embed.')


def load_published(detector: Any, source: str) -> LoadReport:
    """Load a whole detector from a file of ``RTDetrForObjectDetection``.

    The detector must be that of the file: its classes, its layers and its backbone.

    Args:
        detector: An ``RTDETR`` on a backbone of this package; takes the weights in
            place.
        source: As ``checkpoint`` of ``init_cfg``.

    Returns:
        What the backbone took.

    Raises:
        CheckpointError: If the file cannot be read.
        PretrainedWeightsError: If it is of another detector; all that is missing, left
            over or of another shape is named, and nothing is changed but the backbone.
    """
    checkpoint = read_checkpoint(source)
    own = {
        key: value
        for key, value in detector.state_dict().items()
        if not key.startswith('backbone.')
    }
    found = match(checkpoint.state_dict, own, (RTDETR_OF_TRANSFORMERS,), ('',))
    problems = _problems(own, found)
    if problems:
        raise PretrainedWeightsError(
            f'{checkpoint.source} is not of this RT-DETR: {"; ".join(problems)}. Write '
            'decoder, neck and num_classes as in the config.json beside the file'
        )
    report = load_checkpoint(detector.backbone, checkpoint)
    with torch.no_grad():
        for key, tensor in found.found.items():
            own[key].copy_(tensor.make())
    return report


def convert_detector(
    source: str,
    model: dict[str, Any],
    target: str,
    licence: str | None = None,
    force: bool = False,
) -> Conversion:
    """Write a file of ``RTDetrForObjectDetection`` as ``load_from`` takes it.

    Args:
        source: As ``checkpoint`` of ``init_cfg``.
        model: ``model`` of a config of the same detector.
        target: Path of a ``.pth`` file.
        licence: Of the weights, to be stored with them.
        force: Replace a file that is there.

    Returns:
        What the backbone took, and what was stored beside the weights.

    Raises:
        CheckpointError: If the source cannot be read, or the target not be written.
        PretrainedWeightsError: If the source is of another detector.
        UserError: If the config is of a detector that no dialect is known for.
    """
    path = path_of(target)
    problem = target_problem(path, ('.pth',), force, new_folder=False)
    if problem:
        raise CheckpointError(problem)
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(deepcopy(model))
    if not isinstance(detector, RTDETR):
        raise UserError(
            f'whole detectors are read into mmdet_backbones.RTDETR, this config has '
            f'{type(detector).__name__}: write --to with the name of its backbone, as '
            'mmdet-backbones list has it'
        )
    report = load_published(detector, source)
    meta = dict(
        net='RTDETR',
        source=report.source,
        source_sha256=report.sha256,
        source_names=RTDETR_OF_TRANSFORMERS.name,
        converted_by=f'mmdet_backbones {__version__}',
    )
    if licence is not None:
        meta['licence'] = licence
    write_weights(path, detector.state_dict(), meta)
    return Conversion(report, path, meta)


def _problems(own: dict[str, Tensor], found: Match) -> list[str]:
    shapes = {key: tensor.shape for key, tensor in found.found.items()}
    missing = [key for key in own if key not in shapes and not is_computed(key)]
    other = [
        f'{key} ({tuple(own[key].shape)} here, {shape} there)'
        for key, shape in shapes.items()
        if tuple(own[key].shape) != shape
    ]
    surplus = [
        key
        for key in found.unexpected
        if not key.startswith((*_BACKBONE, *_TWICE)) and not is_computed(key)
    ]
    lists = {
        'it lacks': missing,
        'of another shape are': other,
        'it has more than the detector': surplus,
    }
    return [f'{text} {some(keys)}' for text, keys in lists.items() if keys]
