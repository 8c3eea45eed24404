"""Finds pictures that look the same, though their files differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec

import cv2
import numpy as np
from PIL import Image

NOT_LOOKED_FOR = (
    'Pictures that look the same in train and val were not looked for: write\n'
    '  pip install imagehash'
)
# Of 64 bits. A picture that is saved again, at another size or brightness, differs in
# 6 or fewer, one without 2 % of its rim mostly too; two photographs differ in 16 and
# more.
_MOST_BITS = 6
_CHUNKS = _MOST_BITS + 1
# Of 256 shades; all bits of such a picture are noise.
_FLAT = 16
_BITS = np.array([bin(byte).count('1') for byte in range(256)], dtype=np.uint8)
# Pairs that are compared at a time: 8 bytes each, twice.
_MOST_PAIRS = 1 << 20


@cache
def can_look() -> bool:
    """Tell whether imagehash is installed."""
    return find_spec('imagehash') is not None


def look_of(picture: np.ndarray) -> int | None:
    """Return 64 bits that are almost the same for pictures that look so.

    Args:
        picture: In BGR, as OpenCV reads it.

    Returns:
        None where imagehash is not installed, or there is nothing in the picture.
    """
    if not can_look():
        return None
    import imagehash

    # Most of the time goes into making it small, and OpenCV is faster at that.
    if max(picture.shape[:2]) > 128:
        picture = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    if np.ptp(grey) < _FLAT:
        return None
    bits = imagehash.phash(Image.fromarray(grey)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), 'big')


def pairs_alike(
    known: Sequence[int | None], asked: Sequence[int | None]
) -> dict[int, int]:
    """Find for some looks one that is almost the same, if there is one.

    Looks that differ in 6 bits at most have one of 7 chunks in common, so only those
    are compared that have.

    Args:
        known: Looks to find; None is like nothing.
        asked: Looks to find them for.

    Returns:
        Places in ``known`` by places in ``asked``.
    """
    first = {look: place for place, look in reversed([*enumerate(known)])}
    first.pop(None, None)
    found = {place: first[look] for place, look in enumerate(asked) if look in first}
    places = np.array(list(first.values()), dtype=np.int64)
    looks = np.array(list(first), dtype=np.uint64)
    open_ = [i for i, look in enumerate(asked) if look is not None and i not in found]
    for chunk in range(_CHUNKS):
        wanted = np.array([asked[place] for place in open_], dtype=np.uint64)
        for mine, theirs in _sharing(looks, wanted, chunk):
            near = _first_near(looks[theirs], wanted[mine])
            for i, j in zip(mine, near, strict=True):
                if j >= 0:
                    found[open_[i]] = int(places[theirs[j]])
        open_ = [place for place in open_ if place not in found]
    return found


def _sharing(
    known: np.ndarray, asked: np.ndarray, chunk: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places in ``asked`` and in ``known`` that have a chunk in common."""
    start, end = (64 * i // _CHUNKS for i in (chunk, chunk + 1))
    shift, mask = np.uint64(start), np.uint64((1 << (end - start)) - 1)
    theirs, mine = (known >> shift) & mask, (asked >> shift) & mask
    order = np.argsort(theirs, kind='stable')
    theirs = theirs[order]
    for value in np.unique(mine):
        left, right = (
            np.searchsorted(theirs, value, side) for side in ('left', 'right')
        )
        if left < right:
            yield np.flatnonzero(mine == value), order[left:right]


def _first_near(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return for each look the place of the nearest; -1 if that is not near."""
    found = []
    step = max(1, _MOST_PAIRS // len(known))
    for begin in range(0, len(asked), step):
        differing = asked[begin : begin + step, None] ^ known
        bits = _BITS[differing.view(np.uint8)].reshape(*differing.shape, 8)
        count = bits.sum(-1, dtype=np.uint8)
        near = count.argmin(1)
        far = count[np.arange(len(near)), near] > _MOST_BITS
        found.append(np.where(far, -1, near))
    return np.concatenate(found)
