"""From a trained detector to a folder that runs without mmdet, proven equal."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..commands import command
from ..errors import UserError
from ..files import ABSENT, FOLDER, NotWrittenError, what_is
from ..inference.fusion import fuse_for_inference
from ..predict.locating import Trained, find_trained
from ..predict.torch_detector import TorchDetector
from ..runtime import ExportedDetector, is_exported, load
from . import formats
from .decoding import decoder_of
from .describing import describe, write_description, write_equality
from .equality import Bounds, Comparison, compare
from .graph import DetectorGraph
from .intake import Intake, Size, read_intake, set_size
from .pictures import Images, find_images
from .reference import Reference

FORMATS = ('onnx', 'openvino', 'torch', 'tensorrt')
PRECISIONS = ('fp32', 'fp16', 'bf16', 'int8')
# Lower precisions of each format.
_LOWER = {'onnx': ('fp16', 'int8'), 'openvino': ('fp16', 'bf16', 'int8'),
          'torch': ('fp16',)}  # fmt: skip
_EXAMPLES = ('example.py', 'example.cpp')
# Of scores that anybody looks at.
_THRESHOLD = 0.05
# Of the same box in a lower precision.
_LOOSE = Bounds(iou=0.9, score=0.05)


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


@dataclass(frozen=True)
class Exported:
    """What an export gave.

    Attributes:
        folder: That was written.
        comparison: With the detector itself.
        images: Which images were compared.
        notes: What a user should know.
        equal: Whether it counts as equal.
    """

    folder: Path
    comparison: Comparison
    images: str
    notes: tuple[str, ...]
    equal: bool


def export(options: ExportOptions) -> Path:
    """Export a detector, and prove that it finds the same.

    Args:
        options: What and how.

    Returns:
        The folder: the model, ``detector.json``, ``equality.md`` and examples.

    Raises:
        UserError: A ``ValueError``: if an option cannot be, the detector cannot be
            exported, or what was written does not find what the detector finds; the
            folder is then not kept.
        CheckpointError: If the checkpoint cannot be read.
    """
    return export_with_figures(options).folder


def export_with_figures(
    options: ExportOptions, tell: Callable[[str], object] = lambda text: None
) -> Exported:
    """As :func:`export`, with what was measured.

    Args:
        options: What and how.
        tell: Gets a line for each step, as some take minutes.
    """
    problems = [*_problems(options)]
    if problems:
        raise UserError('\n'.join(problems))
    with warnings.catch_warnings():
        # Of how mmdet's anchors call it, which nobody here can change.
        warnings.filterwarnings('ignore', message='.*torch.meshgrid')
        return _exported(options, tell)


def _exported(options: ExportOptions, tell: Callable[[str], object]) -> Exported:
    trained = find_trained(options.model, options.checkpoint)
    set_size(trained.config, options.size)
    detector = TorchDetector(trained, 'cpu')
    job = _Job(options, trained, detector)
    partial = options.out.with_name(f'.{options.out.name}.partial')
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        exported = job.write(partial, tell)
        if not exported.equal and not options.force:
            raise UserError(job.refusal(exported))
        _put(partial, options.out)
    except OSError as error:
        raise NotWrittenError(options.out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return replace(exported, folder=options.out)


def _problems(options: ExportOptions) -> Iterator[str]:
    """Everything that is wrong with the options, before any work is done."""
    if is_exported(options.model):
        yield f"'{options.model}' is exported already: name the config it came from"
    if options.format == 'tensorrt':
        yield (
            '--format tensorrt: an engine of TensorRT fits the GPU that it is built on, '
            'and cannot be proven here: write --format onnx, and there\n  trtexec '
            f'--onnx={options.out}/model.onnx --saveEngine=model.engine'
        )
    elif options.format not in FORMATS:
        yield f'--format is one of {", ".join(FORMATS)}, got {options.format!r}'
    elif options.precision not in PRECISIONS:
        yield f'--precision is one of {", ".join(PRECISIONS)}, got {options.precision!r}'
    elif options.precision not in ('fp32', *_LOWER[options.format]):
        able = [f for f, lower in _LOWER.items() if options.precision in lower]
        yield (
            f'--format {options.format} has no --precision {options.precision}: write '
            f'--format {" or ".join(able)}, or --precision '
            f'{" or ".join(("fp32", *_LOWER[options.format]))}'
        )
    elif missing := formats.missing_packages(options.format, options.precision):
        yield (
            f'--format {options.format} needs {", ".join(missing)}, not installed here: '
            'write\n  pip install "mmdet_backbones[deploy]"'
        )
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


def _put(partial: Path, out: Path) -> None:
    """Give a whole folder its name; one that is there goes last."""
    old = out.with_name(f'.{out.name}.old')
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)


class _Job:
    """One export: what is known before the first file is written.

    Args:
        options: What a user asked for.
        trained: Config and checkpoint.
        detector: Built from them.
    """

    def __init__(
        self, options: ExportOptions, trained: Trained, detector: TorchDetector
    ) -> None:
        self.options = options
        self.trained = trained
        self.detector = detector
        self.intake: Intake = read_intake(
            trained.config, detector.model.data_preprocessor
        )
        self.canvas = None if options.dynamic else self.intake.canvas
        self.images: Images = find_images(
            trained.config, options.data, detector.names, self.intake.canvas
        )
        if options.precision != 'fp32' and not self.images.annotated:
            raise UserError(
                f'--precision {options.precision} is judged by the mAP on the data '
                'set, and that of the config is not here: write --data FOLDER'
            )
        self.reference = Reference(detector, self.intake, self.canvas)
        self.notes = [*trained.notes]

    def write(self, folder: Path, tell: Callable[[str], object]) -> Exported:
        """Write the model and prove it."""
        graph = self._graph()
        limits = graph.decoder.limits
        description = describe(
            self.trained,
            self.detector.names,
            limits,
            self.intake,
            (self.options.format, self.options.precision),
            self.canvas,
        )
        tell('tracing')
        program = formats.export_program(
            graph,
            self.intake.canvas,
            1,
            self.intake.divisor if self.options.dynamic else None,
        )
        tell(f'writing {self.options.format}')
        self._write_model(program, folder)
        write_description(folder, description)
        exported = load(folder, trust=True)
        if self.options.precision == 'int8':
            from .quantising import quantise

            tell('quantising, as long as mAP allows it')
            self.notes += quantise(
                folder,
                exported,
                self.images,
                self.detector.read,
                self.options.max_drop,
                lambda: write_description(folder, description),
            )
            exported = load(folder, trust=True)
        tell(f'comparing on {self.images.what}')
        found = self._compare(exported, limits.nms_iou, limits.max_per_image)
        equal, more = self._judged(found, exported, tell)
        write_equality(folder, description, found, self.images.what, more)
        self._add_examples(folder)
        write_description(folder, description, found)
        return Exported(folder, found, self.images.what, tuple(self.notes), equal)

    def _graph(self) -> DetectorGraph:
        model = self.detector.model
        try:
            folded = fuse_for_inference(model)
        except ValueError as error:
            folded = deepcopy(model)
            self.notes.append(f'normalisation is not folded: {error}')
        half = self.options.precision == 'fp16' and self.options.format != 'openvino'
        graph = DetectorGraph(folded, decoder_of(folded), self.intake.rules, half)
        for parameter in graph.parameters():
            parameter.requires_grad_(False)
        # mmdet's own nets return None from eval().
        graph.eval()
        return graph

    def _write_model(self, program: Any, folder: Path) -> None:
        if self.options.format == 'onnx':
            formats.write_onnx(program, folder / 'model.onnx')
        elif self.options.format == 'openvino':
            half = self.options.precision == 'fp16'
            formats.write_openvino(program, folder / 'model.xml', half)
        else:
            formats.write_torch(program, folder / 'model.pt2')

    def _compare(
        self, exported: ExportedDetector, nms_iou: float | None, count: int
    ) -> Comparison:
        images = self.images.to_prove(self.detector.read)
        expected = self.reference.predict(images)
        found = exported.predict(images)
        bounds = Bounds() if self.options.precision == 'fp32' else _LOOSE
        bounds = replace(bounds, nms_iou=nms_iou, count=count)
        best = max((float(one.scores.max(initial=0)) for one in expected), default=0.0)
        threshold = _THRESHOLD
        if best < _THRESHOLD:
            threshold = 0.0
            self.notes.append(
                f'no box has a score of {_THRESHOLD:g}, the best one {best:.2g}: all '
                'boxes were compared'
            )
        return compare(expected, found, threshold, bounds)

    def _judged(
        self,
        found: Comparison,
        exported: ExportedDetector,
        tell: Callable[[str], object],
    ) -> tuple[bool, list[str]]:
        """Whether it counts as equal, and lines for the report."""
        if not found.boxes:
            self.notes.append('no box was found in any image: this proves little')
        if self.options.precision == 'fp32':
            return found.equal, [*self._lines()]
        tell('measuring mAP before and after')
        before, after = (
            self.images.average_precision(predict, self.detector.read)
            for predict in (self.reference.predict, exported.predict)
        )
        self.notes.append(
            f'mAP {before:.3f} in float32, {after:.3f} in {self.options.precision}'
        )
        return before - after <= self.options.max_drop + 1e-9, [*self._lines()]

    def _lines(self) -> Iterator[str]:
        for note in self.notes:
            yield f'{note}.'
            yield ''

    def refusal(self, exported: Exported) -> str:
        """Say why an export is not kept."""
        told = '; '.join((str(exported.comparison), *exported.notes))
        wanted = (
            'does not find what the detector finds'
            if self.options.precision == 'fp32'
            else f'costs more than {self.options.max_drop:g} of mAP (--max-drop)'
        )
        return (
            f'the exported detector {wanted} on {exported.images}: {told}. It is not '
            'kept; --force keeps it'
        )

    @staticmethod
    def _add_examples(folder: Path) -> None:
        from importlib.resources import files

        templates = files('mmdet_backbones.runtime') / 'examples'
        for name in _EXAMPLES:
            text = (templates / name).read_text(encoding='utf-8')
            (folder / name).write_text(text, encoding='utf-8')


def next_command(folder: Path) -> str:
    """Name what to do with an exported folder."""
    return f'{command("predict")} {folder} IMAGES'

