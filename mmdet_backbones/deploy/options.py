"""What a user asks of an export, and what of it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..environment import missing_extra
from ..files import ABSENT, FOLDER, what_is
from ..runtime import is_exported
from . import formats
from .intake import Size

FORMATS = ('onnx', 'openvino', 'torch', 'tensorrt')
PRECISIONS = ('fp32', 'fp16', 'bf16', 'int8')
# Lower precisions of each format.
_LOWER = {'onnx': ('fp16', 'int8'), 'openvino': ('fp16', 'bf16', 'int8'),
          'torch': ('fp16',)}  # fmt: skip


@dataclass(frozen=True)
class ExportOptions:
    """What to export, and how.

    Attributes:
        model: Path of a config, or a work folder.
        out: The folder to write.
        format: ``'onnx'``, ``'openvino'`` or ``'torch'``.
        precision: ``'fp32'``, ``'fp16'``, ``'bf16'`` or ``'int8'``.
        size: Height and width of the images in pixels; that of the test pipeline if
            left out.
        dynamic: Whether the graph takes any number of images of any size.
        data: Folder of images, or of a data set, to prove it with; left out, what the
            config tests on.
        checkpoint: Path or address; the best of the work folder if left out.
        max_drop: How much mAP a lower precision may cost, of 1.
        force: Whether a folder that is there is replaced, and one kept that is not
            equal.
    """

    model: str
    out: Path
    format: str = 'onnx'
    precision: str = 'fp32'
    size: Size | None = None
    dynamic: bool = False
    data: str | None = None
    checkpoint: str | None = None
    max_drop: float = 0.005
    force: bool = False


def problems_in(options: ExportOptions) -> Iterator[str]:
    """Everything that is wrong with the options, before any work is done."""
    if is_exported(options.model):
        yield f"'{options.model}' is exported already: name the config it came from"
    if options.format == 'tensorrt':
        yield (
            '--format tensorrt: an engine of TensorRT fits the GPU that it is built '
            'on, and cannot be proven here: write --format onnx, and there\n  trtexec '
            f'--onnx={options.out}/model.onnx --saveEngine=model.engine'
        )
    elif options.format not in FORMATS:
        yield f'--format is one of {", ".join(FORMATS)}, got {options.format!r}'
    elif options.precision not in PRECISIONS:
        known = ', '.join(PRECISIONS)
        yield f'--precision is one of {known}, got {options.precision!r}'
    elif options.precision not in ('fp32', *_LOWER[options.format]):
        able = [f for f, lower in _LOWER.items() if options.precision in lower]
        yield (
            f'--format {options.format} has no --precision {options.precision}: write '
            f'--format {" or ".join(able)}, or --precision '
            f'{" or ".join(("fp32", *_LOWER[options.format]))}'
        )
    else:
        needed = formats.packages_of(options.format, options.precision)
        if missing := missing_extra(f'--format {options.format}', 'deploy', *needed):
            yield missing
    if options.size is not None and min(options.size) < 1:
        yield f'--size takes height and width in pixels, got {options.size}'
    if not 0 <= options.max_drop < 1:
        yield f'--max-drop lies between 0 and 1, got {options.max_drop}'
    problem = _target_problem(options.out, options.force)
    if problem is not None:
        yield problem


def _target_problem(out: Path, force: bool) -> str | None:
    """Say why a folder cannot be written, None if it can."""
    if not str(out).isprintable() or not out.name:
        return f'-o takes the name of a folder, got {str(out)!r}'
    found = what_is(out)
    if found == ABSENT:
        above = next(p for p in out.absolute().parents if what_is(p) != ABSENT)
        if what_is(above) != FOLDER:
            return f"-o '{out}': '{above}' is {what_is(above)}"
        return None
    if out.is_symlink():
        return f"-o '{out}' is a link: name another folder"
    if found != FOLDER:
        return f"-o '{out}' is {found}: name another folder"
    if not any(out.iterdir()):
        return None
    if not is_exported(out):
        return f"-o '{out}' holds something else: name another folder"
    if not force:
        return f"'{out}' is there already: write --force, or another -o"
    return None
