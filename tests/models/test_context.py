"""The context module begins as relu(x), and sees as far as Table 1 of its paper says."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.analysis import receptive_field
from drn_jax.errors import UserError
from drn_jax.models.context import Context, ContextModule, identity_init
from drn_jax.models.stages import surroundings

KEY = jax.random.key(0, impl="unsafe_rbg")
"""Of the generator that compiles fastest."""

FIELDS = {
    7: (3, 5, 9, 17, 33, 35, 35),
    8: (3, 5, 9, 17, 33, 65, 67, 67),
    10: (3, 5, 9, 17, 33, 65, 129, 257, 259, 259),
}
"""Cells a side that a cell of each layer sees: Table 1 for 8 layers, appendix for the others."""

NAMES = {
    7: "conv1_1 conv1_2 conv2_1 conv3_1 conv4_1 fc1 final",
    8: "conv1_1 conv1_2 conv2_1 conv3_1 conv4_1 conv5_1 fc1 final",
    10: "conv1_1 conv1_2 conv2_1 conv3_1 conv4_1 conv5_1 conv6_1 conv7_1 fc1 final",
}


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def scores(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sizes(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("channels", [1, 2, 11, 19, 21, 30])
def test_module_has_the_parameters_of_its_formula(channels):
    for size, count in (
        ("basic", 64 * channels**2 + 8 * channels),
        ("large", 15_422 * channels**2 + 97 * channels),
    ):
        module = ContextModule(channels, Context(size=size))
        variables = jax.eval_shape(module.init, KEY, struct(1, 5, 5, channels))
        assert set(variables) == {"params"}
        assert sizes(variables) == count


@pytest.mark.parametrize(("size", "count"), [("basic", 28_392), ("large", 6_803_139)])
def test_module_for_pascal_voc_has_the_published_number_of_parameters(size, count):
    module = ContextModule(21, Context(size=size))
    assert sizes(jax.eval_shape(module.init, KEY, struct(1, 5, 5, 21))) == count


@pytest.mark.parametrize("layers", FIELDS)
def test_rows_bear_the_published_names_in_order(layers):
    table = ContextModule(1, Context(layers)).table
    assert [row.name for row in table] == [f"ctx_{name}" for name in NAMES[layers].split()]


def test_large_module_widens_as_table_1_and_ends_with_the_classes():
    table = ContextModule(21, Context(size="large")).table
    assert [row.channels / 21 for row in table] == [2, 2, 4, 8, 16, 32, 32, 1]


def test_only_the_last_layer_lets_negative_values_out(variables_of):
    module = ContextModule(3, Context(4))
    maps = scores(2, 6, 5, 3)
    _, features = module.apply(variables_of(module, maps), maps)
    lowest = {row.name: float(features[row.name].min()) for row in module.table}
    assert lowest.pop("ctx_final") < 0
    assert set(lowest.values()) == {0.0}


# Initialisation


def by_equation(shape, groups):
    """Eq. 5 without noise, in whole numbers."""
    height, width, inputs, outputs = shape
    kernel = np.zeros(shape)
    for u, v, a, b in np.ndindex(shape):
        centre = (u, v) == ((height - 1) / 2, (width - 1) / 2)
        if centre and a * groups // inputs == b * groups // outputs:
            kernel[u, v, a, b] = groups / outputs
    return kernel


SHAPES = [
    ((3, 3, 5, 5), 5),
    ((3, 3, 5, 10), 5),
    ((3, 3, 21, 42), 21),
    ((3, 3, 8, 32), 2),
    ((1, 1, 24, 4), 4),
    ((3, 3, 6, 4), 2),
    ((3, 3, 4, 6), 2),
    ((5, 1, 9, 12), 3),
    ((3, 3, 4, 6), 1),
]
"""(kernel, groups): wider, narrower, neither a multiple of the other, not square."""


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_identity_init_without_noise_is_equation_5_written_as_a_loop(shape, groups):
    """So every output is fed the share c_i / c_{i+1}, of which each group's sum is kept."""
    kernel = np.asarray(identity_init(groups)(KEY, shape))
    np.testing.assert_array_equal(kernel, by_equation(shape, groups).astype(np.float32))
    np.testing.assert_allclose(kernel.sum((0, 1, 2)), shape[2] / shape[3], rtol=1e-6)


