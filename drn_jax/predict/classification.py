"""Classes of whole images, and where the network sees them: heat maps and boxes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from drn_jax.errors import UserError
from drn_jax.evaluation import crops, localisation
from drn_jax.evaluation.crops import Crops, Geometry
from drn_jax.evaluation.dense import ClassMaps
from drn_jax.predict.pipeline import Answer, Row
from drn_jax.report import pictures
from drn_jax.trained import Trained

ENDINGS = {"map": "_map.png", "boxes": "_boxes.png"}
"""Of the files, by kind. The kind `classes` has no file of each image."""

ELONGATED = 64
"""How many times as long as wide an image may be: resized, others would not fit into memory."""

_BOX, _HALO = (220, 20, 60), (255, 255, 255)


class Classifier:
    """The likeliest classes of an image, by its centre crop as in evaluation; and where the
    likeliest is seen, by the class map of the whole image, resized likewise."""

    def __init__(
        self,
        trained: Trained,
        class_maps: ClassMaps,
        views: Crops,
        kinds: tuple[str, ...],
        top: int,
        threshold: float,
    ) -> None:
        """Args:
        kinds: of `ENDINGS`, and `classes`.
        top: how many classes.
        threshold: of the box, a probability; see `localisation.boxes`.
        """
        views.check()
        self._trained, self._class_maps, self._views = trained, class_maps, views
        self._kinds, self._threshold = kinds, threshold
        self._top = min(top, len(trained.classes))
        self._programs = 0

        def probability(variables: Any, images: jax.Array) -> jax.Array:
            self._programs += 1  # As it is traced.
            outputs: Any = trained.model.apply(variables, trained.preprocess(images), train=False)
            return jax.nn.softmax(outputs[0].astype(jnp.float32))

        def seen(
            logits: jax.Array, classes: jax.Array, thresholds: jax.Array, whole: Geometry
        ) -> tuple[jax.Array, jax.Array]:
            self._programs += 1
            f = jax.nn.softmax(logits)
            cells = localisation.boxes(f, classes, thresholds)
            pixels = localisation.to_pixels(cells, trained.stride, whole)
            return f[0, :, :, classes[0, 0]], pixels[0, 0, 0]

        self._probability, self._seen = jax.jit(probability), jax.jit(seen)

    @property
    def compiled(self) -> int:
        return self._programs + self._class_maps.compiled

    def __call__(self, image: np.ndarray) -> Answer:
        """`top` of the row: the likeliest classes, the first of equals first; `box`, where it is
        asked for: (x1, y1, x2, y2) in pixel edges of the image."""
        height, width = image.shape[:2]
        if max(height, width) > ELONGATED * min(height, width):
            raise UserError(
                f"{width}x{height} pixels are more than {ELONGATED} times as long as wide; cut it"
            )
        resized, views, _ = crops.cropped(image, self._views)
        p = np.asarray(self._probability(self._trained.variables, views))[0]
        if not np.isfinite(p).all():
            raise UserError("the network's answer is not a number; choose another --checkpoint")
        best = np.argsort(-p, kind="stable")[: self._top].tolist()
        names = self._trained.classes
        row: Row = {
            "height": height,
            "width": width,
            "top": [{"class": names[i], "id": i, "probability": float(p[i])} for i in best],
        }
        files: dict[str, Callable[[], bytes]] = {}
        if set(self._kinds) & set(ENDINGS):
            heat, box = self._where(image, resized, best[0])
            if "map" in self._kinds:
                files["map"] = partial(_heat, image, heat, resized.shape, self._trained.stride)
            if "boxes" in self._kinds:
                row["box"] = box
                files["boxes"] = partial(_boxed, image, box)
        return Answer(row, files)

    def _where(
        self, image: np.ndarray, resized: np.ndarray, label: int
    ) -> tuple[np.ndarray, list[float]]:
        """The probability of a class at every cell of the whole image [h, w], and its box."""
        logits = self._class_maps(resized)
        rows, columns = logits.shape[:2]
        # Few shapes, so that few programs are compiled. NaN is nobody's cell, see `localisation`.
        room = [(0, _power_of_two(side) - side) for side in (rows, columns)]
        whole = np.pad(logits, (*room, (0, 0)), constant_values=np.nan)[None]
        heat, box = self._seen(
            whole,
            np.array([[label]], np.int32),
            np.array([self._threshold], np.float32),
            crops.located(image, resized, resized.shape[:2], [(0, 0)], np.zeros(1, bool)),
        )
        return np.asarray(heat)[:rows, :columns], np.asarray(box).tolist()


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _heat(image: np.ndarray, heat: np.ndarray, resized: tuple[int, ...], stride: int) -> bytes:
    """The cells of the resized image as a heat map over the image."""
    height, width = image.shape[:2]
    # Cells reach over the lower and right edge of the resized image.
    window = (0, 0, resized[1] / stride, resized[0] / stride)
    cells = Image.fromarray(heat.astype(np.float32))
    pixels = np.asarray(cells.resize((width, height), Image.Resampling.BILINEAR, window))
    return pictures.png(pictures.class_map(image, pixels, 1))


def _boxed(image: np.ndarray, box: list[float]) -> bytes:
    line = max(1, min(image.shape[:2]) // 96)
    haloed = pictures.draw_box(image, box, _HALO, line + max(1, line // 2))
    return pictures.png(pictures.draw_box(haloed, box, _BOX, line))
