"""A first guess which backbone suits a data set: minutes, and nothing is trained.

Pretrained features of the user's objects and of background are looked at, and scored
by how sure they make a linear model of what is what.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from rich.table import Table
from torch import Tensor, nn
from torchvision.ops import roi_align

from ..errors import CheckpointError, PretrainedWeightsError, UserError, explain
from ..files import write_atomically
from ..own_data.for_config import read_folder
from ..swap.swapping import SwapOptions, save
from .boxes import BoxedImage, sample_boxes
from .candidates import Candidate
from .evidence import rank_correlation, transferability
from .report import Guessed

GUESSES = 'guess.json'
# An object is looked at where it is about so many cells wide: heads without anchors
# give levels those of 4 to 8 cells (FCOS, arXiv 1904.01355, section 3.2).
_CELLS = 32**0.5
_NONE = '-'


@dataclass(frozen=True)
class GuessOptions:
    """What a guess looks at.

    Attributes:
        base: Config of the detector, whose levels are used.
        data: Folder of the data set.
        most_boxes: Objects; as many places of background come to them.
        most_images: Images.
        device: To run on.
        seed: Of the choice of images and places.
    """

    base: str
    data: str
    most_boxes: int = 2000
    most_images: int = 100
    device: str = 'cpu'
    seed: int = 0


@dataclass(frozen=True)
class Guess:
    """What is guessed of one candidate.

    Attributes:
        candidate: It.
        score: As :func:`~.evidence.transferability` gives it; None if refused.
        boxes: That were looked at, by stride of the level.
        seconds: That it took.
        refused: Why there is no score; empty if there is one.
    """

    candidate: Candidate
    score: float | None = None
    boxes: Mapping[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    refused: str = ''

    def to_dict(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes."""
        return {**asdict(self), 'candidate': self.candidate.to_dict()}


def guess(
    candidates: Sequence[Candidate],
    options: GuessOptions,
    advance: Callable[[str], Any] = lambda doing: None,
) -> list[Guess]:
    """Guess which candidates suit a data set.

    Args:
        candidates: Those that are refused already stay so.
        options: What is looked at.
        advance: Told what comes next, once for each candidate.

    Returns:
        A guess for each, the most promising first.

    Raises:
        UserError: If the data set cannot be read. What is wrong with one candidate is
            its reason.
    """
    images = sample_boxes(
        read_folder(options.data), options.most_boxes, options.most_images, options.seed
    )
    found = []
    for candidate in candidates:
        advance(candidate.key)
        found.append(_guessed(candidate, options, images))
    return sorted(found, key=lambda one: (one.score is None, -(one.score or 0.0)))


def _guessed(
    candidate: Candidate, options: GuessOptions, images: Sequence[BoxedImage]
) -> Guess:
    if candidate.refused:
        return Guess(candidate, refused=candidate.refused)
    start = time.perf_counter()
    try:
        config = _swapped(candidate, options)
        with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmdet')):
            seen = features_of(config, images, candidate.size, options.device)
        score = transferability(*zip(*seen.values(), strict=True))
    except Exception as error:  # of whatever a backbone does with images
        known = (UserError, CheckpointError, PretrainedWeightsError)
        name = '' if isinstance(error, known) else f'{type(error).__name__}: '
        return Guess(candidate, refused=f'{name}{explain(error)}')
    boxes = {stride: len(labels) for stride, (_, labels) in seen.items()}
    seconds = round(time.perf_counter() - start, 2)
    return Guess(candidate, round(score, 6), boxes, seconds)


def _swapped(candidate: Candidate, options: GuessOptions) -> Config:
    """The detector that would be trained with a candidate."""
    with TemporaryDirectory() as folder:
        out = Path(folder, 'candidate.py')
        save(
            SwapOptions(
                options.base,
                candidate.name,
                out,
                checkpoint=candidate.weights,
                data=options.data,
                no_weights=candidate.weights is None,
            )
        )
        return Config.fromfile(out)


