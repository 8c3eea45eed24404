"""Large photographs in tiles that overlap, and their boxes put together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..own_data.tiles import SMALLEST, spans
from ..runtime.detections import Detections

# Of two boxes, within what both tiles show.
_SAME = 0.5
# Part of the rest of an object that lies within the box of the whole.
_INSIDE = 0.7
# A box ends at the edge of its tile if it ends so near to it, in pixels or in parts of
# the tile: detectors place edges no better. Too many do no harm, since the other tile
# shows where they end.
_NEAR_PIXELS, _NEAR_PART = 2.0, 0.02


@dataclass(frozen=True)
class Tiling:
    """How photographs are cut.

    Attributes:
        side: Pixels that a tile shall have; images up to 1.5 times as large stay whole.
        overlap: Part of a tile that it shares with the next.
    """

    side: int
    overlap: float = 0.2

    def problems(self) -> list[str]:
        """Say which numbers are out of their range."""
        found = []
        if self.side < SMALLEST:
            found.append(f'--tile takes {SMALLEST} or more pixels, got {self.side}')
        if not 0 <= self.overlap <= 0.5:
            found.append(f'--overlap lies between 0 and 0.5, got {self.overlap}')
        return found

    def windows(self, size: tuple[int, int]) -> np.ndarray:
        """Cut an image.

        Args:
            size: Width and height.

        Returns:
            (T, 4) left, top, right, bottom of the tiles.
        """
        columns, rows = (spans(length, self.side, self.overlap) for length in size)
        return np.array(
            [(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns], np.int64
        )

    def predict(
        self,
        image: np.ndarray,
        predict: Callable[[Sequence[np.ndarray]], list[Detections]],
    ) -> Detections:
        """Find boxes in all tiles of an image.

        Args:
            image: (H, W, 3).
            predict: Finds them in images.

        Returns:
            Those of the whole, each object once.
        """
        windows = self.windows((image.shape[1], image.shape[0]))
        tiles = [image[y0:y1, x0:x1] for x0, y0, x1, y1 in windows]
        found = predict(tiles)
        return found[0] if len(tiles) == 1 else merge(windows, found)


def merge(windows: np.ndarray, found: Sequence[Detections]) -> Detections:
    """Put the boxes of tiles together.

    What two tiles show of one object is the same within what both of them see, so two
    boxes of a class that agree there are one. It gets the surer score, and the sides
    of the surer box, except where its tile cut it off. Boxes of one tile stay as the
    detector gave them.

    Args:
        windows: (T, 4) left, top, right, bottom of the tiles.
        found: Boxes of each, in its own pixels.

    Returns:
        The boxes in pixels of the whole.
    """
    tile = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
    corner = np.tile(windows[:, :2], 2).astype(np.float32)
    boxes = np.concatenate([one.boxes for one in found]).astype(np.float32)
    boxes = boxes + corner[tile]
    scores = np.concatenate([one.scores for one in found])
    labels = np.concatenate([one.labels for one in found])
    order = np.argsort(-scores, kind='stable')
    tile, boxes, scores, labels = (
        tile[order],
        boxes[order],
        scores[order],
        labels[order],
    )
    parts = _Parts(boxes, labels, tile, windows, _cut(boxes, windows, tile))
    groups = parts.groups()
    whole = np.array([parts.joined(group) for group in groups], np.float32)
    kept = [group[0] for group in groups]
    return Detections(whole.reshape(-1, 4), scores[kept], labels[kept], found[0].names)


def _cut(boxes: np.ndarray, windows: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """Tell which sides of each box lie where its tile ends and the image goes on."""
    edges = windows[tile]
    whole = [*windows[:, :2].min(0), *windows[:, 2:].max(0)]
    sides = (windows[:, 2:] - windows[:, :2]).min()
    near = max(_NEAR_PIXELS, _NEAR_PART * sides)
    return (np.abs(boxes - edges) <= near) & (edges != whole)


@dataclass(frozen=True)
class _Parts:
    """Boxes of all tiles, the surest first, in pixels of the whole.

    Attributes:
        boxes: (N, 4).
        labels: (N,).
        tile: (N,) that each comes from.
        windows: (T, 4) of the tiles.
        cut: (N, 4) which sides end where a tile does.
    """

    boxes: np.ndarray
    labels: np.ndarray
    tile: np.ndarray
    windows: np.ndarray
    cut: np.ndarray

    def groups(self) -> list[list[int]]:
        """Group the boxes of one object, the surest first."""
        free = np.ones(len(self.boxes), bool)
        groups = []
        for first in range(len(self.boxes)):
            if not free[first]:
                continue
            free[first] = False
            group, tiles = [first], {self.tile[first]}
            # It grows: an object may reach over three tiles.
            for member in group:
                for other in self._others(member, free):
                    if self.tile[other] not in tiles:
                        free[other] = False
                        tiles.add(self.tile[other])
                        group.append(other)
            groups.append(group)
        return groups

    def joined(self, group: list[int]) -> np.ndarray:
        """Return the box of an object: the surest, but for sides that are cut off."""
        members = self.boxes[group]
        widest = np.concatenate([members[:, :2].min(0), members[:, 2:].max(0)])
        return np.where(self.cut[group[0]], widest, members[0])

    def _others(self, one: int, free: np.ndarray) -> list[int]:
        """Find boxes of the same object in other tiles, the surest first."""
        boxes, tile = self.boxes, self.tile
        alike = (self.labels == self.labels[one]) & (tile != tile[one])
        there = np.flatnonzero(free & alike)
        shared = _common(self.windows[tile[one]], self.windows[tile[there]])
        mine, theirs = _common(boxes[one], shared), _common(boxes[there], shared)
        both = _area(_common(mine, theirs))
        either = _area(mine) + _area(theirs) - both
        same = (both > 0) & (both > _SAME * either)
        # A tile that shows little of an object may place it otherwise.
        inside = _area(_common(boxes[one], boxes[there]))
        rest = self.cut[there].any(1) & (inside > _INSIDE * _area(boxes[there]))
        whole = self.cut[one].any() & (inside > _INSIDE * _area(boxes[one]))
        return there[same | rest | whole].tolist()


def _common(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    return np.concatenate([low, np.maximum(low, high)], -1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
