"""The layers compute what their definitions say, and batch norm sees the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from drn_jax.models.convolution import dilated_conv
from drn_jax.models.layers import BatchNorm, DilatedConv, max_pool

# kernel, stride, dilation, padding, height, width
CONVOLUTIONS = [
    (1, 1, 1, 0, 4, 5),
    (1, 2, 1, 0, 5, 4),
    (3, 1, 1, 1, 5, 7),
    (3, 2, 1, 1, 7, 6),
    (3, 2, 2, 0, 9, 8),
    (3, 1, 2, 2, 7, 5),
    (3, 1, 4, 4, 5, 9),
    (3, 2, 4, 3, 9, 7),
    (7, 1, 1, 3, 5, 8),
    (7, 2, 1, 3, 9, 7),
]


def whole_numbers(rng, *shape):
    """Small integers: every sum of products below is exact in float32, in any order."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def output_sizes(x, kernel, stride, dilation, padding):
    reach = dilation * (len(kernel) - 1)
    return [(n + 2 * padding - reach - 1) // stride + 1 for n in x.shape[1:3]]


def products(x, kernel, stride, dilation, padding):
    """Every (output cell, tap, input pixel) of the definition whose pixel lies in the image."""
    cells = output_sizes(x, kernel, stride, dilation, padding)
    for i, j, u, v in np.ndindex(*cells, *kernel.shape[:2]):
        a, b = (o * stride + t * dilation - padding for o, t in ((i, u), (j, v)))
        if 0 <= a < x.shape[1] and 0 <= b < x.shape[2]:
            yield (i, j), (u, v), (a, b)


def slow_conv(x, kernel, *geometry):
    y = np.zeros((len(x), *output_sizes(x, kernel, *geometry), kernel.shape[-1]))
    for (i, j), (u, v), (a, b) in products(x, kernel, *geometry):
        y[:, i, j] += x[:, a, b] @ kernel[u, v]
    return y


def slow_conv_adjoint(x, kernel, dy, *geometry):
    """The gradients of (slow_conv * dy).sum() with respect to x and kernel: it is bilinear."""
    dx, dk = np.zeros(x.shape), np.zeros(kernel.shape)
    for (i, j), (u, v), (a, b) in products(x, kernel, *geometry):
        dx[:, a, b] += dy[:, i, j] @ kernel[u, v].T
        dk[u, v] += x[:, a, b].T @ dy[:, i, j]
    return dx, dk


@pytest.mark.parametrize(("size", "stride", "dilation", "padding", "height", "width"), CONVOLUTIONS)
def test_dilated_conv_and_its_gradients_equal_the_loop_of_its_definition(
    size, stride, dilation, padding, height, width
):
    rng = np.random.default_rng(0)
    x = whole_numbers(rng, 2, height, width, 3)
    kernel = whole_numbers(rng, size, size, 3, 2)
    geometry = (stride, dilation, padding)
    dy = whole_numbers(rng, 2, *output_sizes(x, kernel, *geometry), 2)

    @jax.jit
    def value_and_gradients(x, kernel, dy):
        def conv(x, kernel):
            return dilated_conv(x, kernel, stride=stride, dilation=dilation, padding=padding)

        y, pull = jax.vjp(conv, x, kernel)
        return y, *pull(dy)

    y, dx, dk = value_and_gradients(x, kernel, dy)
    slow_dx, slow_dk = slow_conv_adjoint(x, kernel, dy, *geometry)
    np.testing.assert_array_equal(y, slow_conv(x, kernel, *geometry))
    np.testing.assert_array_equal(dx, slow_dx)
    np.testing.assert_array_equal(dk, slow_dk)


def test_dilated_conv_module_adds_its_bias(variables_of):
    conv = DilatedConv(4, kernel=3, stride=2, dilation=2, padding=2, use_bias=True)
    x = np.random.default_rng(1).normal(size=(2, 7, 6, 3)).astype(np.float32)
    params = variables_of(conv, x)["params"]
    expected = slow_conv(x, params["kernel"], 2, 2, 2) + params["bias"]
    np.testing.assert_allclose(conv.apply({"params": params}, x), expected, rtol=0, atol=1e-5)


def test_bfloat16_layers_keep_float32_parameters_and_statistics():
    x = jnp.ones((2, 5, 5, 3), jnp.float32)
    conv = DilatedConv(4, use_bias=True, dtype=jnp.bfloat16)
    norm = BatchNorm(dtype=jnp.bfloat16)
    for layer, args in ((conv, ()), (norm, (True,))):
        y, variables = jax.eval_shape(
            lambda key, layer=layer, args=args: layer.init_with_output(key, x, *args),
            jax.random.key(0),
        )
        assert y.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_bfloat16_convolution_computes_in_bfloat16(variables_of):
    """1 + 2^-9 is not a bfloat16, so a sum of rounded inputs tells who did the rounding."""
    conv = DilatedConv(1, kernel=1, dtype=jnp.bfloat16)
    x = np.full((1, 1, 1, 1), 1 + 2**-9, np.float32)
    y = conv.apply({"params": {"kernel": np.full((1, 1, 1, 1), 256, np.float32)}}, x)
    assert float(y[0, 0, 0, 0]) == 256


def normalise(x, train=True, variables=None, **options):
    norm = BatchNorm(**options)
    if variables is None:
        channels = np.ones(x.shape[-1], np.float32)
        variables = {
            "params": {"scale": channels, "bias": 0 * channels},
            "batch_stats": {"mean": 0 * channels, "var": channels},
        }
    y, updates = norm.apply(variables, x, train, mutable=["batch_stats"])
    return np.asarray(y), updates["batch_stats"]


def batch(rng, *shape):
    """Channels of different mean and spread."""
    spread, mean = np.arange(1, shape[-1] + 1), 3 * np.arange(shape[-1]) - 2
    return (rng.normal(size=shape) * spread + mean).astype(np.float32)


def test_train_mode_gives_every_channel_mean_0_and_variance_1():
    y, _ = normalise(batch(np.random.default_rng(0), 4, 5, 3, 3), epsilon=0.0)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, rtol=1e-5)


