"""Maps of a wholly frozen backbone on disk: computed once, read ever after."""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..files import NotWrittenError, whole_file

Maps = tuple[Tensor, ...]
_FOLDER_DIGITS = 16
# What torch.load raises for a file that is cut off or is none of its own.
_DAMAGED = (RuntimeError, EOFError, ValueError, pickle.UnpicklingError, OSError)


class MapCache:
    """A folder of maps, a file for each image.

    The key of an image is its content as the backbone gets it, size and normalisation
    included, with the type and the kind of device that it is computed in. Each net has
    a folder of its own, named by its weights and its layers. Files are whole or not
    there: processes that share the folder may write the same one.

    Args:
        folder: Made when missing.
        backbone: The net, with its weights.
        limit: Bytes that the folder may hold. Beyond them maps are computed each time.
        processes: That write into the folder; each may fill its share.

    Attributes:
        read: Images whose maps were read.
        computed: Images whose maps were computed.
    """

    def __init__(
        self, folder: Path, backbone: nn.Module, limit: int, processes: int = 1
    ) -> None:
        self.folder = folder / identity_of(backbone)[:_FOLDER_DIGITS]
        self.folder.mkdir(parents=True, exist_ok=True)
        sizes = [f.stat().st_size for f in folder.rglob('*.pt')]
        self.limit = limit
        self.room = max(limit - sum(sizes), 0) // processes
        self.read = self.computed = 0

    def maps(self, images: Tensor, compute: Callable[[Tensor], Maps]) -> Maps:
        """Read the maps of images, and compute those that are not there.

        Args:
            images: Of shape (N, C, H, W).
            compute: Maps images to one (N, C, H, W) tensor per level.

        Returns:
            What ``compute`` returned for each of the images when it was first seen.
        """
        paths = [self._path(image) for image in images]
        found = [self._read(path, images.device) for path in paths]
        missing = [number for number, maps in enumerate(found) if maps is None]
        self.read += len(paths) - len(missing)
        self.computed += len(missing)
        if not missing:
            return _joined(found)  # type: ignore[arg-type]
        whole = len(missing) == len(paths)
        fresh = compute(images if whole else images[missing])
        for place, number in enumerate(missing):
            maps = tuple(level[place : place + 1] for level in fresh)
            self._write(paths[number], maps)
            found[number] = maps
        return fresh if whole else _joined(found)  # type: ignore[arg-type]

    def _path(self, image: Tensor) -> Path:
        kind = image.device.type
        # Under autocast the same image gives other maps.
        half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
        facts = f'{tuple(image.shape)} {image.dtype} {kind} {half}'
        digest = hashlib.blake2b(facts.encode(), digest_size=20)
        digest.update(_bytes_of(image))
        return self.folder / f'{digest.hexdigest()}.pt'

    def _read(self, path: Path, device: torch.device) -> Maps | None:
        try:
            return tuple(torch.load(path, map_location=device, weights_only=True))
        except FileNotFoundError:
            return None
        except _DAMAGED as error:
            self._say(f"'{path}' cannot be read and is written anew: {error}")
            return None

    def _write(self, path: Path, maps: Maps) -> None:
        size = sum(level.numel() * level.element_size() for level in maps)
        if size > self.room:
            if self.room >= 0:
                self._say(
                    f"the folder '{self.folder.parent}' has reached its limit of "
                    f'{self.limit / 1e9:.3g} GB: maps of further images, '
                    f'{size / 1e6:.3g} MB each, are computed every time. Raise the '
                    'limit, or delete the folders of other nets in it'
                )
                self.room = -1
            return
        try:
            with whole_file(path) as partial:
                # Without a copy the file would hold the whole batch.
                torch.save([level.cpu().clone() for level in maps], partial)
        except NotWrittenError as error:
            self._say(f'{error}. Maps are computed every time')
            self.room = -1
            return
        self.room -= path.stat().st_size

    @staticmethod
    def _say(what: str) -> None:
        print_log(f'Cached maps: {what}', 'current', logging.WARNING)


def identity_of(backbone: nn.Module) -> str:
    """Hash what the maps of an image depend on: weights, layers, levels, torch."""
    facts = (torch.__version__, backbone, getattr(backbone, 'out_indices', ()))
    digest = hashlib.sha256(repr(facts).encode())
    tensors: dict[str, Any] = backbone.state_dict()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(_bytes_of(value))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> Any:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def _joined(found: Sequence[Maps]) -> Maps:
    if len(found) == 1:
        return found[0]
    return tuple(torch.cat(levels) for levels in zip(*found, strict=True))
