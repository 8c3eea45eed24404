"""Read a checkpoint as data: nothing in the file is ever executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...errors import CheckpointError, DamagedFileError, printable, shown
from .download import check_digest, discard, hash_beside, sha256_of
from .file_formats import check_sums, recognise
from .held import hold, look
from .sources import Located, bring
from .unwrap import check_names, check_size, unwrap, without_prefixes
from .values import check_finite

__all__ = ['Checkpoint', 'CheckpointError', 'read_checkpoint', 'read_shapes']

_LONGEST_CONFIG = 1_000_000
_LONGEST_SOURCE = 1000


@dataclass(frozen=True)
class Checkpoint:
    """Weights as they stand in a file.

    Attributes:
        state_dict: Tensors by name, ``module.`` of data-parallel runs removed. On
            Linux they are of a copy of the file in memory; elsewhere they may be views
            into it: do not write to it while they are in use (write a new file and
            rename it).
        source: What the user wrote as ``checkpoint``.
        hashed: Gives the sha256 of the file, None if there is no file.
        path: Of the file on this machine.
        wrapper: Keys under which the weights stood, joined by dots, None if they
            stood on top.
        metadata: Text that the file has beside the tensors: ``__metadata__`` of a
            safetensors file, ``meta`` of a file of torch.save.
    """

    state_dict: dict[str, Tensor]
    source: str
    hashed: Future[str] | None = None
    path: Path | None = None
    wrapper: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Of the file, which may still be being hashed; empty if there is none.

        Raises:
            CheckpointError: If the file cannot be read any more.
        """
        with _readable(self.source):
            return self.hashed.result() if self.hashed is not None else ''

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images, if the file tells the config of its net."""
        text = self.metadata.get('cfg')
        # The tree of a text takes a hundred times as much memory.
        if not isinstance(text, str) or len(text) > _LONGEST_CONFIG:
            return None
        try:
            config = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        found = (
            value
            for backbone in _values(config, 'backbone')
            for value in _values(backbone, 'img_size', 'image_size')
        )
        try:
            size = ast.literal_eval(next(found, ast.Constant(None)))
        except (ValueError, TypeError, RecursionError, MemoryError):
            return None
        sides = (size, size) if isinstance(size, int) else size
        whole = isinstance(sides, (tuple, list)) and len(sides) == 2
        if not whole or not all(type(side) is int and side > 0 for side in sides):
            return None
        return sides[0], sides[1]


def _values(tree: ast.AST, *names: str) -> Iterator[ast.expr]:
    """Values of the keyword arguments of some names, in a config as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in names:
            yield node.value


def read_checkpoint(
    source: str, map_location: str = 'cpu', finite: bool = True
) -> Checkpoint:
    """Read the weights of a file or an address.

    The format is told by the content, not by the suffix: files of ``torch.save``
    (``.pth``, ``.pt``, ``.bin``, ``.ckpt``, ``.pkl``) and ``.safetensors``. Plain
    pickles are refused, as reading them can run any code.

    Args:
        source: A path; an ``http(s)://`` address, downloaded once into torch's hub
            cache; ``torchvision://resnet50``, which means ``IMAGENET1K_V1`` as in
            mmengine, or ``torchvision://resnet50.IMAGENET1K_V2``;
            ``timm://`` and the name of a model, with or without a tag;
            ``hf://facebook/dinov2-base``, a repository of the Hugging Face hub;
            ``open-mmlab://`` and a name of mmengine's table.
        map_location: Device the tensors are put on, as in ``torch.load``.
        finite: Refuse NaN and infinity in any tensor. A caller that uses only some
            of them checks these with :func:`~.values.check_values`.

    Returns:
        The tensors with the usual wrappers taken off.

    Raises:
        CheckpointError: If the file is missing, is no checkpoint, holds objects
            other than weights, or the address cannot be reached.
    """
    with _opened(source, map_location, finite, briefly=False) as checkpoint:
        return checkpoint


