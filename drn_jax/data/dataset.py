"""What a data set is to the rest of the house: random-access sources and their class names.

An example is a dictionary of NumPy arrays:
  `image`  uint8 [H, W, 3], RGB
  `label`  int32 scalar in [0, classes): classification
  `mask`   uint8 [H, W], class ids, 255 = ignored: segmentation, the same size as the image
  `boxes`  float32 [n, 4], each (x1, y1, x2, y2), where a set has any: pixel edges, so that a box
           which covers the whole image is (0, 0, W, H)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

IGNORED = 255
"""The mask value that counts for nothing: in no loss, in no score (fyu/drn, Cityscapes, VOC)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""The statistics of fyu/drn and torchvision, which published weights expect."""

Example = dict[str, np.ndarray]

Sizes = tuple[tuple[int, int], ...]
"""(height, width) of each image of a source."""


class Source(Protocol):
    """Examples by index; reading the same index twice gives the same example."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        """The example `index`, decoded; raises UserError that names the file if it can't be."""
        ...

    def where(self, index: int) -> str:
        """What errors call the example."""
        ...


def alike() -> Sizes | None:
    """The sizes of images that are all of one size: None."""
    return None


@dataclass(frozen=True)
class Part:
    """Some examples of a source, as a source."""

    whole: Source
    indices: tuple[int, ...]
    """In the whole."""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.whole[self.indices[index]]

    def where(self, index: int) -> str:
        return self.whole.where(self.indices[index])


def evenly(source: Source, count: int) -> Part:
    """`count` examples, or all if there are fewer, evenly spaced over a source: without chance, and
    from every class where the source is sorted by class."""
    return Part(source, spread(len(source), count))


def spread(size: int, count: int) -> tuple[int, ...]:
    """`count` numbers below `size`, or all if there are fewer, evenly spaced."""
    count = min(count, size)
    return tuple((2 * i + 1) * size // (2 * count) for i in range(count))


def without(source: Source, part: Part) -> Part:
    """The examples of a source that are not in a part of it."""
    taken = set(part.indices)
    return Part(source, tuple(i for i in range(len(source)) if i not in taken))


@dataclass(frozen=True)
class Dataset:
    """Training and validation examples of one task, and what is known of them."""

    name: str
    classes: tuple[str, ...]
    train: Source
    validation: Source
    mean: tuple[float, float, float]
    """Channel means of the training images in [0, 1], RGB."""
    std: tuple[float, float, float]
    """Channel standard deviations, likewise."""
    colors: tuple[tuple[int, int, int], ...] | None = None
    """One RGB colour a class for drawing masks; None: take them from a colour map."""
    validation_sizes: Callable[[], Sizes | None] = alike
    """Sizes of the validation images, looked up when asked for; None: they are all alike."""
    train_sizes: Callable[[], Sizes | None] = alike
    """Likewise of the training images."""
    test: Source | None = None
    """Examples of the test split, where its labels are public."""
    held_out: Source | None = None
    """Examples of the training split that `train` leaves out."""

    @property
    def splits(self) -> dict[str, Source]:
        """The sources by the name of their split."""
        splits = {"train": self.train, "validation": self.validation}
        return splits if self.test is None else {**splits, "test": self.test}
