"""A front end with its context module: what it sees, returns and begins as, and the upsampling."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.models import create, table
from drn_jax.models.context import Context, ContextModule
from drn_jax.models.dilation import PUBLISHED, ContextNetwork, FixedUpsampling, bilinear_kernel

KEY = jax.random.key(0, impl="unsafe_rbg")
"""Of the generator that compiles fastest."""

IMAGES = np.random.default_rng(1).normal(size=(2, 33, 20, 3)).astype(np.float32)


def size_of(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", [name for name, net in PUBLISHED.items() if net.front_end])
def test_published_net_is_the_front_end_the_context_module_and_the_upsampling(name):
    model, classes = create(name), PUBLISHED[name].classes
    images = jax.ShapeDtypeStruct((1, 373, 373, 3), jnp.float32)
    params = jax.eval_shape(model.init, KEY, images)["params"]
    alone = create("vgg_16_front_end", num_classes=classes)
    assert params.pop("front_end") == jax.eval_shape(alone.init, KEY, images)["params"]
    maps = jax.ShapeDtypeStruct((1, 1, 1, classes), jnp.float32)
    module = create(name.replace("dilation", "context"))
    assert params.pop("context") == jax.eval_shape(module.init, KEY, maps)["params"]
    assert size_of(params) == (16 * 16 * 19 if name == "dilation10_cityscapes" else 0)


# What it returns


CONTEXT = Context(7, padding="layer")


@cache
def shapes_of(model):
    return jax.eval_shape(model.init, KEY, IMAGES)


@pytest.fixture(scope="module", params=["drn_d_22", "drn_a_18", "vgg_16_front_end"])
def begun(request):
    """A network with random front end and the context module as it is drawn, and what it gives."""
    options = {"padding": "zero"} if "vgg" in request.param else {}
    model = create(request.param, num_classes=3, width=1 / 16, context=CONTEXT, **options)
    rng = np.random.default_rng(0)

    def fill(leaf):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
        values = rng.normal(0, scale, leaf.shape)
        return (np.abs(values) if len(leaf.shape) == 1 else values).astype(np.float32)

    variables = jax.tree.map(fill, shapes_of(model))
    maps = jnp.zeros((1, 1, 1, 3))
    variables["params"]["context"] = model.context.init(KEY, maps)["params"]
    return model, variables, *jax.jit(model.apply)(variables, IMAGES)


def test_network_begins_as_relu_of_the_class_map_of_its_front_end(begun):
    _, _, _, features = begun
    front_end = np.asarray(features["front_end"])
    assert front_end.min() < 0 < front_end.max()
    np.testing.assert_array_equal(features["context"], np.maximum(front_end, 0))


def test_network_returns_the_maps_of_both_parts_and_the_mean(begun):
    model, variables, logits, features = begun
    assert features["front_end"].shape == features["context"].shape == (2, 5, 3, 3)
    np.testing.assert_array_equal(features["logits_2d"], features["context"])
    mean = np.asarray(features["context"]).mean((1, 2))
    np.testing.assert_allclose(logits, mean, rtol=0, atol=1e-6 * np.abs(mean).max())
    names = {row.name for row in model.table} - {"head"}
    assert set(features) == names | {"front_end", "context", "logits_2d"}
    assert set(variables["params"]) == {"front_end", "context"}


def test_front_end_of_a_network_is_the_network_without_context(begun):
    model, variables, _, features = begun
    own = {part: tree["front_end"] for part, tree in variables.items()}
    _, alone = jax.jit(model.front_end.apply)(own, IMAGES)
    scale = np.abs(alone["logits_2d"]).max()
    np.testing.assert_allclose(features["front_end"], alone["logits_2d"], rtol=0, atol=1e-6 * scale)


def test_training_reaches_both_parts_and_updates_the_statistics_of_the_front_end():
    model = create("drn_d_22", num_classes=3, width=1 / 16, context=Context(4))
    shapes = shapes_of(model)
    assert set(shapes["batch_stats"]) == {"front_end"}

    def step(variables):
        def loss(params):
            everything = {**variables, "params": params}
            (logits, _), updates = model.apply(
                everything, IMAGES, train=True, mutable=["batch_stats"]
            )
            return jnp.square(logits).sum(), updates

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradient, updates = jax.eval_shape(step, shapes)
    assert gradient == shapes["params"]
    assert updates["batch_stats"] == shapes["batch_stats"]


def test_parts_of_different_channels_are_refused():
    front_end = create("drn_d_22", num_classes=4, width=1 / 16)
    model = ContextNetwork(front_end, ContextModule(3, CONTEXT))
    with pytest.raises(UserError, match="maps of 3 channels, one a class, and got 4") as caught:
        jax.eval_shape(model.init, KEY, IMAGES)
    assert "\n" not in str(caught.value)


def test_table_of_a_network_is_front_end_classifier_and_context_module():
    model = create("dilation7_kitti", width=1 / 64)
    assert model.stages == table("dilation7_kitti", 1 / 64)
    names = [row.name for row in model.table]
    assert names == [
        *(row.name for row in model.stages),
        "head",
        *(row.name for row in model.context.table),
    ]
    assert len(set(names)) == len(names)


# Upsampling


def slow_upsampling(x, kernel):
    """A transposed convolution: every cell adds its kernel to the pixels around it."""
    s = len(kernel) // 2
    n, height, width, channels = x.shape
    y = np.zeros((n, s * (height + 1), s * (width + 1), channels))
    for i, j in np.ndindex(height, width):
        y[:, s * i : s * (i + 2), s * j : s * (j + 2)] += x[:, None, None, i, j] * kernel[:, :, 0]
    return y[:, s // 2 : s // 2 + s * height, s // 2 : s // 2 + s * width]


@pytest.mark.parametrize(("factor", "size"), [(2, (1, 1)), (2, (4, 3)), (4, (3, 2)), (8, (2, 3))])
def test_upsampling_equals_the_loop_of_a_transposed_convolution(factor, size):
    """In whole numbers, with a kernel that is neither symmetric nor the same for all channels."""
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, *size, 3)).astype(np.float32)
    kernel = rng.integers(-4, 5, (2 * factor, 2 * factor, 1, 3)).astype(np.float32)
    y = FixedUpsampling(factor).apply({"params": {"kernel": kernel}}, x)
    assert y.shape == (2, size[0] * factor, size[1] * factor, 3)
    np.testing.assert_array_equal(y, slow_upsampling(x, kernel))


def upsampled(x, factor=8):
    layer = FixedUpsampling(factor)
    y, variables = layer.init_with_output(KEY, jnp.asarray(x, jnp.float32))
    return np.asarray(y), variables


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_begins_bilinear_for_every_channel(factor):
    _, variables = upsampled(np.ones((1, 1, 1, 3)), factor)
    kernel = np.asarray(variables["params"]["kernel"])
    assert kernel.shape == (2 * factor, 2 * factor, 1, 3)
    for channel in range(3):
        np.testing.assert_array_equal(kernel[:, :, 0, channel], bilinear_kernel(factor))
    # Caffe's `bilinear` filler, pixel by pixel.
    centre = (2 * factor - 1) / (2 * factor)
    for u, v in np.ndindex(2 * factor, 2 * factor):
        expected = (1 - abs(u / factor - centre)) * (1 - abs(v / factor - centre))
        assert kernel[u, v, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_bilinear_upsampling_puts_cell_k_at_pixel_8k_plus_3_5():
    """The interior of a ramp over the cells is the same ramp over the pixels."""
    height, width = 4, 5
    i, j = np.mgrid[:height, :width]
    y, _ = upsampled((3.0 * i - 2.0 * j + 1)[None, :, :, None])
    a, b = (np.mgrid[: 8 * height, : 8 * width] - 3.5) / 8
    inside = (slice(4, 8 * height - 4), slice(4, 8 * width - 4))
    expected = 3.0 * a - 2.0 * b + 1
    np.testing.assert_allclose(y[0, :, :, 0][inside], expected[inside], rtol=0, atol=1e-5)


def test_beyond_the_map_lies_0():
    """So that a map of ones falls off within half a cell of the border."""
    y, _ = upsampled(np.ones((1, 3, 3, 1)))
    np.testing.assert_allclose(y[0, 4:-4, 4:-4], 1, rtol=1e-6)
    fall = (np.arange(4) + 4.5) / 8
    np.testing.assert_allclose(y[0, :4, 12, 0], fall, rtol=1e-6)
    np.testing.assert_allclose(y[0, 12, -4:, 0], fall[::-1], rtol=1e-6)


def test_no_gradient_reaches_the_kernel_and_one_reaches_the_map():
    layer, x = FixedUpsampling(2), np.ones((1, 2, 2, 3), np.float32)
    variables = {"params": {"kernel": np.ones((4, 4, 1, 3), np.float32)}}
    by_kernel, by_map = jax.grad(lambda v, x: layer.apply(v, x).sum(), argnums=(0, 1))(variables, x)
    np.testing.assert_array_equal(by_kernel["params"]["kernel"], np.zeros((4, 4, 1, 3)))
    assert np.all(np.asarray(by_map) > 0)


def test_pixel_logits_are_the_context_upsampled():
    """Of the published net at full width, by shape; the values of a small one."""
    model = create("dilation10_cityscapes")
    images = jax.ShapeDtypeStruct((1, 1396, 1396, 3), jnp.float32)
    (_, features), _ = jax.eval_shape(model.init_with_output, KEY, images)
    assert features["context"].shape == (1, 128, 128, 19)
    assert features["pixel_logits"].shape == (1, 1024, 1024, 19)
    small = ContextNetwork(
        create("drn_d_22", num_classes=2, width=1 / 64), ContextModule(2, Context(4)), upsampling=8
    )
    rng = np.random.default_rng(0)
    shapes = shapes_of(small)
    variables = jax.tree.map(lambda leaf: rng.uniform(size=leaf.shape).astype("f4"), shapes)
    _, features = jax.jit(small.apply)(variables, IMAGES)
    kernel = variables["params"]["ctx_upsample"]["kernel"]
    expected = slow_upsampling(np.asarray(features["context"]), kernel)
    assert features["pixel_logits"].shape == expected.shape == (2, 40, 24, 2)
    np.testing.assert_allclose(features["pixel_logits"], expected, rtol=1e-5)
    np.testing.assert_array_equal(features["logits_2d"], features["context"])
