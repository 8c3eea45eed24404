"""From a trained detector to a folder that runs without mmdet, proven equal."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..backbones.lora import merge_lora
from ..commands import command
from ..errors import UserError
from ..files import NotWrittenError
from ..inference.fusion import fuse_for_inference
from ..predict.locating import Trained, find_trained
from ..predict.torch_detector import TorchDetector
from ..runtime import ExportedDetector, load, read_folder
from . import formats
from .decoding import decoder_of
from .describing import describe, write_description, write_equality
from .equality import LOOSE, Bounds, Equality, compare
from .evidence import Images, find_images
from .graph import DetectorGraph
from .intake import Intake, read_intake, set_size
from .options import ExportOptions, problems_in
from .reference import Reference

_EXAMPLES = ('example.py', 'example.cpp')
# Of scores that anybody looks at.
_THRESHOLD = 0.05


@dataclass(frozen=True)
class Exported:
    """What an export gave.

    Attributes:
        folder: That was written.
        comparison: With the detector itself.
        images: Which images were compared.
        notes: What a user should know.
        passed: Whether it is equal, or in a lower precision costs no more mAP than
            it may.
    """

    folder: Path
    comparison: Equality
    images: str
    notes: tuple[str, ...]
    passed: bool


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
    problems = [*problems_in(options)]
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
        if not exported.passed and not options.force:
            raise UserError(job.refusal(exported))
        _put(partial, options.out)
    except OSError as error:
        raise NotWrittenError(options.out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return replace(exported, folder=options.out)


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
        self.notes = [*trained.notes, *self.reference.notes]
        self.graph = self._graph()

    def write(self, folder: Path, tell: Callable[[str], object]) -> Exported:
        """Write the model and prove it."""
        limits = self.graph.decoder.limits
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
            self.graph,
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
            folded = merge_lora(deepcopy(model))
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
    ) -> Equality:
        images = self.images.to_prove(self.detector.read)
        expected = self.reference.predict(images)
        found = exported.predict(images)
        bounds = Bounds() if self.options.precision == 'fp32' else LOOSE
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
        found: Equality,
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
    if read_folder(folder).format == 'torch':
        # Which can bring code, so that a command does not load it unasked.
        return f"mmdet_backbones.runtime.load('{folder}', trust=True)"
    return f'{command("predict")} {folder} IMAGES'
