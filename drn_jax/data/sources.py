"""Examples whose parts lie in files: the source that every set read in place is made of."""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from drn_jax.data import image
from drn_jax.data.dataset import Example, Sizes, Source
from drn_jax.data.files import Files
from drn_jax.data.masks import Masks
from drn_jax.errors import UserError

HEADER = 1 << 16
"""Bytes in which nearly every image file tells its size."""


class Record(NamedTuple):
    """An example as it is stored: its image still encoded."""

    name: str
    """Of the image, as the set calls it; unique in a split."""
    image: bytes
    label: int | None
    boxes: np.ndarray | None
    mask: np.ndarray | None


@runtime_checkable
class Readable(Source, Protocol):
    """A source that is read in place."""

    @property
    def names(self) -> tuple[str, ...]:
        """The images, as the set calls them."""
        ...

    def where(self, index: int) -> str:
        """What errors call the image."""
        ...

    def files_of(self, index: int) -> tuple[str, ...]:
        """What errors call the files of the example."""
        ...

    def record(self, index: int) -> Record:
        """The example without decoding its image; UserError if a file can't be read, or image and
        mask differ in size."""
        ...

    def sizes(self) -> Sizes | None:
        """(height, width) of every image, looked up in their headers; None if they are all
        alike."""
        ...


class Boxes(Protocol):
    """Boxes by index, float32 [n, 4] each: pixel edges. A tuple of arrays is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


Remark = tuple[str, str]
"""What to warn of: its kind, as one says it of many, and where."""


@dataclass(frozen=True, eq=False)
class FileSource:
    """Examples with an `image` in a file each, and with what else is given of `label`, `boxes` and
    `mask`.

    With `size`, (height, width), images are resized to it by PIL's bilinear filter (antialiased)
    and masks by nearest neighbour.
    """

    files: Files
    names: tuple[str, ...]
    labels: np.ndarray | None = None
    """int32 [N]"""
    boxes: Boxes | None = None
    masks: Masks | None = None
    size: tuple[int, int] | None = None
    remarks: Callable[[int], tuple[Remark, ...]] | None = None
    """What a check should warn of in an example and its arrays don't show."""

    def __post_init__(self) -> None:
        if self.size is not None and self.boxes is not None:
            raise ValueError("images that are resized have no boxes here")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """The example; UserError if a file is missing or damaged, or image and mask differ in
        size."""
        pixels = self._pixels(index)
        return {"image": pixels, **self._annotations(index, pixels.shape[:2])}

    def record(self, index: int) -> Record:
        """See `Readable`. A resized image becomes a PNG, any other stays as it is."""
        name = self.names[index]
        data = self.files.read(name) if self.size is None else png(self._pixels(index))
        shape = image.size(data, self.where(index)) if self.masks is not None else (0, 0)
        known = self._annotations(index, shape)
        label = int(known["label"]) if "label" in known else None
        return Record(name, data, label, known.get("boxes"), known.get("mask"))

    def where(self, index: int) -> str:
        """What errors call the image."""
        return self.files.where(self.names[index])

    def files_of(self, index: int) -> tuple[str, ...]:
        """See `Readable`; but for files of boxes."""
        return (self.where(index), *((self.masks.where(index),) if self.masks else ()))

    def _pixels(self, index: int) -> np.ndarray:
        data = self.files.read(self.names[index])
        return self._resized(image.decode_rgb(data, self.where(index)), bilinear=True)

    def _annotations(self, index: int, shape: tuple[int, ...]) -> Example:
        """All but the image, which is of that size."""
        example: Example = {}
        if self.labels is not None:
            example["label"] = np.array(self.labels[index], np.int32)
        if self.boxes is not None:
            example["boxes"] = self.boxes[index].copy()
        if self.masks is not None:
            mask = self.masks[index]
            # Once resized, both are of one size in any case.
            shape = shape if self.size is None else self._own_size(index)
            if mask.shape != shape:
                raise UserError(
                    unequal(self.where(index), shape, self.masks.where(index), mask.shape)
                )
            example["mask"] = self._resized(mask, bilinear=False)
        return example

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width), from the file's header alone."""
        return self._own_size(index) if self.size is None else self.size

    def _own_size(self, index: int) -> tuple[int, int]:
        """Before it is resized."""
        name = self.names[index]
        where = self.where(index)
        try:
            return image.size(self.files.head(name, HEADER), where)
        except UserError:
            return image.size(self.files.read(name), where)

    def sizes(self) -> Sizes | None:
        """The size of every image; None if they are all alike."""
        return self._sizes

    @cached_property
    def _sizes(self) -> Sizes | None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            sizes = tuple(pool.map(self.image_size, range(len(self))))
        return sizes if len(set(sizes)) > 1 else None

    def _resized(self, array: np.ndarray, bilinear: bool) -> np.ndarray:
        if self.size is None:
            return array
        height, width = self.size
        way = Image.Resampling.BILINEAR if bilinear else Image.Resampling.NEAREST
        return np.array(Image.fromarray(array).resize((width, height), way))


@dataclass(frozen=True, eq=False)
class Joined:
    """The examples of several sources, one after the other."""

    sources: tuple[FileSource, ...]

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def __getitem__(self, index: int) -> Example:
        source, place = self._find(index)
        return source[place]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each calls its images."""
        return tuple(name for source in self.sources for name in source.names)

    def where(self, index: int) -> str:
        """What errors call the image."""
        source, place = self._find(index)
        return source.where(place)

    def files_of(self, index: int) -> tuple[str, ...]:
        """See `Readable`."""
        source, place = self._find(index)
        return source.files_of(place)

    def record(self, index: int) -> Record:
        """See `Readable`."""
        source, place = self._find(index)
        return source.record(place)

    def sizes(self) -> Sizes | None:
        """The size of every image; None if they are all alike."""
        sizes: list[tuple[int, int]] = []
        for source in self.sources:
            sizes += source.sizes() or [source.image_size(0)] * len(source)
        return tuple(sizes) if len(set(sizes)) > 1 else None

    def _find(self, index: int) -> tuple[FileSource, int]:
        place = index
        for source in self.sources:
            if 0 <= place < len(source):
                return source, place
            place -= len(source)
        raise IndexError(f"example {index} of {len(self)}")


def png(array: np.ndarray, level: int = -1) -> bytes:
    """An image or a mask, uint8, as a PNG file; `level` 1 (fastest) to 9, -1 is zlib's default."""
    data = io.BytesIO()
    Image.fromarray(array).save(data, format="png", compress_level=level)
    return data.getvalue()


def by(shape: tuple[int, ...]) -> str:
    """The size of an image or a mask, in words."""
    return f"{shape[0]}x{shape[1]}"


def unequal(image: str, shape: tuple[int, ...], mask: str, mask_shape: tuple[int, ...]) -> str:
    """What is wrong with an image and a mask of unequal size."""
    turned = "; one of them is turned by its EXIF orientation" if mask_shape == shape[::-1] else ""
    return (
        f"{image} is {by(shape)} pixels, its mask {mask} {by(mask_shape)}: they must be of one "
        f"size (height x width){turned}"
    )