def test_train_mode_ignores_and_eval_mode_uses_the_running_statistics(variables_of):
    x = batch(np.random.default_rng(0), 4, 5, 3, 3)
    variables = variables_of(BatchNorm(), x, False)
    scale, bias = (variables["params"][k] for k in ("scale", "bias"))
    running = variables["batch_stats"]

    def formula(mean, var):
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    y, unchanged = normalise(x, False, variables)
    np.testing.assert_allclose(y, formula(running["mean"], running["var"]), rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, unchanged, running)
    y, _ = normalise(x, True, variables)
    expected = formula(x.mean((0, 1, 2)), x.var((0, 1, 2)))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "lost"), [("biased", 0), ("unbiased", 1)])
def test_running_statistics_move_by_one_minus_momentum(kind, lost, variables_of):
    x = batch(np.random.default_rng(0), 2, 3, 2, 3)
    norm = BatchNorm()
    variables = variables_of(norm, x, True)
    before = variables["batch_stats"]
    _, after = normalise(x, True, variables, momentum=0.8, running_variance=kind)
    wide = x.astype(np.float64)
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2), ddof=lost)
    np.testing.assert_allclose(after["mean"], 0.8 * before["mean"] + 0.2 * mean, rtol=1e-5)
    np.testing.assert_allclose(after["var"], 0.8 * before["var"] + 0.2 * var, rtol=1e-5)


def test_unbiased_variance_of_a_single_value_is_finite():
    _, after = normalise(np.full((1, 1, 1, 2), 3, np.float32), running_variance="unbiased")
    np.testing.assert_allclose(after["var"], 0.9, rtol=1e-6)


def test_initialising_takes_no_step_of_the_running_averages():
    x = batch(np.random.default_rng(0), 2, 3, 2, 3)
    statistics = BatchNorm().init(jax.random.key(0), x, True)["batch_stats"]
    np.testing.assert_array_equal(statistics["mean"], 0)
    np.testing.assert_array_equal(statistics["var"], 1)


