"""What the embedded sets share: real handwriting, paint for made-up scenes, and their storage.

The handwriting is the 1,797 8x8 scans that scikit-learn ships (UCI, Alpaydin & Kaynak 1998), so
nothing is downloaded. A scene is square, `size` pixels a side; while it is painted it is a canvas,
float32 [size, size, 3], RGB in 0..255.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from drn_jax.data import sources
from drn_jax.data.dataset import Example, Source
from drn_jax.data.records import Records

STRETCH = 1.2
"""Most that a digit is made wider, and over which it is made narrower."""
TILT = 12
"""Largest rotation of a digit, degrees."""
INK = 0.4
"""A pixel belongs to a digit where the ink covers at least this share of it."""


def scans() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The scans of each split, float32 [n, 8, 8] with ink in [0, 1], and their labels [n].

    "validation" has the last fifth of the set, which other people wrote; "train" has the rest.
    """
    from sklearn.datasets import load_digits

    flat, labels = load_digits(return_X_y=True)
    digits = (flat.reshape(-1, 8, 8) / 16).astype(np.float32)
    held_out = len(digits) // 5
    return {
        "train": (digits[:-held_out], labels[:-held_out]),
        "validation": (digits[-held_out:], labels[-held_out:]),
    }


def texture(rng: np.random.Generator, size: int, least: float = 0) -> np.ndarray:
    """A canvas of coloured noise over a random ground, with cells of 32, 16, 8 and 2 pixels.

    Args:
      least: smallest amplitude of the noise, as a share of the largest.
    """
    ground = rng.uniform(40, 215, 3)
    canvas = np.broadcast_to(ground, (size, size, 3)).astype(np.float32)
    for pixels in (32, 16, 8, 2):
        largest = 28 if pixels > 2 else 14
        amplitude = rng.uniform(least * largest, largest)
        canvas = canvas + noise(rng, size, size // pixels, amplitude)
    return canvas


def noise(rng: np.random.Generator, size: int, cells: int, amplitude: float) -> np.ndarray:
    """Smooth noise, float32 [size, size, 3]: normal numbers in `cells` x `cells`, interpolated."""
    values = rng.standard_normal((cells, cells, 3)) * amplitude
    return np.stack([resize(values[..., c], (size, size)) for c in range(3)], -1)


def place(
    rng: np.random.Generator, patch: np.ndarray, shape: tuple[int, int], tilt: float, size: int
) -> np.ndarray:
    """The patch enlarged to `shape`, tilted, at a random place: ink float32 [size, size]."""
    turned = enlarge(patch, shape, rng.uniform(-tilt, tilt))[:size, :size]
    height, width = turned.shape
    top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    ink = np.zeros((size, size), np.float32)
    ink[top : top + height, left : left + width] = turned
    return ink


def enlarge(patch: np.ndarray, shape: tuple[int, int], angle: float) -> np.ndarray:
    """The patch enlarged to (height, width), then rotated by degrees: ink in [0, 1], uncut."""
    large = Image.fromarray(resize(patch, shape))
    turned = large.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    return np.clip(np.asarray(turned), 0, 1)  # Bicubic interpolation overshoots.


def paint(canvas: np.ndarray, ink: np.ndarray, color: np.ndarray) -> np.ndarray:
    """The canvas with a colour, [3] or [size, size, 3], laid on where `ink` [size, size] is."""
    return canvas + ink[..., None] * (color.astype(np.float32) - canvas)


def contrasting(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """A random colour whose mean differs from the ground's by 80 grey levels or more."""
    while True:
        color = rng.uniform(0, 255, 3)
        if abs(color.mean() - ground.mean()) >= 80:
            return color


def finish(canvas: np.ndarray) -> np.ndarray:
    """The canvas as an image, uint8 [size, size, 3]."""
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def resize(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Numbers [h, w] interpolated to (height, width): float32, bicubic."""
    image = Image.fromarray(values.astype(np.float32))
    height, width = shape
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def png(array: np.ndarray, level: int = -1) -> io.BytesIO:
    """An image or a mask as TFDS takes it; see `sources.png`."""
    return io.BytesIO(sources.png(array, level))


def prepared(
    builder_class: Callable[..., Any], data_dir: str | None, decode: Callable[[Any, str], Example]
) -> tuple[Source, Source]:
    """The training and validation scenes of a TFDS builder, made on first use under `data_dir`.

    Args:
      builder_class: its features `image` and `mask` come out as PNG files.
      data_dir: None is TFDS's own default.
      decode: makes an example of a record; also receives what errors call the record.
    """
    tfds.disable_progress_bar()
    builder = builder_class(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    # Bytes come out as they went in: TFDS would decode differently with and without OpenCV.
    pictures = [name for name in ("image", "mask") if name in builder.info.features]
    raw = {name: tfds.decode.SkipDecoding() for name in pictures}

    def split(name: str) -> Source:
        records = builder.as_data_source(name, decoders=raw)
        return Records(records, f"{builder.name}, {name}", decode)

    return split("train"), split("validation")
