"""Effective fields of networks whose gradients are known, and of random ones."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax import models
from drn_jax.analysis import effective_field, receptive_field
from drn_jax.models.convolution import dilated_conv
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage

KEY = jax.random.key(4)


def rng(seed=0):
    return np.random.default_rng(seed)


def photographs(count, height, width, least=0.0):
    shape = (count, 1, height, width, 3)
    return [jnp.asarray(one, jnp.float32) for one in rng().uniform(least, 1, shape)]


def features_of(network):
    return lambda variables, images: network.apply(variables, images)[1]


def equal(network, size):
    """Weights that are all 1: for inputs above 0 every ReLU passes what it gets."""
    shapes = jax.eval_shape(network.init, KEY, jnp.zeros((1, size, size, 3)))
    return jax.tree.map_with_path(
        lambda path, leaf: jnp.full(leaf.shape, float(path[-1].key == "kernel")), shapes
    )


def path_counts(dilations, size, at):
    """How many paths of taps lead from each pixel to a cell of the last map, by loops."""
    counts = np.zeros((size, size))
    counts[at] = 1
    for dilation in reversed(dilations):
        before = np.zeros((size, size))
        for i, j, u, v in np.ndindex(size, size, 3, 3):
            y, x = i + (u - 1) * dilation, j + (v - 1) * dilation
            if 0 <= y < size and 0 <= x < size:
                before[y, x] += counts[i, j]
        counts = before
    return counts


@pytest.mark.parametrize(
    ("dilations", "size"),
    [((1, 2, 4), 19), ((2, 2, 2), 15), ((1, 2, 4, 4), 15)],
)
def test_equal_weights_use_every_pixel_as_often_as_paths_lead_to_it(dilations, size):
    """In the last case the field reaches beyond the image."""
    table = receptive_field.series(dilations)
    network = Network(table, 2)
    variables = equal(network, size)
    images = photographs(2, size, size, least=0.1)
    found = effective_field.of(features_of(network), variables, table, table[-1].name, images, KEY)
    counts = path_counts(dilations, size, (size // 2, size // 2))
    np.testing.assert_allclose(found.map, counts / counts.sum(), atol=1e-8)
    assert found.map.dtype == np.float64
    assert found.map.sum() == pytest.approx(1)
    assert found.centre == (size // 2, size // 2)
    assert found.size == 1 + 2 * sum(dilations)
    assert found.images == 2


def test_one_even_field_has_the_radius_of_its_side():
    """sqrt((S^2 - 1) / 6); 95 % of 25 pixels need all of them."""
    table = (Stage("layer", "plain", 1, kernel=5),)
    network = Network(table, 2)
    images = photographs(1, 11, 13)
    found = effective_field.of(
        features_of(network), equal(network, 11), table, "layer", images, KEY
    )
    assert found.radius == pytest.approx(math.sqrt((5**2 - 1) / 6))
    assert found.side == 5
    assert found.centre == (5, 6)


def test_a_field_as_many_times_as_wide_has_as_large_a_radius():
    """The taps of one layer: -d, 0 and d along both axes."""
    for dilation in (1, 3, 7):
        table = receptive_field.series((dilation,))
        network = Network(table, 2)
        images = photographs(1, 21, 21)
        found = effective_field.of(
            features_of(network), equal(network, 21), table, "layer1", images, KEY
        )
        assert found.radius == pytest.approx(dilation * math.sqrt(4 / 3))
        assert found.side == 2 * dilation + 1


def weighted(kernel):
    """One linear layer of any taps [K, K], dilation 1."""
    taps = jnp.asarray(kernel, jnp.float32)[:, :, None, None]

    def features(variables, images):
        del variables
        grey = images.sum(-1, keepdims=True)
        return {"layer": dilated_conv(grey, taps, padding=len(kernel) // 2, method="native")}

    return features, (Stage("layer", "plain", 1, kernel=len(kernel)),)


def test_the_side_is_that_of_the_least_square_that_holds_95_percent():
    """Signs do not matter; 96 % of what follows lies within the inner 3 x 3."""
    kernel = np.full((7, 7), -0.04 / 40)
    kernel[2:5, 2:5] = 0.96 / 9
    features, table = weighted(kernel)
    found = effective_field.of(features, {}, table, "layer", photographs(1, 15, 15), KEY)
    assert found.side == 3
    kernel[2:5, 2:5] = 0.3 / 9
    features, table = weighted(kernel)
    found = effective_field.of(features, {}, table, "layer", photographs(1, 15, 15), KEY)
    assert found.side == 7
    assert found.map[7, 7] == pytest.approx(0.3 / 9 / 0.34)


LEVELS = models.table("drn_d_22", width=0.1)[:4]
"""As far as level 3: strides, and a residual level."""


def random(network):
    """He's weights; batch norm changes nothing."""
    shapes = jax.eval_shape(network.init, KEY, jnp.zeros((1, 64, 64, 3)))

    def draw(path, leaf):
        if path[-1].key == "kernel":
            deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return jnp.asarray(rng(1).normal(0, deviation, leaf.shape), leaf.dtype)
        return jnp.full(leaf.shape, float(path[-1].key in ("scale", "var")), leaf.dtype)

    return jax.tree.map_with_path(draw, shapes)


