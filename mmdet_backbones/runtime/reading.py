"""Images from paths, arrays and PIL images to arrays of bytes, as mmdet loads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError, ArgumentTypeError, UserError
from ..files import not_there, path_of

if TYPE_CHECKING:
    from PIL import Image

# Pillow starts Ghostscript for a file that is PostScript, whatever its name.
_FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM', 'JPEG2000',
            'AVIF', 'PCX', 'TGA')  # fmt: skip
_DEEP = ('I;16', 'I;16L', 'I;16B', 'I;16N')
_NO_BYTES = ('I', 'F')


def read_image(image: Any) -> np.ndarray:
    """Make an array of an image.

    Files are turned as their EXIF says. OpenCV reads them where it is installed, as
    it does for mmdet, otherwise Pillow, which also reads what OpenCV does not.

    Args:
        image: A path, a PIL image, or an array (H, W, 3) of uint8, RGB.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UserError: If a file cannot be read.
        TypeError: If an array is not of uint8, or ``image`` is something else.
        ValueError: If an array is not (H, W, 3), or empty.
    """
    if isinstance(image, np.ndarray):
        return _checked(image)
    if isinstance(image, (str, Path)):
        return _read_file(path_of(image))
    # Whoever hands on a PIL image has imported Pillow.
    if hasattr(image, 'getexif') and hasattr(image, 'convert'):
        return _of_pillow(image, 'the PIL image')
    raise ArgumentTypeError(
        'an image is a path, a PIL image or an array (H, W, 3) of uint8 in RGB, got '
        f'{type(image).__name__}'
    )


def _checked(array: np.ndarray) -> np.ndarray:
    shape = tuple(array.shape)
    if array.dtype != np.uint8:
        raise ArgumentTypeError(
            f'an image as an array is of uint8, 0 to 255, got {array.dtype}: write '
            '(255 * image).round().astype(np.uint8) for values from 0 to 1, '
            'image.astype(np.uint8) for values from 0 to 255'
        )
    if len(shape) != 3 or shape[2] != 3:
        raise ArgumentError(
            f'an image as an array is (H, W, 3), RGB, got {shape}{_cure(shape)}'
        )
    if 0 in shape:
        raise ArgumentError(f'an image needs at least one pixel, got {shape}')
    return array


def _cure(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return ': write np.stack([image] * 3, axis=-1) for a grey one'
    if len(shape) == 4:
        return ': write predict(list(images)) for several'
    if len(shape) == 3 and shape[2] == 1:
        return ': write np.repeat(image, 3, axis=-1) for a grey one'
    if len(shape) == 3 and shape[2] == 4:
        return ': write image[..., :3] to leave its transparency out'
    if len(shape) == 3 and shape[0] == 3:
        return ': write image.transpose(1, 2, 0) for channels that come first'
    return ''


def _read_file(path: Path) -> np.ndarray:
    problem = not_there(path, 'image')
    if problem is not None:
        raise UserError(problem)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"the image '{path}' cannot be read: {error}") from error
    found = _with_opencv(content)
    return _with_pillow(path, content) if found is None else found


def _with_opencv(content: bytes) -> np.ndarray | None:
    """Read an image as mmdet does; None without OpenCV and for what it cannot read."""
    try:
        import cv2
    except ModuleNotFoundError:
        return None
    try:
        read = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # of no bytes, or of too many pixels
        return None
    if read is None or read.dtype != np.uint8:
        return None
    return np.ascontiguousarray(read[..., ::-1])


def _with_pillow(path: Path, content: bytes) -> np.ndarray:
    import io

    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise UserError(
            f"OpenCV cannot read '{path}', and Pillow, which may, is not installed: "
            'write\n  pip install pillow'
        ) from error
    try:
        Image.init()
        formats = [name for name in _FORMATS if name in Image.OPEN]
        with Image.open(io.BytesIO(content), formats=formats) as image:
            return _of_pillow(image, f"the image '{path}'")
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(
            f"the image '{path}' cannot be read: it does not begin as one of "
            f'{", ".join(formats)}'
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"the image '{path}' cannot be read: {error}") from error


def _of_pillow(image: Image.Image, named: str) -> np.ndarray:
    from PIL import ImageOps

    if 0 in image.size:
        raise UserError(f'{named} has no pixels: {image.size}')
    if image.mode in _NO_BYTES:
        raise UserError(
            f'{named} is of mode {image.mode!r}, whose values have no common meaning: '
            'convert it to 8 bits a channel first'
        )
    turned = ImageOps.exif_transpose(image)
    if turned.mode in _DEEP:
        # The upper byte, as OpenCV takes it; Pillow would cut off at 255.
        grey = (np.asarray(turned).astype(np.uint16) >> 8).astype(np.uint8)
        return np.stack([grey] * 3, axis=-1)
    return np.array(turned.convert('RGB'))
