"""Encoded images to arrays, in one place and one way: PIL.

Decoders disagree (a palette PNG is indices to PIL and colours to OpenCV; CMYK is three channels or
four), so every source of the house decodes here. EXIF orientation is applied to images and masks
alike, in the formats whose header carries it (JPEG, WebP, TIFF).
"""

import io
import os

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from drn_jax import places
from drn_jax.errors import UserError

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_bytes(path: str | os.PathLike[str], count: int = -1) -> bytes:
    """The content of a file, or its first `count` bytes; UserError if it is missing or may not be
    read."""
    try:
        return places.read(os.fspath(path), 0, count)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path, or restore the file") from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason}); check the path") from error


def decode_rgb(data: bytes, where: str) -> np.ndarray:
    """Decode an image file of any colour model.

    Grey is repeated over the channels, palettes are looked up, CMYK is converted, alpha is dropped
    (the colour under it stays), 16 bits keep their upper 8, as PIL itself keeps them for colour.

    Args:
      data: the bytes of the file.
      where: what errors call the file.

    Returns:
      uint8 [H, W, 3], upright.

    Raises:
      UserError: `data` is no image, is damaged, or holds numbers without a known range.
    """
    image = _decode(data, where)
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 0xFFFF:
            raise UserError(
                f"{where}: grey values {wide.min()} to {wide.max()} do not fit 16 bits; "
                "save it with 8 bits a channel"
            )
        return np.repeat((wide >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise UserError(f"{where}: a floating-point image has no known range; save it with 8 bits")
    if image.mode in ("P", "PA"):
        # PIL warns when it drops a palette's transparency; by way of alpha it does not.
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def decode_mask(data: bytes, where: str) -> np.ndarray:
    """Decode a mask of class ids: grey values as they are, palette images as indices.

    Grey levels of fewer than 8 bits are refused: decoders stretch them to 0..255, so that whether
    a stored 1 means class 1 or 255 cannot be told.

    Args:
      data: the bytes of the file.
      where: what errors call the file.

    Returns:
      uint8 [H, W], turned as `decode_rgb` turns an image.

    Raises:
      UserError: `data` is no image, is damaged, is in colour, or does not fit 8 bits.
    """
    image = _decode(data, where)
    if image.mode == "1" or (image.mode == "L" and _narrow_png(data)):
        raise UserError(
            f"{where}: a grey mask of fewer than 8 bits is ambiguous; save it as 8-bit grey"
        )
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 255:
            raise UserError(
                f"{where}: mask values {wide.min()} to {wide.max()} do not fit 0..255; "
                "save class ids as 8-bit grey"
            )
        return wide.astype(np.uint8)
    if image.mode not in ("L", "P"):
        raise UserError(
            f"{where}: a mask holds one class id a pixel, this is a colour image ({image.mode}); "
            "save it as a greyscale or palette PNG"
        )
    return np.array(image)


def size(data: bytes, where: str) -> tuple[int, int]:
    """(height, width) as the decoders above return it, from the header alone.

    Args:
      data: the bytes of the file, or as many of the first as hold its header.
      where: what errors call the file.

    Raises:
      UserError: `data` is no image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            # PIL reports a TIFF's size upright already.
            turned = image.format != "TIFF" and _orientation(image) in _TURNED
    except Exception as error:
        raise _unreadable(error, where) from error
    return (width, height) if turned else (height, width)


def _decode(data: bytes, where: str) -> Image.Image:
    """The image, pixels loaded and upright."""
    try:
        image = Image.open(io.BytesIO(data))
        turned = _orientation(image) != 1
        image.load()
        return ImageOps.exif_transpose(image) if turned else image
    except Exception as error:
        raise _unreadable(error, where) from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8."""
    # A PNG may carry EXIF behind its pixels: to look for it, PIL would decode them.
    if image.format == "PNG":
        return 1
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _narrow_png(data: bytes) -> bool:
    """Whether this is a PNG of fewer than 8 bits a sample (byte 24: bit depth in IHDR)."""
    return data.startswith(_PNG_SIGNATURE) and data[24] < 8


def _unreadable(error: Exception, where: str) -> UserError:
    # Damaged files make PIL raise nearly anything (OSError, SyntaxError, struct.error, ...): they
    # all mean the same to the user.
    if isinstance(error, UnidentifiedImageError):
        return UserError(f"{where}: not an image; replace the file or take it off the data set")
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{where}: the image is damaged or truncated ({reason}); copy it again")
