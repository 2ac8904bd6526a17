"""COCO's objects: from polygons and run lengths to masks.

Run lengths count the pixels of a mask off, on, off, ... column after column. COCO's compressed form
writes them as printable characters; made of polygons by `pycocotools`, whose rasters are the
official ones, it is how all objects are kept here.
"""

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np

from drn_jax.errors import UserError


@dataclass(frozen=True, eq=False)
class ObjectMasks:
    """Masks of the objects in each image, painted when they are asked for.

    All objects of all images share a few arrays and one piece of bytes, which are small and quick
    to pickle. Without them, COCO's annotations take gigabytes as Python objects.
    """

    annotations: str
    """The file that they are of."""
    image_ids: np.ndarray
    """int64 [N]"""
    sizes: np.ndarray
    """int32 [N, 2]: (height, width)"""
    objects: np.ndarray
    """int64 [N + 1]: image i has the objects objects[i] to objects[i + 1] - 1, hindmost first."""
    classes: np.ndarray
    """uint8 [M]: class id of each object, or 255"""
    starts: np.ndarray
    """int64 [M + 1]: object j is runs[starts[j] : starts[j + 1]]."""
    runs: bytes
    """COCO's compressed run lengths."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> np.ndarray:
        height, width = self.sizes[index].tolist()
        columns = np.zeros(height * width, np.uint8)
        for j in range(self.objects[index], self.objects[index + 1]):
            ends = np.cumsum(run_lengths(self.runs[self.starts[j] : self.starts[j + 1]])).tolist()
            for begin, end in zip(ends[0::2], ends[1::2], strict=False):
                columns[begin:end] = self.classes[j]
        return np.ascontiguousarray(columns.reshape(width, height).T)

    def where(self, index: int) -> str:
        return f"{self.annotations}: image {self.image_ids[index]}"


def run_lengths(runs: bytes) -> np.ndarray:
    """COCO's compressed run lengths as numbers: pixels off, on, off, ... down column by column.

    A number is written in digits of 5 bits, the lowest first, with its sign in the last; from the
    fourth number on, it is the difference to the last but one.

    Returns: int64 [n].
    Raises: ValueError for what is not written so.
    """
    digits = np.frombuffer(runs, np.uint8).astype(np.int64) - ord("0")
    if not digits.size:
        return digits
    ends = (digits & 32) == 0
    if digits.min() < 0 or digits.max() > 63 or not ends[-1]:
        raise ValueError("compressed run lengths with foreign characters, or cut off")
    starts = np.flatnonzero(np.append(True, ends[:-1]))
    lengths = np.diff(np.append(starts, len(digits)))
    if lengths.max() > 7:
        raise ValueError("run lengths beyond any image")
    places = np.arange(len(digits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31) << (5 * places), starts)
    numbers -= np.where(digits[ends] & 16, 1 << (5 * lengths), 0)
    for every_other in (numbers[1::2], numbers[2::2]):
        np.cumsum(every_other, out=every_other)
    return numbers


def compressed(segmentation: Any, height: int, width: int) -> bytes:
    """The compressed run lengths of a `segmentation` of COCO's annotations.

    Args:
      segmentation: polygons, a list of arrays x, y, x, y, ...; or run lengths, a dictionary with
        `size` and `counts`, an array or compressed.
      height, width: of the image.

    Raises: ValueError, which says what the annotation has.
    """
    mask = pycocotools_mask()
    # Lengths and coordinates are checked here: pycocotools' C code trusts them.
    match segmentation:
        case {"size": [h, w], "counts": str() | array() as counts}:
            written = isinstance(counts, str)
            lengths = run_lengths(counts.encode("ascii")) if written else np.array(counts, np.int64)
            if (h, w) != (height, width) or lengths.sum() != h * w or (lengths < 0).any():
                raise ValueError(
                    f"run lengths of {lengths.sum()} pixels, {h}x{w}, for an image of "
                    f"{height}x{width}"
                )
            if written:
                return counts.encode("ascii")
            return mask.frPyObjects(segmentation, h, w)["counts"]
        case list() if all(isinstance(polygon, array) for polygon in segmentation):
            for polygon in segmentation:
                if len(polygon) % 2:
                    raise ValueError(f"a polygon of {len(polygon)} coordinates, an odd number")
                # No coordinate may be huge or NaN; some lie a little out of their image.
                if polygon and not np.abs(polygon).max() <= 2 * max(height, width):
                    raise ValueError("a polygon that goes far out of the image")
            polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
            if not polygons:
                return b""
            return mask.merge(mask.frPyObjects(polygons, height, width))["counts"]
        case _:
            raise ValueError("a segmentation that is neither polygons nor run lengths")


def pycocotools_mask() -> Any:
    """`pycocotools.mask`, which is wanted for COCO alone; UserError if it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(
            "COCO's masks need the package pycocotools: pip install -e '.[coco]'"
        ) from error
    return mask