def features_of(
    config: Config,
    images: Sequence[BoxedImage],
    size: tuple[int, int],
    device: str = 'cpu',
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Look at boxes with the backbone of a detector, with its pretrained weights.

    Args:
        config: Of the detector.
        images: With boxes.
        size: Height and width that images are made to fit into.
        device: To run on.

    Returns:
        Features (N, C) and labels (N,) of the boxes that each level suits, by its
        stride.

    Raises:
        PretrainedWeightsError: If the weights cannot be had, or do not fit.
    """
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    # Of random weights, the same ones for each candidate.
    torch.manual_seed(0)
    net = MODELS.build(config.model.backbone)
    net.init_weights()
    # mmdet's own nets return None from eval().
    net.eval()
    net.to(device)
    preprocessor = MODELS.build(config.model.data_preprocessor).to(device)
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for image in images:
        inputs, scale = _prepared(image, size, preprocessor)
        with torch.inference_mode():
            maps = [level.float() for level in net(inputs)]
        boxes = torch.as_tensor(image.boxes * np.tile(scale, 2), dtype=torch.float32)
        for stride, which, pooled in _pooled(maps, inputs, boxes.to(device)):
            found.setdefault(stride, []).append((pooled, image.labels[which]))
    seen = {}
    for stride, parts in sorted(found.items()):
        pooled_parts, labels = zip(*parts, strict=True)
        seen[stride] = np.concatenate(pooled_parts), np.concatenate(labels)
    return seen


def _prepared(
    image: BoxedImage, size: tuple[int, int], preprocessor: nn.Module
) -> tuple[Tensor, np.ndarray]:
    """Give an image as the detector gets it, and how much it was enlarged."""
    import mmcv
    from mmdet.structures import DetDataSample

    pixels = mmcv.imread(image.path)
    resized = mmcv.imrescale(pixels, (max(size), min(size)))
    shape = resized.shape[:2]
    scale = np.array([shape[1] / pixels.shape[1], shape[0] / pixels.shape[0]])
    meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape)
    tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    batch = {'inputs': [tensor], 'data_samples': [DetDataSample(metainfo=meta)]}
    return preprocessor(batch, False)['inputs'].float(), scale


def _pooled(
    maps: Sequence[Tensor], inputs: Tensor, boxes: Tensor
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield stride, which boxes suit a level, and their mean features (n, C)."""
    strides = [round(inputs.shape[-1] / level.shape[-1]) for level in maps]
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).prod(1).sqrt()
    wanted = torch.tensor(strides, device=boxes.device) * _CELLS
    suits = (sides[:, None] / wanted).log().abs().argmin(1)
    for number, (stride, level) in enumerate(zip(strides, maps, strict=True)):
        which = suits == number
        if which.any():
            cells = roi_align(level, [boxes[which]], 2, 1 / stride, 2, True)
            yield stride, which.cpu().numpy(), cells.mean((2, 3)).double().cpu().numpy()


def write_guesses(path: Path, options: GuessOptions, found: Sequence[Guess]) -> None:
    """Write ``guess.json``.

    Raises:
        NotWrittenError: If it cannot be written.
    """
    content = dict(asdict(options), guesses=[one.to_dict() for one in found])
    write_atomically(path, f'{json.dumps(content, indent=1)}\n')


def read_scores(path: Path) -> dict[str, float]:
    """Read scores out of ``guess.json``, by the key of the candidate.

    Raises:
        UserError: If the file is none.
    """
    try:
        guesses = json.loads(path.read_text(encoding='utf-8'))['guesses']
        return {
            Candidate.from_dict(one['candidate']).key: float(one['score'])
            for one in guesses
            if one['score'] is not None
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' holds no guesses ({type(error).__name__}: {error}): remove it, "
            'or make it again with --guess'
        ) from error


def guesses_in(folder: Path) -> Guessed | None:
    """Give the report of a search the guess in its folder; None if there is none.

    Raises:
        UserError: As :func:`read_scores`.
    """
    path = folder / GUESSES
    return Guessed(read_scores(path), rank_correlation) if path.is_file() else None


def guess_table(found: Sequence[Guess]) -> Table:
    """Lay out guesses, the most promising first."""
    table = Table()
    for head in ('backbone', 'size', 'guess', 'ms', 'parameters', 'licence', 'note'):
        number = head in ('guess', 'ms', 'parameters')
        table.add_column(head, justify='right' if number else 'left', overflow='fold')
    for one in found:
        candidate = one.candidate
        table.add_row(
            candidate.name,
            f'{candidate.size[0]} x {candidate.size[1]}',
            _NONE if one.score is None else f'{one.score:.4f}',
            _NONE
            if candidate.milliseconds is None
            else f'{candidate.milliseconds:.1f}',
            f'{candidate.params / 1e6:.2f} M' if candidate.params else _NONE,
            candidate.licence or _NONE,
            one.refused or ('' if candidate.weights else 'random weights'),
        )
    return table