def test_identity_init_without_groups_is_equation_4():
    kernel = np.asarray(identity_init()(KEY, (3, 3, 7, 7)))
    np.testing.assert_array_equal(kernel[1, 1], np.eye(7))
    assert np.abs(kernel).sum() == 7


def test_noise_lies_everywhere_but_on_the_diagonal_of_the_groups():
    shape, epsilon = (3, 3, 42, 84), 0.005
    exact = by_equation(shape, 21)
    kernel = np.asarray(identity_init(21, epsilon)(KEY, shape), np.float64)
    np.testing.assert_array_equal(kernel[exact > 0], 0.25)
    noise = kernel[exact == 0] / epsilon
    assert np.count_nonzero(noise) == noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)
    # Normal: 68.3 % within one deviation; of a uniform distribution it would be 57.7 %.
    assert abs((np.abs(noise) < 1).mean() - 0.6827) < 4 * np.sqrt(0.6827 * 0.3173 / noise.size)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_identity_init_has_the_dtype_asked_for_also_under_jit_and_eval_shape(dtype):
    init, shape = identity_init(2, 0.125), (3, 3, 4, 8)
    kernel = init(KEY, shape, dtype)
    assert kernel.dtype == dtype
    compiled = jax.jit(lambda key: init(key, shape, dtype))
    np.testing.assert_array_equal(compiled(KEY), kernel)
    assert jax.eval_shape(compiled, KEY) == jax.ShapeDtypeStruct(shape, dtype)


def test_a_key_stands_for_one_kernel():
    init, shape = identity_init(2, 0.1), (3, 3, 4, 4)
    kernel = np.asarray(init(KEY, shape))
    np.testing.assert_array_equal(init(KEY, shape), kernel)
    assert np.abs(np.asarray(init(jax.random.fold_in(KEY, 1), shape)) - kernel).max() > 0.01


@pytest.mark.parametrize(
    ("groups", "shape", "message"),
    [
        (3, (3, 3, 6, 4), "6 input and 4 output channels .* multiples of 3 groups"),
        (3, (3, 3, 5, 9), "5 input and 9 output channels .* multiples of 3 groups"),
        (None, (3, 3, 4, 8), "4 input and 8 output channels .* multiples of 8 groups"),
        (0, (3, 3, 4, 8), "4 input and 8 output channels .* multiples of 0 groups"),
        (4, (2, 3, 4, 4), "a 2x3 kernel has no centre"),
        (4, (3, 4, 4, 4), "a 3x4 kernel has no centre"),
    ],
)
def test_identity_init_refuses_what_has_no_groups_or_no_centre(groups, shape, message):
    with pytest.raises(UserError, match=message) as caught:
        identity_init(groups)(KEY, shape)
    assert "\n" not in str(caught.value)


@cache
def drawn(context):
    module = ContextModule(4, context)
    params = jax.jit(module.init)(KEY, jnp.zeros((1, 1, 1, 4)))["params"]
    return module.table, jax.device_get(params)


@pytest.mark.parametrize(
    ("size", "init", "noisy"),
    [
        ("basic", "identity", False),
        ("basic", "filler", True),
        ("large", "identity", True),
        ("large", "filler", True),
    ],
)
def test_noise_of_every_layer_has_epsilon_times_the_deviation_of_its_diagonal(size, init, noisy):
    """Of basic only the filler is noisy."""
    epsilon = 0.02
    table, params = drawn(Context(size=size, init=init, epsilon=epsilon))
    channels = 4
    for row in table:
        kernel = params[row.name]["kernel"]
        exact = by_equation(kernel.shape, 4)
        assert kernel.shape == (row.kernel, row.kernel, channels, row.channels)
        np.testing.assert_array_equal(kernel[exact > 0], 4 / row.channels, err_msg=row.name)
        noise = kernel[exact == 0] * row.channels / 4
        spread = epsilon if noisy else 0.0
        assert abs(noise.std() - spread) <= 4 * spread / np.sqrt(2 * noise.size), row.name
        assert not np.any(params[row.name]["bias"])
        channels = row.channels


def test_he_draws_by_fan_in_with_no_diagonal():
    table, params = drawn(Context(4, size="large", init="he"))
    for row in table:
        kernel = params[row.name]["kernel"]
        deviation = np.sqrt(2 / np.prod(kernel.shape[:-1]))
        share = kernel.std() / deviation
        assert abs(share - 1) < 4 / np.sqrt(2 * kernel.size), row.name
        assert not np.any(params[row.name]["bias"])


# Identity


