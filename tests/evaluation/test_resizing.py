"""Weights as data do what Pillow does."""

import numpy as np
import pytest
from PIL import Image

from drn_jax.evaluation.resizing import Taps, bilinear, resize, width

SIDES = (1, 2, 3, 7, 8, 16, 37, 64, 101)


def pillow(channel, height, wide):
    picture = Image.fromarray(channel)
    assert picture.mode == "F"
    return np.asarray(picture.resize((wide, height), Image.Resampling.BILINEAR))


def dense(taps, size):
    """The matrix [out, size]."""
    matrix = np.zeros((len(taps.index), size))
    np.add.at(matrix, (np.arange(len(matrix))[:, None], taps.index), taps.weight)
    return matrix


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize("out", SIDES)
def test_an_axis_is_mixed_as_pillow_does(size, out):
    """Pillow's matrix is what it makes of unit vectors, one a row."""
    columns = pillow(np.eye(size, dtype=np.float32), size, out)
    np.testing.assert_allclose(dense(bilinear(size, out), size), columns.T, atol=1e-6)


@pytest.mark.parametrize(
    "sizes", [(24, 31, 48, 17), (17, 48, 31, 24), (9, 9, 9, 9), (5, 40, 3, 90)]
)
def test_maps_are_resized_as_pillow_resizes_every_channel(sizes):
    height, wide, new_height, new_wide = sizes
    x = np.random.default_rng(0).normal(size=(height, wide, 3)).astype(np.float32)
    expected = np.stack([pillow(x[..., c], new_height, new_wide) for c in range(3)], -1)
    np.testing.assert_allclose(resize(x, new_height, new_wide), expected, atol=2e-6)


def test_taps_of_a_scale_are_enough_for_every_size():
    rng = np.random.default_rng(1)
    for _ in range(300):
        scale, out = rng.uniform(0.2, 3), int(rng.integers(1, 300))
        size = max(1, int(out * scale))
        taps = bilinear(size, out, width(scale))
        assert taps.index.shape == (out, width(scale))
        np.testing.assert_allclose(dense(taps, size), dense(bilinear(size, out), size), atol=1e-7)
        np.testing.assert_allclose(taps.weight.sum(1), 1, atol=1e-6)


def test_parts_are_rows_and_the_last_again_and_the_mirror_image_is_backwards():
    taps = bilinear(10, 6)
    matrix, part = dense(taps, 10), taps.part(4, 4)
    np.testing.assert_array_equal(dense(part, 10), matrix[[4, 5, 5, 5]])
    assert (part.first, part.last) == (part.index.min(), part.index.max())
    np.testing.assert_array_equal(dense(taps.mirrored, 10), matrix[::-1])
    assert isinstance(part, Taps)
