"""Filler beside an image changes nothing of what the network says of the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.models import create, drn
from drn_jax.models.context import Context, ContextModule
from drn_jax.models.dilation import ContextNetwork
from drn_jax.models.layers import cut, max_pool, mean_over
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage, row_cells, scale_width, strided

ONES = (1,) * 8


def residual(rows, **options):
    return Network(scale_width(rows, 1 / 16), num_classes=3, **options)


def front_end(context, upsampling=0):
    """A small front end with a context module of few layers."""
    rows = (
        Stage("stem", "conv", 4, kernel=7),
        Stage("level1", "basic", 6, stride=2),
        Stage("level2", "basic", 6, stride=2),
    )
    return ContextNetwork(Network(rows, 3), ContextModule(3, context), upsampling)


def vgg(name, **options):
    return create(name, 3, 0.05, fc_channels=240, **options)


NETWORKS = {
    "resnet": residual(drn.resnet("basic", (1, 1, 1, 1))),
    "drn_a": residual(drn.drn_a("bottleneck", (1, 1, 2, 1)), remat="block"),
    "drn_b": residual(drn.drn_b("basic", ONES), remat="level"),
    "drn_c": residual(drn.drn_c("bottleneck", ONES)),
    "drn_d": residual(drn.drn_d("basic", ONES)),
    "vgg": vgg("vgg_16"),
    "vgg without padding": vgg("vgg_16_front_end"),
    "vgg with padding": vgg("vgg_16_front_end", padding="zero"),
    "context, every layer padded": front_end(Context(5), upsampling=4),
    "context, padded once": front_end(Context(5, "large", "once")),
    "context, mirrored": front_end(Context(4, padding="mirror")),
    "context, not padded": front_end(Context(4, padding="none"), upsampling=4),
}

BOTH = ("resnet", "vgg without padding", "context, mirrored")

QUICK = {"xla_backend_optimization_level": 0}
"""To compile."""

SMALL, LARGE = (37, 53), (61, 46)
"""Of two images in a batch."""


def sizes(name):
    """Of the two images; and of the batch, larger than both."""
    more = 372 if name == "vgg without padding" else 186 if name == "vgg" else 0
    return [tuple(n + more for n in size) for size in (SMALL, LARGE, (64, 60))]


def pictures(name, seed=0):
    """Two images, and a batch that holds them in the upper left of larger filler."""
    small, large, whole = sizes(name)
    rng = np.random.default_rng(seed)
    images = [rng.normal(size=(*size, 3)).astype(np.float32) for size in (small, large)]
    batch = rng.normal(size=(2, *whole, 3)).astype(np.float32) * 1000
    for one, place in zip(images, batch, strict=True):
        place[: one.shape[0], : one.shape[1]] = one
    return images, batch, np.array([small, large], np.int32)


def assert_close(actual, expected, what):
    expected = np.asarray(expected)
    spread = np.abs(expected).max()
    assert spread > 1e-3, what
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * spread, err_msg=what)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_image_in_filler_comes_out_as_it_does_alone(name, variables_of):
    model = NETWORKS[name]
    images, batch, valid = pictures(name)
    variables = variables_of(model, batch.shape)
    apply = jax.jit(model.apply, compiler_options=QUICK)
    logits, features = apply(variables, batch, valid=valid)
    # Each size alone is a program of its own: of most networks the first is enough.
    for k, image in enumerate(images if name in BOTH else images[:1]):
        alone, expected = apply(variables, image[None])
        assert_close(logits[k], alone[0], "logits")
        assert set(features) == set(expected)
        for row, found in expected.items():
            height, width = found.shape[1:3]
            assert found.size
            assert_close(features[row][k, :height, :width], found[0], row)


def test_without_the_extent_filler_does_matter(variables_of):
    """What the test above would see."""
    images, batch, _ = pictures("drn_d")
    model = NETWORKS["drn_d"]
    variables = variables_of(model, batch.shape)
    apply = jax.jit(lambda *x: model.apply(*x)[1]["logits_2d"], compiler_options=QUICK)
    alone, beside = apply(variables, images[0][None])[0], apply(variables, batch)[0]
    assert np.abs(beside[: alone.shape[0], : alone.shape[1]] - alone).max() > 1


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"),
    [(3, 2, 1, False), (2, 2, 0, False), (2, 2, 0, True), (3, 2, 0, True)],
)
def test_pooling_behind_a_relu_takes_0_for_what_lies_beyond(kernel, stride, padding, ceil):
    x = np.maximum(np.random.default_rng(0).normal(size=(4, 12, 12, 2)), 0).astype(np.float32)
    extent = jnp.asarray([[11, 12], [9, 4], [5, 6], [3, 7]], jnp.int32)
    row = Stage("pool", "max_pool", 2, stride=stride, kernel=kernel, padding=padding, ceil=ceil)
    pooled = max_pool(cut(x, extent), kernel, stride, padding, ceil=ceil)
    cells = np.asarray(strided(extent, row))
    for k, (height, width) in enumerate(np.asarray(extent)):
        alone = max_pool(x[k : k + 1, :height, :width], kernel, stride, padding, ceil=ceil)
        assert alone.shape[1:3] == tuple(cells[k])
        np.testing.assert_array_equal(pooled[k, : cells[k, 0], : cells[k, 1]], alone[0])


def test_extents_follow_the_rows_as_sizes_do():
    for model in NETWORKS.values():
        sizes = np.arange(1, 420, 3, dtype=np.int32)
        traced = jnp.asarray(sizes)
        for row in model.stages:
            traced = row_cells(row, traced)
            sizes = [row_cells(row, int(size)) for size in sizes]
            np.testing.assert_array_equal(traced, sizes)


def test_mean_over_an_extent_leaves_filler_out_even_nan():
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    x[0, 2:], x[1, :, 4:] = np.nan, np.nan
    mean = mean_over(x, jnp.asarray([[2, 5], [4, 4]], jnp.int32), jnp.float32)
    expected = np.stack([x[0, :2].mean((0, 1)), x[1, :, :4].mean((0, 1))])
    np.testing.assert_allclose(mean[:, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["drn_d", "context, mirrored"])
def test_filler_in_training_is_refused(name, variables_of):
    model, (_, batch, valid) = NETWORKS[name], pictures(name)
    variables = variables_of(model, batch.shape)
    with pytest.raises(ValueError, match="`valid` is for inference"):
        model.apply(variables, batch, True, valid, mutable=["batch_stats"])