def begun(channels, context, maps):
    """The module as it is drawn, applied."""
    module = ContextModule(channels, context)
    _, features = jax.jit(lambda maps: module.init_with_output(KEY, maps)[0])(maps)
    return features


@pytest.mark.parametrize("padding", ["layer", "once", "mirror"])
@pytest.mark.parametrize(("layers", "size"), [(7, (19, 21)), (8, (35, 37)), (10, (131, 133))])
def test_basic_module_begins_as_relu_exactly_borders_included(layers, size, padding):
    maps = scores(1, *size, 3)
    features = begun(3, Context(layers, padding=padding, epsilon=0.0), maps)
    np.testing.assert_array_equal(features["context"], np.maximum(maps, 0))


@pytest.mark.parametrize("padding", ["layer", "once"])
def test_basic_module_begins_as_relu_on_a_map_smaller_than_its_dilations(padding):
    """With noise asked for: the basic module has none (Eq. 4)."""
    maps = scores(2, 1, 3, 3)
    features = begun(3, Context(8, padding=padding, epsilon=0.5), maps)
    np.testing.assert_array_equal(features["context"], np.maximum(maps, 0))


@pytest.mark.parametrize("channels", [2, 21])
def test_large_module_without_noise_begins_as_relu_to_32_ulp(channels):
    """The shares are powers of two, and so exact; what rounds are sums of up to 32 equal terms."""
    maps = scores(1, 5, 7, channels)
    features = begun(channels, Context(size="large", epsilon=0.0), maps)
    np.testing.assert_array_max_ulp(np.asarray(features["context"]), np.maximum(maps, 0), maxulp=32)


def test_noise_of_the_large_module_leaves_it_near_relu():
    maps = scores(1, 9, 9, 5)
    exact, context = np.maximum(maps, 0), begun(5, Context(size="large", padding="once"), maps)
    error = np.abs(context["context"] - exact)
    assert error.max() > 1e-3
    assert np.sqrt((error**2).mean()) < 0.5 * np.sqrt((exact**2).mean())


# What a cell sees


@pytest.mark.parametrize("layers", FIELDS)
def test_gradient_of_a_cell_of_every_layer_reaches_exactly_its_receptive_field(layers):
    """With positive weights and scores nothing cancels and every ReLU is open.

    Example k of the batch asks for the gradient of one cell of layer k.
    """
    module = ContextModule(1, Context(layers))
    fields = FIELDS[layers]
    side, centre = fields[-1] + 4, fields[-1] // 2 + 2
    maps = jnp.ones((len(fields), side, side, 1))
    shapes = jax.eval_shape(module.init, KEY, maps)["params"]
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1 / leaf.shape[0] ** 2), shapes)

    @jax.jit
    @jax.grad
    def gradient(maps):
        _, features = module.apply({"params": params}, maps)
        return sum(features[row.name][k, centre, centre, 0] for k, row in enumerate(module.table))

    reached = np.asarray(gradient(maps))[..., 0] > 0
    distance = np.abs(np.arange(side) - centre)
    for k, field in enumerate(fields):
        near = distance <= field // 2
        np.testing.assert_array_equal(reached[k], np.outer(near, near), err_msg=f"layer {k + 1}")
    analysis = receptive_field.of_stages(module.table)
    assert tuple((field.size, field.stride) for field in analysis) == tuple((s, 1) for s in fields)


# Padding


PADDINGS = ("layer", "once", "mirror", "none")
MAPS = scores(2, 75, 70, 2, seed=3)


@pytest.fixture(scope="module")
def refined():
    """Maps of one module of random weights, by padding; "none" on maps that were padded before."""
    module = ContextModule(2, Context())
    shapes = jax.eval_shape(module.init, KEY, MAPS)
    rng = np.random.default_rng(5)

    def fill(leaf):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.3
        return rng.normal(0, scale, leaf.shape).astype(np.float32)

    variables = jax.tree.map(fill, shapes)

    @cache
    def run(padding):
        apply = jax.jit(ContextModule(2, Context(padding=padding)).apply)
        return lambda maps: np.asarray(apply(variables, maps)[1]["context"])

    return {padding: run(padding)(MAPS) for padding in PADDINGS} | {
        mode: run("none")(np.pad(MAPS, ((0, 0), (33, 33), (33, 33), (0, 0)), mode))
        for mode in ("constant", "reflect")
    }


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_padding_once_is_33_zeros_around_the_map_and_none_after(refined):
    assert refined["once"].shape == MAPS.shape
    assert_close(refined["once"], refined["constant"])


