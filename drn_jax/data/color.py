"""Colour augmentation: pure functions of an example and a generator that change the image alone.

DRN's paper says colour perturbation "as in" Krizhevsky et al. (2012) and Howard (2013); fyu/drn's
code has none. `Lighting` is the former's, `ColorJitter` of the latter's kind, by torchvision's
rule. Settings of 0 leave an image as it is; the draws do not depend on what an example holds.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from drn_jax.data.dataset import Example

EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
"""Of ImageNet's pixels, RGB in [0, 1]: standard deviations along the columns below."""

EIGENVECTORS = np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
)
"""Rows are red, green, blue; as in fb.resnet.torch (2016), whose numbers everybody took."""


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue, in a random order (torchvision, with PIL).

    The first three are factors, uniform in [max(0, 1 - x), 1 + x]; `hue` is a shift, uniform in
    [-hue, hue] of the colour circle, at most 0.5.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        order = rng.permutation(4)
        settings = self.brightness, self.contrast, self.saturation
        factors = [rng.uniform(max(0.0, 1 - x), 1 + x) for x in settings]
        shift = rng.uniform(-self.hue, self.hue)
        if "image" not in example:
            return example
        picture = Image.fromarray(example["image"])
        for which in order:
            if which == 3:
                # By way of HSV not even a shift of 0 is exact.
                picture = shift_hue(picture, shift) if self.hue else picture
            elif settings[which]:
                enhancer = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
                picture = enhancer[which](picture).enhance(factors[which])
        return {**example, "image": np.array(picture)}


@dataclass(frozen=True)
class Lighting:
    """A colour added to all pixels: along each principal component of ImageNet's colours its
    spread times a normal number of standard deviation `std` (Krizhevsky et al. 2012: 0.1).

    Rounded and clipped to uint8.
    """

    std: float = 0.0

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        added = EIGENVECTORS @ (rng.normal(0.0, self.std, 3) * EIGENVALUES) * 255
        if "image" not in example:
            return example
        # What becomes of each of the 256 values, a channel at a time.
        table = np.clip(np.rint(np.arange(256)[:, None] + added), 0, 255).astype(np.uint8)
        channels = [table[:, c][example["image"][..., c]] for c in range(3)]
        return {**example, "image": np.stack(channels, axis=-1)}


def shift_hue(picture: Image.Image, shift: float) -> Image.Image:
    """The colour circle turned by `shift` of it, in 8 bits, rounded towards 0."""
    hue, saturation, value = picture.convert("HSV").split()
    turned = (np.asarray(hue).astype(int) + int(shift * 255)) % 256
    hue = Image.fromarray(turned.astype(np.uint8))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