def test_random_weights_use_less_than_the_theoretical_field_and_nothing_outside():
    """Luo et al. 2016. The cell is that nearest to the middle."""
    network = Network(LEVELS, 4)
    variables, images = random(network), photographs(3, 64, 72)
    found = effective_field.of(features_of(network), variables, LEVELS, "level3", images, KEY)
    assert found.size == 39
    assert found.centre == (32, 36)
    rows, columns = np.abs(np.arange(64) - 32), np.abs(np.arange(72) - 36)
    outside = np.maximum(rows[:, None], columns) > found.size // 2
    assert not found.map[outside].any()
    assert found.map[~outside].sum() == pytest.approx(1)
    assert 1 < found.radius < 0.8 * math.sqrt((39**2 - 1) / 6)
    assert found.side < 39


def channels(variables, images):
    """Linear maps whose gradients by all pixels are `variables` [H, W, 3, C], in one cell."""
    maps = jnp.einsum("nhwc,hwcd->nd", images, variables)
    return {"layer": maps[:, None, None]}


WHOLE = (Stage("layer", "plain", 5, kernel=9, padding=0),)


def test_channels_are_mixed_by_random_signs_that_come_from_the_key():
    """Two that are opposite would cancel in a plain sum; here they do for about half the images."""
    gradients = rng().normal(size=(9, 9, 3, 1)).astype(np.float32)
    opposite = jnp.asarray(np.concatenate([gradients, -gradients], -1))
    images = photographs(8, 9, 9)
    of = partial(effective_field.of, channels, opposite, WHOLE, "layer")
    found = of(images, KEY)
    expected = np.abs(gradients).sum((2, 3))
    np.testing.assert_allclose(found.map, expected / expected.sum(), rtol=1e-5)
    gradients = jnp.asarray(rng().normal(size=(9, 9, 3, 5)), jnp.float32)
    of = partial(effective_field.of, channels, gradients, WHOLE, "layer")
    one, again, other = (of(images[:2], key).map for key in (KEY, KEY, jax.random.key(5)))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).sum() > 1e-3


def test_the_map_is_the_mean_over_all_images_of_all_batches():
    """Of images that differ in what the cell makes of them: the gradient of x^2 / 2 is x."""

    def squares(variables, images):
        return {"layer": jnp.square(images * variables).sum((1, 2, 3), keepdims=True) / 2}

    images = photographs(4, 9, 9)
    expected = sum(np.asarray(image, np.float64).sum((0, 3)) for image in images)
    for batches in (images, [jnp.concatenate(images[:2]), jnp.concatenate(images[2:])]):
        found = effective_field.of(squares, 1.0, WHOLE, "layer", batches, KEY)
        np.testing.assert_allclose(found.map, expected / expected.sum(), rtol=1e-5)
        assert found.images == 4


def test_one_program_is_compiled_for_all_images():
    traced = []

    def features(variables, images):
        traced.append(1)
        return {"layer1": images[..., :1] * variables}

    images = photographs(5, 8, 8)
    effective_field.of(features, 2.0, receptive_field.series((1,)), "layer1", images, KEY)
    assert len(traced) == 1


def test_unknown_stages_and_images_that_tell_nothing_are_refused():
    features, table = weighted(np.ones((3, 3)))
    of = partial(effective_field.of, features, {}, table)
    with pytest.raises(ValueError, match="no images"):
        of("layer", [], KEY)
    with pytest.raises(ValueError, match="level9"):
        of("level9", photographs(1, 9, 9), KEY)
    with pytest.raises(ValueError, match="one shape"):
        of("layer", photographs(1, 9, 9) + photographs(1, 9, 10), KEY)
    features, table = weighted(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="sum to 0"):
        effective_field.of(features, {}, table, "layer", photographs(1, 9, 9), KEY)