def test_padding_mirror_is_33_mirrored_cells_around_the_map_and_none_after(refined):
    assert refined["mirror"].shape == MAPS.shape
    assert_close(refined["mirror"], refined["reflect"])


def test_padding_none_is_the_interior_of_every_other_and_66_cells_smaller(refined):
    assert refined["none"].shape == (2, 75 - 66, 70 - 66, 2)
    for padding in ("layer", "once", "mirror"):
        assert_close(refined[padding][:, 33:-33, 33:-33], refined["none"])


def test_paddings_differ_at_the_border(refined):
    scale = np.abs(refined["once"]).max()
    edges = {padding: refined[padding][:, 0] for padding in ("layer", "once", "mirror")}
    for one, other in (("layer", "once"), ("layer", "mirror"), ("once", "mirror")):
        assert np.abs(edges[one] - edges[other]).max() > 0.01 * scale


@pytest.mark.parametrize(("layers", "margin"), [(7, 17), (8, 33), (10, 129)])
def test_margin_of_a_module_is_half_its_receptive_field(layers, margin):
    assert surroundings(ContextModule(1, Context(layers, padding="none")).table) == margin
    assert margin == FIELDS[layers][-1] // 2
    for padding in PADDINGS[:2]:
        module = ContextModule(1, Context(layers, padding=padding))
        assert surroundings(module.table) == 0
        (_, features), _ = jax.eval_shape(module.init_with_output, KEY, struct(1, 6, 5, 1))
        assert features["context"].shape == (1, 6, 5, 1)


# What it returns and refuses


def test_module_returns_its_input_every_map_and_the_mean(variables_of):
    module = ContextModule(3, Context(7))
    maps = scores(2, 7, 6, 3)
    logits, features = jax.jit(module.apply)(variables_of(module, maps), maps)
    rows = {row.name for row in module.table}
    assert set(features) == rows | {"front_end", "context", "logits_2d"}
    np.testing.assert_array_equal(features["front_end"], maps)
    for name in ("logits_2d", "ctx_final"):
        np.testing.assert_array_equal(features[name], features["context"])
    mean = np.asarray(features["context"]).mean((1, 2))
    np.testing.assert_allclose(logits, mean, rtol=0, atol=1e-6 * np.abs(mean).max())


def test_bfloat16_module_stores_and_returns_float32():
    module = ContextModule(2, Context(size="large"), dtype=jnp.bfloat16)
    (logits, features), variables = jax.eval_shape(
        lambda key, maps: module.init_with_output(key, maps), KEY, struct(1, 5, 5, 2)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    exact = {"front_end", "context", "logits_2d", "ctx_final"}
    assert {features.pop(name).dtype for name in exact} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in features.values()} == {jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize(
    ("context", "shape", "message"),
    [
        (Context(3), (9, 9, 2), "3 layers: 4 is the least"),
        (Context(size="huge"), (9, 9, 2), "'huge': known: basic, large"),
        (Context(padding="zeros"), (9, 9, 2), "'zeros': known: layer, mirror, none, once"),
        (Context(init="eye"), (9, 9, 2), "'eye': known: filler, he, identity"),
        (Context(), (9, 9, 3), "maps of 2 channels, one a class, and got 3"),
        (Context(padding="none"), (66, 66, 2), "66x66 is too small .* at least 67x67 .* 'none'"),
        (Context(padding="none"), (90, 66, 2), "90x66 is too small .* at least 67x67 .* 'none'"),
        (Context(padding="mirror"), (33, 40, 2), "33x40 is too small .* at least 34x34 .*'mirror'"),
        (Context(7, padding="none"), (34, 34, 2), "34x34 is too small .* at least 35x35"),
    ],
)
def test_module_refuses_what_it_is_not_for(context, shape, message):
    module = ContextModule(2, context)
    with pytest.raises(UserError, match=message) as caught:
        jax.eval_shape(module.init, KEY, struct(1, *shape))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("padding", "least"), [("none", 67), ("mirror", 34), ("once", 1)])
def test_module_takes_the_smallest_map_that_it_names(padding, least):
    module = ContextModule(2, Context(padding=padding))
    (_, features), _ = jax.eval_shape(module.init_with_output, KEY, struct(1, least, least, 2))
    cells = 1 if padding == "none" else least
    assert features["context"].shape == (1, cells, cells, 2)