def open_checkpoint(
    source: str, map_location: str = 'cpu', finite: bool = True
) -> AbstractContextManager[Checkpoint]:
    """Read weights that are of no use after a block, in less time and memory.

    As :func:`read_checkpoint`, but the tensors may be views into the file, to which
    nobody can write meanwhile.
    """
    return _opened(source, map_location, finite, briefly=True)


@contextmanager
def _opened(
    source: str, map_location: str, finite: bool, briefly: bool
) -> Iterator[Checkpoint]:
    located, source = bring(source), _shown(source)
    path, digest = located.path, located.digest
    with ExitStack() as stack:
        with _readable(source), _good(located, source):
            file = stack.enter_context(hold(path, source, briefly))
            form = recognise(file, source)
            hashed = hash_beside(path)
            check_sums(file, source)
            content = form.read(file.path, source, map_location)
            state_dict, wrapper = unwrap(content.data, source)
            check_size(state_dict, file.size, source)
            if finite:
                check_finite(state_dict, source)
            if digest is not None:
                check_digest(path, hashed.result(), digest, source)
        yield Checkpoint(state_dict, source, hashed, path, wrapper, content.metadata)


def read_shapes(source: str) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of the weights, not the weights.

    Args:
        source: As :func:`read_checkpoint` takes it; downloaded if it is not here.

    Returns:
        Shapes by name, as the keys of :attr:`Checkpoint.state_dict`.

    Raises:
        CheckpointError: As :func:`read_checkpoint`, but for what the data is.
    """
    located, source = bring(source), _shown(source)
    path = located.path
    with _readable(source), _good(located, source), look(path) as file:
        form = recognise(file, source)
        if form.shapes is not None:
            shapes = form.shapes(path, source)
            check_names(shapes, source)
            return without_prefixes(shapes)
        # Files of torch.save are mapped into memory, and their numbers not touched.
        content = form.read(path, source, 'cpu')
        state_dict, _ = unwrap(content.data, source)
        return {name: tuple(value.shape) for name, value in state_dict.items()}


class Saved(NamedTuple):
    """A file as it was saved, wrappers and all.

    Attributes:
        content: What it holds.
        by_torch: Whether ``torch.load`` reads it, and with it mmengine's loader.
        size: Of the file, in bytes.
    """

    content: Any
    by_torch: bool
    size: int


def read_saved(path: Path, source: str) -> Saved:
    """Read a file on this machine as data, and take nothing off.

    Args:
        path: Of the file.
        source: What the user wrote, for messages.

    Raises:
        CheckpointError: As :func:`read_checkpoint`, but for what the data is.
    """
    source = _shown(source)
    with _readable(source), hold(path, source) as file:
        form = recognise(file, source)
        check_sums(file, source)
        data = form.read(file.path, source, 'cpu').data
        return Saved(data, form.shapes is None, file.size)


def _shown(source: str) -> str:
    """What is told and stored of a source: one line, without a password."""
    return printable(shown(source), _LONGEST_SOURCE)


@contextmanager
def _good(located: Located, source: str) -> Iterator[None]:
    """Leave no bad download behind as if it were good; name the file of any other."""
    path, digest = located.path, located.digest
    try:
        yield
    except CheckpointError as error:
        if not path.is_file() or str(path) == source:
            raise
        if digest is not None:
            # A damaged download is the likelier cause, and is removed.
            check_digest(path, sha256_of(path), digest, source)
        elif located.downloaded and isinstance(error, DamagedFileError):
            raise DamagedFileError(f'{error}. {discard(path)}') from error
        raise type(error)(f'{error}. The file is {path}') from error


@contextmanager
def _readable(source: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise CheckpointError(
            f"There is no permission to read the checkpoint '{source}': ask its owner "
            'for it, or copy it to where you may read it'
        ) from error
    except OSError as error:
        raise CheckpointError(f"'{source}' cannot be read: {error}") from error
    except MemoryError as error:
        raise CheckpointError(
            f"'{source}' needs more memory than there is: close other programs, or "
            'read it on a larger machine'
        ) from error
