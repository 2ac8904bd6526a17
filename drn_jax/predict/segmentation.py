"""Segmentations as files: masks of class ids, overlays, probabilities."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.labels.pascal_voc import PASCAL_VOC
from drn_jax.errors import UserError
from drn_jax.evaluation.pixels import PixelScores
from drn_jax.predict.pipeline import Answer
from drn_jax.report import pictures

ENDINGS = {"mask": ".png", "overlay": "_overlay.png", "probability": "_probability.png"}
"""Of the files, by kind."""


@dataclass(frozen=True)
class Segmenter:
    """The class of every pixel of an image of any size."""

    pixels: PixelScores
    classes: tuple[str, ...]
    colors: np.ndarray
    """uint8 [classes, 3]."""
    kinds: tuple[str, ...]
    """Of `ENDINGS`."""
    ids: np.ndarray | None = None
    """What stands in the mask for each class, uint8 [256]; None: its own id."""

    @property
    def compiled(self) -> int:
        return self.pixels.compiled

    def __call__(self, image: np.ndarray) -> Answer:
        """`pixels` of the row: how many each class has, of those that occur."""
        mask, probability = self.pixels.answer(image)
        if not np.isfinite(probability).all():
            raise UserError("the network's answer is not a number; choose another --checkpoint")
        files: dict[str, Callable[[], bytes]] = {}
        if "mask" in self.kinds:
            files["mask"] = partial(_grey_png, mask if self.ids is None else self.ids[mask])
        if "overlay" in self.kinds:
            files["overlay"] = partial(_overlay, image, mask, self.colors)
        if "probability" in self.kinds:
            files["probability"] = partial(_grey_png, np.rint(255 * probability).astype(np.uint8))
        counts = np.bincount(mask.ravel(), minlength=len(self.classes))
        return Answer(
            {
                "height": image.shape[0],
                "width": image.shape[1],
                "pixels": [
                    {"class": self.classes[i], "id": i, "pixels": int(counts[i])}
                    for i in counts.nonzero()[0].tolist()
                ],
            },
            files,
        )


def set_ids(classes: tuple[str, ...]) -> np.ndarray:
    """The ids that the data set's own masks have for its classes, uint8 [256], by class id.

    Raises: UserError for classes of no set whose ids are known.
    """
    for space in (CITYSCAPES, PASCAL_VOC):
        if space.names == classes:
            return space.own_ids()
    raise UserError(
        "--ids=set is known for the classes of Cityscapes and of PASCAL VOC alone; leave it out "
        "for the network's own ids, from 0 in the order of its classes"
    )


def _grey_png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def _overlay(image: np.ndarray, mask: np.ndarray, colors: np.ndarray) -> bytes:
    return pictures.png(pictures.mask_overlay(image, mask, colors))