def test_variance_survives_a_mean_that_dwarfs_the_spread():
    """E[x^2] - E[x]^2 in float32 is off by as much as the variance itself here."""
    x = np.random.default_rng(0).normal(200, 0.05, (8, 16, 16, 4)).astype(np.float32)
    y, after = normalise(x, momentum=0.0)
    wide = x.astype(np.float64)
    assert after["var"].dtype == jnp.float32
    np.testing.assert_allclose(after["mean"], wide.mean((0, 1, 2)), rtol=5e-6)
    np.testing.assert_allclose(after["var"], wide.var((0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(y.std((0, 1, 2)), np.sqrt(0.0025 / (0.0025 + 1e-5)), rtol=0.02)


def test_statistics_of_bfloat16_input_are_taken_in_float32():
    """Ones with a share of 1/256 twos: their mean 1 + 1/256 is no bfloat16."""
    x = jnp.ones(4096, jnp.bfloat16).at[:16].set(2).reshape(4, 32, 32, 1)
    _, after = normalise(x, momentum=0.0, dtype=jnp.bfloat16)
    np.testing.assert_allclose(after["mean"], 257 / 256, rtol=1e-6)
    np.testing.assert_allclose(after["var"], 255 / 256**2, rtol=1e-5)


def test_sharded_batch_is_normalised_as_one():
    """Every example has its own mean, so that statistics of each device's share would show."""
    rng = np.random.default_rng(0)
    x = batch(rng, 16, 3, 5, 3) + 10 * rng.normal(size=(16, 1, 1, 1)).astype(np.float32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    norm = BatchNorm()
    variables = {
        "params": {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)},
        "batch_stats": {"mean": np.zeros(3, np.float32), "var": np.ones(3, np.float32)},
    }

    @jax.jit
    def run(x):
        return norm.apply(variables, x, True, mutable=["batch_stats"])

    alone = run(x)
    x8 = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    assert len(x8.sharding.device_set) == 8
    together = run(x8)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), together, alone
    )


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 2, (7, 8)), (3, 1, (4, 5))])
def test_max_pool_equals_the_loop_and_never_takes_the_padding(kernel, stride, size):
    """All values are below 0, the value of a convolution's padding."""
    x = -np.random.default_rng(0).uniform(1, 2, (2, *size, 3)).astype(np.float32)
    pad = kernel // 2
    height, width = ((n - 1) // stride + 1 for n in size)
    expected = np.empty((2, height, width, 3), np.float32)
    for i, j in np.ndindex(height, width):
        top, left = i * stride - pad, j * stride - pad
        window = x[:, max(top, 0) : top + kernel, max(left, 0) : left + kernel]
        expected[:, i, j] = window.max((1, 2))
    np.testing.assert_array_equal(max_pool(x, kernel, stride, kernel // 2), expected)


def slow_max_pool(x, kernel, stride, padding):
    """Windows, one at a time, until one reaches the last row and column: Caffe's."""

    def starts(size):
        count = -(-(size + 2 * padding - kernel) // stride) + 1
        return [stride * i - padding for i in range(count)]

    tops, lefts = map(starts, x.shape[1:3])
    y = np.empty((len(x), len(tops), len(lefts), x.shape[3]), x.dtype)
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            window = x[:, max(top, 0) : top + kernel, max(left, 0) : left + kernel]
            y[:, i, j] = window.max((1, 2))
    return y


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "sizes"),
    [
        (2, 2, 0, [(1, 1), (1, 2), (2, 3), (5, 4), (7, 7), (8, 6)]),
        (3, 2, 0, [(3, 4), (5, 6), (8, 7)]),
        (3, 2, 1, [(1, 2), (4, 5), (7, 6)]),
        (4, 3, 0, [(4, 5), (6, 7), (8, 9)]),
    ],
)
def test_max_pool_that_rounds_up_hangs_its_last_window_over_the_edge(
    kernel, stride, padding, sizes
):
    """All values are below 0, and none comes from beyond the edge."""
    for height, width in sizes:
        x = -np.random.default_rng(0).uniform(1, 2, (2, height, width, 2)).astype(np.float32)
        y = max_pool(x, kernel, stride, padding, ceil=True)
        np.testing.assert_array_equal(y, slow_max_pool(x, kernel, stride, padding))


def test_max_pool_rounds_down_or_up_only_where_a_window_does_not_fit():
    """At 2x2 with stride 2 the last row and column of an odd map are kept or lost."""
    x = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    down, up = (max_pool(x, 2, 2, 0, ceil=ceil)[0, :, :, 0] for ceil in (False, True))
    np.testing.assert_array_equal(down, [[6, 8], [16, 18]])
    np.testing.assert_array_equal(up, [[6, 8, 9], [16, 18, 19], [21, 23, 24]])
    even = x[:, :4, :4]
    np.testing.assert_array_equal(max_pool(even, 2, 2, 0, ceil=True), max_pool(even, 2, 2, 0))


def test_max_pool_keeps_bfloat16():
    x = jnp.full((1, 3, 3, 1), -2, jnp.bfloat16)
    y = max_pool(x, 2, 2, 0, ceil=True)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(jnp.float32), np.full((1, 2, 2, 1), -2.0))
