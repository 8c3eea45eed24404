"""One graph in the file format of each engine."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..environment import variables
from ..errors import UserError
from ..runtime.description import OUTPUTS
from .intake import Size

INPUTS = ('images', 'sizes')
#: Format: packages that write it, and those that run it.
PACKAGES = {
    'onnx': ('onnx', 'onnxscript', 'onnxruntime'),
    'openvino': ('onnx', 'onnxscript', 'openvino'),
    'torch': (),
}
_OPSET = 20
_MOST_IMAGES = 1024
_LARGEST_SIDE = 1 << 15
# Side in pixels of images whose deepest maps have several rows.
_TRACED = 384
# Of the first line of what an exporter raises.
_LONGEST = 400


def packages_of(format: str, precision: str) -> list[str]:
    """Name the packages that a format needs."""
    return [*PACKAGES[format], *(['nncf'] if precision == 'int8' else [])]


def export_program(
    graph: nn.Module, size: Size, batch: int, divisor: int | None
) -> torch.export.ExportedProgram:
    """Make a program of a graph.

    Args:
        graph: Takes images and sizes.
        size: Height and width of the images in pixels.
        batch: Number of images.
        divisor: Of the sides of images where their number and size may vary; None if
            both are fixed.

    Raises:
        UserError: If ``torch.export`` does not take it.
    """
    shapes = None
    if divisor is not None:
        # torch.export takes a 1 for a constant, of deep maps as well, and two sides of
        # the same length for one.
        batch = max(batch, 2)
        least = -(-_TRACED // divisor) * divisor
        size = (least, least + divisor * 4)
        number = torch.export.Dim('batch', min=1, max=_MOST_IMAGES)
        most = _LARGEST_SIDE // divisor
        sides = [
            divisor * torch.export.Dim(n, min=1, max=most) for n in ('rows', 'columns')
        ]
        shapes = ({0: number, 1: sides[0], 2: sides[1]}, {0: number})
    example = example_of(size, batch)
    with _exporting('torch.export'), torch.no_grad():
        program = torch.export.export(
            graph, example, dynamic_shapes=shapes, strict=False
        )
    for node in program.graph.nodes:
        # It names the files of this machine, and is most of what would be written.
        node.meta.pop('stack_trace', None)
    return program


def example_of(size: Size, batch: int) -> tuple[Tensor, Tensor]:
    """Make images and their sizes, blank, for a program to be traced with."""
    images = torch.zeros(batch, *size, 3, dtype=torch.uint8)
    return images, torch.tensor([size] * batch, dtype=torch.int64)


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program as one ONNX file.

    Raises:
        UserError: If an operator has no counterpart.
    """
    with _exporting('torch.onnx.export'):
        written = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            opset_version=_OPSET,
            verbose=False,
        )
    assert written is not None
    _name_parts(written.model.graph)
    written.save(str(path))


def _name_parts(graph: Any) -> None:
    """Name nodes by the part of the detector that they compute, and nothing else.

    What quantises a graph chooses layers by these names; files of this machine, which
    stand there too, are nobody's business.
    """
    kept = {id(value) for value in graph.outputs}
    for node in graph.all_nodes():
        given = node.metadata_props.get('pkg.torch.onnx.name_scopes', '[]')
        # The last is the node's own name, the first that of the whole graph.
        scopes = ast.literal_eval(given)
        part = (scopes[-2] if len(scopes) > 1 else '') or 'graph'
        node.name = f'{part}/{node.name}'
        for value in node.outputs:
            if id(value) not in kept and value.name:
                value.name = f'{part}/{value.name}'
        node.metadata_props.clear()
        node.doc_string = None


def write_torch(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program as ``torch.export.load`` reads it."""
    torch.export.save(program, str(path))


def write_openvino(
    program: torch.export.ExportedProgram, path: Path, half: bool
) -> None:
    """Write a program as OpenVINO reads it: structure, and weights beside it.

    Args:
        program: Of the detector.
        path: Of the structure, ``.xml``.
        half: Whether weights are stored in float16.

    Raises:
        UserError: If an operator has no counterpart.
    """
    import openvino

    onnx_path = path.with_suffix('.onnx')
    try:
        write_onnx(program, onnx_path)
        with _exporting('OpenVINO'):
            model = _read_by_openvino(onnx_path)
            openvino.save_model(model, str(path), compress_to_fp16=half)
    finally:
        onnx_path.unlink(missing_ok=True)


def _read_by_openvino(path: Path) -> Any:
    import openvino

    try:
        # Not by convert_model, which reports its use to a server.
        return openvino.Core().read_model(str(path))
    except RuntimeError as error:
        if 'DeformConv' not in str(error):
            raise
        raise UserError(
            'OpenVINO reads no deformable convolutions, which this detector has: write '
            '--format onnx'
        ) from error


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Keep the tools of OpenVINO from reporting what is done to a server.

    They do unless they believe to be in a test on a server.
    """
    with variables({'CI': 'true', 'NNCF_CI': '1'}):
        yield


@contextlib.contextmanager
def _exporting(what: str) -> Iterator[None]:
    """Keep an exporter's talk back, and tell in one message what it does not take."""
    talk = io.StringIO()
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings(), contextlib.redirect_stdout(talk):
            warnings.simplefilter('ignore')
            yield
    except UserError:
        raise
    except Exception as error:  # whatever an exporter raises
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        cause = error.__cause__
        while cause is not None:
            reason = f'{reason}; {(str(cause).splitlines() or [""])[0]}'
            cause = cause.__cause__
        raise UserError(
            f'{what} does not take this detector: {reason[:_LONGEST]}'
        ) from error
    finally:
        logging.disable(level)
