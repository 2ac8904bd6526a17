"""What a data set is to the rest of the house: two random-access sources and their class names.

An example is a dictionary of NumPy arrays:
  `image`  uint8 [H, W, 3], RGB
  `label`  int32 scalar in [0, classes): classification
  `mask`   uint8 [H, W], class ids, 255 = ignored: segmentation, the same size as the image
  `box`    float32 [4] = (x1, y1, x2, y2), where a set has one: pixel edges, so that a box which
           covers the whole image is (0, 0, W, H)
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

IGNORED = 255
"""The mask value that counts for nothing: in no loss, in no score (fyu/drn, Cityscapes, VOC)."""

Example = dict[str, np.ndarray]


class Source(Protocol):
    """Examples by index; reading the same index twice gives the same example."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        """The example `index`, decoded; raises UserError that names the file if it can't be."""
        ...


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
    validation_sizes: tuple[tuple[int, int], ...] | None = None
    """(height, width) of each validation image where they differ; None: all are alike."""
    train_sizes: tuple[tuple[int, int], ...] | None = None
    """Likewise of the training images."""
