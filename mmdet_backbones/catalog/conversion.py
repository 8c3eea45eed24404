"""Turn a checkpoint of one source into a file that a named net loads as it is."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from ..errors import CheckpointError, UserError
from ..files import path_of, target_problem, whole_file
from ..weights.loading.init_cfg import Terms
from ..weights.loading.loader import load_checkpoint
from ..weights.loading.report import LoadReport
from ..weights.names.dialect import OWN, Dialect
from ..weights.reading.reader import read_checkpoint, read_shapes


@dataclass(frozen=True)
class Conversion:
    """What was converted.

    Attributes:
        report: What the net took from the file.
        target: File that was written.
        meta: What stands beside the weights in it.
    """

    report: LoadReport
    target: Path
    meta: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return dict(
            target=str(self.target), meta=self.meta, report=self.report.to_dict()
        )


def convert(
    source: str,
    name: str,
    target: str,
    *,
    licence: str | None = None,
    min_coverage: float | None = None,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    force: bool = False,
) -> Conversion:
    """Load a checkpoint into a net and write the net's weights.

    Args:
        source: As ``checkpoint`` of ``init_cfg``.
        name: Of the catalog, for example ``'timm/resnet50'``; with ``@`` and the name
            of a dialect of the net the weights are written under its names:
            ``'timm/resnet50@timm'``.
        target: Path of a ``.pth`` or a ``.safetensors`` file.
        licence: Of the weights, to be stored with them.
        min_coverage: See :func:`~mmdet_backbones.weights.load_pretrained`, as for the
            next two.
        allow_missing: Names or roles that the checkpoint may lack.
        allow_unexpected: The same of what the net's blocks do not take of it.
        force: Replace a file that is there.

    Returns:
        The report and what was stored beside the weights.

    Raises:
        CheckpointError: If the source cannot be read, or the target not be written.
        PretrainedWeightsError: If the checkpoint is not one of this net.
        UserError: If there is no such net or dialect.
    """
    from ..registry import MODELS
    from . import find

    path = path_of(target)
    problem = target_problem(path, ('.pth', '.safetensors'), force, new_folder=False)
    if problem:
        raise CheckpointError(problem)
    net_name, _, dialect_name = name.partition('@')
    entry = find(net_name)
    net = MODELS.build({**entry.config, **entry.every_level})
    if not hasattr(net, 'dialects'):
        raise UserError(
            f"'{net_name}' is no class of this package, its names are its own affair: "
            'convert to one of timm/, torchvision/, mmpretrain/ or our own nets'
        )
    dialect = _dialect(net, dialect_name, net_name)
    checkpoint = read_checkpoint(source)
    # Nothing is trained here, so that nothing is frozen.
    terms = Terms(min_coverage, tuple(allow_missing), tuple(allow_unexpected), True)
    report = load_checkpoint(net, checkpoint, terms=terms)
    meta = _meta(net, name, report, licence or _licence(checkpoint.metadata))
    write_weights(path, dialect.write(net.state_dict()), meta)
    return Conversion(report, path, meta)


def key_table(source: str) -> Table:
    """List names and shapes of a checkpoint as a table for a terminal."""
    table = Table(box=None, header_style='bold', pad_edge=False)
    table.add_column('name', overflow='fold')
    table.add_column('shape', no_wrap=True)
    for name, shape in read_shapes(source).items():
        table.add_row(name, ' x '.join(map(str, shape)) or 'one number')
    return table


def _dialect(backbone: Any, name: str, net: str) -> Dialect:
    if not name:
        return OWN
    keys = backbone.state_dict()
    known = {d.name: d for d in backbone.dialects if d.writes(keys)}
    if name not in known:
        raise UserError(
            f"'{net}' cannot be written as '{name}'. It can as "
            + (', '.join(f"'{net}@{n}'" for n in known) or 'nothing but itself')
        )
    return known[name]


def _licence(metadata: Mapping[str, Any]) -> str | None:
    found = metadata.get('license') or metadata.get('licence')
    return found if isinstance(found, str) and found else None


def _meta(
    net: Any, name: str, report: LoadReport, licence: str | None
) -> dict[str, str]:
    from .. import __version__

    meta = dict(
        net=name,
        source=report.source,
        source_sha256=report.sha256,
        source_names=report.dialect,
        converted_by=f'mmdet_backbones {__version__}',
    )
    if licence is not None:
        meta['licence'] = licence
    preprocess = net.preprocess
    if preprocess is not None:
        meta['mean'] = json.dumps(preprocess.mean)
        meta['std'] = json.dumps(preprocess.std)
        meta['channel_order'] = preprocess.channel_order
    return meta


def write_weights(
    path: Path, state_dict: Mapping[str, Tensor], meta: dict[str, str]
) -> None:
    """Write weights and what is known of them into one file.

    Args:
        path: Of a ``.pth`` or a ``.safetensors`` file.
        state_dict: The weights.
        meta: What stands beside them.

    Raises:
        OSError: If the file cannot be written whole.
    """
    # Parts of one tensor would be written whole, or refused by safetensors.
    weights = {
        key: value.detach().clone(memory_format=torch.contiguous_format)
        for key, value in state_dict.items()
    }
    with whole_file(path) as partial:
        try:
            if path.suffix == '.safetensors':
                from safetensors.torch import save_file

                save_file(weights, partial, metadata=meta)
            else:
                torch.save({'meta': meta, 'state_dict': weights}, partial)
        # Neither says of a full disk by its kind of error what it is.
        except Exception as error:
            raise OSError(errno.ENOSPC, f'{error}'.splitlines()[0]) from error
