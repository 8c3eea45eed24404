"""Opens every image as mmdet will, and says what is wrong with it."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

from .near_copies import look_of
from .scan import read_bytes

_ORIENTATION = 0x0112
_PNG = b'\x89PNG\r\n\x1a\n'
# Pillow starts Ghostscript for a file that is PostScript, whatever its name.
_FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM', 'JPEG2000')
# A file is never so much larger than its pixels.
_MOST_BYTES_A_PIXEL, _MOST_BESIDES = 32, 64 << 20
_LARGE, _ONE_BY_ONE = 32 << 20, threading.Lock()


@dataclass(frozen=True)
class Facts:
    """What an image file is.

    Attributes:
        size: Width and height as mmdet's loader returns it, turned as EXIF says.
        orientation: EXIF's number as far as the loader follows it; 1 is upright.
        digest: Equal for equal files.
        look: Almost the same for pictures that look so; None if that is not known.
        fault: Why it cannot be used; empty if it can.
        remarks: What a user should know of it, each with what becomes of it.
    """

    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: str = ''
    fault: str = ''
    remarks: tuple[tuple[str, str], ...] = ()
    look: int | None = None

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the pixels as they lie in the file."""
        return self.size[::-1] if self.orientation in (5, 6, 7, 8) else self.size


def look_at(path: Path) -> Facts:
    """Read an image wholly.

    Both readers are asked: OpenCV is what mmdet trains with, and it fills up some
    truncated files with grey, which Pillow tells.
    """
    try:
        size = path.stat().st_size
        if not size:
            return Facts(fault='empty file')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with path.open('rb') as file, Image.open(file, formats=_FORMATS) as picture:
                pixels = picture.width * picture.height
        if size > pixels * _MOST_BYTES_A_PIXEL + _MOST_BESIDES:
            return Facts(fault=f'large file: {size >> 20} MiB, too many for its pixels')
        # Eight large ones at a time would fill the memory.
        with _ONE_BY_ONE if pixels > _LARGE else contextlib.nullcontext():
            return _look(read_bytes(path, size))
    except UnidentifiedImageError:
        return Facts(fault='unreadable image: no known format')
    except OSError as error:
        why = error.strerror or error
        return Facts(fault=f'unreadable or truncated image: {why}')
    except Exception as error:
        # Pillow's readers raise whatever a damaged file makes them stumble over.
        return Facts(fault=f'unreadable or truncated image: {error}')


def read_pixels(path: Path) -> np.ndarray:
    """Read an image that was good, in RGB as mmdet shows it.

    Raises:
        OSError: If it is so no more.
    """
    pixels = mmcv.imfrombytes(
        path.read_bytes(), flag='color', channel_order='rgb', backend='cv2'
    )
    if pixels is None:
        raise OSError(f"'{path}' was changed while it was read")
    return pixels


def _look(content: bytes) -> Facts:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            mode, kind, stored = picture.mode, picture.format, picture.size
            orientation = picture.getexif().get(_ORIENTATION, 1)
            several = getattr(picture, 'is_animated', False)
            picture.load()
    try:
        shown = mmcv.imfrombytes(content, flag='color', backend='cv2')
    except cv2.error:
        shown = None
    if shown is None:
        return Facts(fault=f'image that OpenCV, and so mmdet, cannot read ({mode})')
    height, width = shown.shape[:2]
    if {width, height} != set(stored):
        return Facts(fault='Pillow and OpenCV read different sizes of it: '
                     f'{stored[0]} x {stored[1]} and {width} x {height}')  # fmt: skip
    remarks = _remarks(content, mode, min(width, height))
    if several:
        remarks.append(('several pictures in one file', 'kept: mmdet reads the first'))
    if orientation not in range(1, 9):
        orientation = 1
    elif orientation != 1 and not _is_turned(content, shown, kind):
        orientation = 1
        problem = 'EXIF rotation that OpenCV does not follow in this format'
        remarks.append((problem, 'kept: boxes are of the picture as it is stored'))
    digest = sha256(content).hexdigest()
    return Facts(
        (width, height), orientation, digest, '', tuple(remarks), look_of(shown)
    )


def _is_turned(content: bytes, shown: np.ndarray, kind: str | None) -> bool:
    # It depends on the format and on OpenCV's version: 4 leaves WebP as it is, and
    # a TIFF is turned whatever the flag.
    if kind == 'TIFF':
        return True
    flag = 'color_ignore_orientation'
    stored = mmcv.imfrombytes(content, flag=flag, backend='cv2')
    return not np.array_equal(stored, shown)


def _remarks(content: bytes, mode: str, side: int) -> list[tuple[str, str]]:
    remarks = []
    deep_png = content.startswith(_PNG) and content[24:25] == b'\x10'
    if deep_png or mode.startswith(('I', 'F')):
        remarks.append(('16-bit image', 'kept: mmdet reads the upper 8 bits'))
    if mode == 'CMYK':
        remarks.append(('CMYK image', 'kept: mmdet reads it as OpenCV converts it'))
    if mode in ('1', 'L', 'LA') or mode.startswith(('I', 'F')):
        remarks.append(('grey image', 'kept: mmdet reads three equal channels'))
    if side < 32:
        remarks.append(
            ('image of less than 32 pixels', 'kept: mmdet does not train on it')
        )
    return remarks
