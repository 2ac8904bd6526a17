"""From images as people have them, RGB uint8, to what a network takes: its own space and margin."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

Channels = tuple[float, float, float]
Space = Literal["rgb", "bgr"]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
"""Of the training images, RGB in [0, 1], as torchvision states them."""


@dataclass(frozen=True)
class Preprocess:
    """The step before a network. Pure; use it under jit."""

    mean: Channels
    """Of the training images, RGB in [0, 1]."""
    std: Channels
    """Likewise; the space "bgr" has no use for it."""
    space: Space = "rgb"
    """"rgb": scaled to [0, 1], less the mean, over the deviation (PyTorch's networks). "bgr": blue
    first, 0 to 255, less the mean (Caffe's)."""
    margin: int = 0
    """Pixels of surroundings on each side that the network uses up: mirrored, without repeating
    the edge (OpenCV's BORDER_REFLECT_101)."""

    def __call__(self, images: jax.Array, surrounded: bool = False) -> jax.Array:
        """uint8 [N, H, W, 3] -> float32 [N, H + 2*margin, W + 2*margin, 3].

        `surrounded`: the images bring their margin, as training crops do; none is added.
        """
        if not surrounded and self.margin:
            side = (self.margin, self.margin)
            images = jnp.pad(images, ((0, 0), side, side, (0, 0)), "reflect")
        x = images.astype(jnp.float32)
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        if self.space == "bgr":
            return x[..., ::-1] - 255.0 * mean[None, None, None, ::-1]
        return (x / 255.0 - mean[None, None, None, :]) / std[None, None, None, :]
