"""The networks by name: what they hold, what they return, and what each cell sees."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.models import MODELS, create, table
from drn_jax.models.resnet import ResidualNetwork
from drn_jax.models.stages import Conv, Stage, blocks, output_stride

PARAMETERS = {
    "resnet_18": 11_689_512,
    "resnet_34": 21_797_672,
    "resnet_50": 25_557_032,
    "resnet_101": 44_549_160,
    "resnet_152": 60_192_808,
    "drn_a_18": 11_689_512,
    "drn_a_34": 21_797_672,
    "drn_a_50": 25_557_032,
    "drn_b_26": 21_126_584,
    "drn_c_26": 21_126_584,
    "drn_c_42": 31_234_744,
    # The published checkpoint has 1,049,600 more: a projection that is computed and never added.
    "drn_c_58": 40_542_008,
    "drn_d_22": 16_393_752,
    "drn_d_24": 21_114_392,
    "drn_d_38": 26_501_912,
    "drn_d_40": 31_222_552,
    "drn_d_54": 35_809_176,
    "drn_d_56": 40_529_816,
    "drn_d_105": 54_801_304,
    "drn_d_107": 59_521_944,
}

RECEPTIVE_FIELDS = {
    "drn_c_26": (11, 17, 45, 101, 229, 485, 549, 581),
    "drn_d_22": (9, 11, 39, 95, 223, 479, 511, 527),
}
"""Pixels a side at the output of levels 1 to 8, arithmetic from the papers' tables."""


@cache
def variable_shapes(name):
    return jax.eval_shape(create(name).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def test_every_model_is_in_the_table_of_parameter_counts():
    assert set(MODELS) == set(PARAMETERS)


@pytest.mark.parametrize("name", MODELS)
def test_model_has_its_exact_published_number_of_parameters(name):
    leaves = jax.tree.leaves(variable_shapes(name)["params"])
    assert sum(leaf.size for leaf in leaves) == PARAMETERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_table_under_its_names(name):
    expected, channels = {}, 3
    for stage in table(name):
        for block in blocks(stage, channels):
            convs = [*block.path]
            if isinstance(block.shortcut, Conv):
                convs.append(block.shortcut)
            for conv in convs:
                at = f"{stage.name}/{block.name}"
                kernel = (conv.kernel, conv.kernel, conv.inputs, conv.outputs)
                expected[f"{at}/{conv.name}/kernel"] = kernel
                expected[f"{at}/{conv.norm}/scale"] = (conv.outputs,)
                expected[f"{at}/{conv.norm}/bias"] = (conv.outputs,)
        channels = stage.outputs
    expected |= {"head/kernel": (1, 1, channels, 1000), "head/bias": (1000,)}
    assert {k: v.shape for k, v in by_path(variable_shapes(name)["params"]).items()} == expected


@pytest.mark.parametrize("name", MODELS)
def test_no_parameter_is_named_by_automatic_numbering(name):
    paths = by_path(variable_shapes(name))
    assert not [path for path in paths if re.search(r"[A-Z]|_\d+(/|$)", path)]


@pytest.mark.parametrize("name", MODELS)
def test_class_map_has_a_cell_for_every_output_stride_begun(name):
    images = jax.ShapeDtypeStruct((2, 45, 40, 3), jnp.float32)
    logits, features = jax.eval_shape(create(name).apply, variable_shapes(name), images)
    assert logits.shape == (2, 1000)
    stride = output_stride(table(name))
    assert features["logits_2d"].shape == (2, -(-45 // stride), -(-40 // stride), 1000)
    assert set(features) == {*(stage.name for stage in table(name)), "logits_2d"}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 8), (9, 16), (17, 25)])
def test_class_map_is_rounded_up_at_every_size(height, width):
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    shapes = variable_shapes("drn_d_22")
    _, features = jax.eval_shape(create("drn_d_22").apply, shapes, images)
    assert features["logits_2d"].shape == (1, -(-height // 8), -(-width // 8), 1000)


@pytest.fixture(scope="module")
def small():
    return create("drn_d_22", num_classes=5, width=1 / 16)


IMAGES = np.random.default_rng(1).normal(size=(2, 33, 20, 3)).astype(np.float32)


def test_logits_are_the_mean_of_the_class_map(small, variables_of):
    logits, features = jax.jit(small.apply)(variables_of(small, IMAGES), IMAGES)
    assert features["logits_2d"].shape == (2, 5, 3, 5)
    mean = np.asarray(features["logits_2d"]).mean((1, 2))
    np.testing.assert_allclose(logits, mean, rtol=1e-5, atol=1e-5 * np.abs(mean).max())


def test_training_moves_every_batch_statistic_and_no_parameter(small, variables_of):
    variables = variables_of(small, IMAGES)

    @jax.jit
    def train(variables):
        _, updates = small.apply(variables, IMAGES, train=True, mutable=True)
        return updates

    after = jax.device_get(train(variables))
    assert set(after) == {"params", "batch_stats"}
    jax.tree.map(np.testing.assert_array_equal, after["params"], variables["params"])
    old, new = by_path(variables["batch_stats"]), by_path(after["batch_stats"])
    assert set(old) == set(new)
    assert not [path for path in old if np.array_equal(old[path], new[path])]


def test_running_variance_option_reaches_every_norm(variables_of):
    """At 2 images of 1 pixel an unbiased variance is twice the biased one, at every layer."""
    images = np.random.default_rng(2).normal(size=(2, 1, 1, 3)).astype(np.float32)
    stages = (Stage("stem", "conv", 4), Stage("level1", "bottleneck", 2))
    increments = {}
    for kind in ("biased", "unbiased"):
        model = ResidualNetwork(stages, num_classes=2, running_variance=kind)
        variables = variables_of(model, images)
        run = partial(model.apply, train=True, mutable=["batch_stats"])
        after = by_path(jax.jit(run)(variables, images)[1]["batch_stats"])
        before = by_path(variables["batch_stats"])
        increments[kind] = [after[k] - 0.9 * before[k] for k in after if k.endswith("/var")]
    assert len(increments["biased"]) == 5
    for biased, unbiased in zip(*increments.values(), strict=True):
        np.testing.assert_allclose(unbiased, 2 * biased, rtol=1e-4, atol=1e-6)
        assert biased.max() > 1e-3


def test_bfloat16_model_computes_in_bfloat16_and_stores_and_classifies_in_float32():
    model = create("drn_c_26", num_classes=5, width=1 / 16, dtype=jnp.bfloat16)
    images = jnp.zeros((1, 16, 16, 3))
    (logits, features), variables = jax.eval_shape(
        lambda key: model.init_with_output(key, images), jax.random.key(0)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert features.pop("logits_2d").dtype == logits.dtype == jnp.float32
    assert {f.dtype for f in features.values()} == {jnp.dtype("bfloat16")}


def test_class_map_costs_nothing_where_it_is_not_used():
    """The compiled program that returns it does the head's work at each of 8 x 8 cells more."""
    stages = (Stage("stem", "conv", 4), Stage("level1", "basic", 8, stride=2))
    model = ResidualNetwork(stages, num_classes=100)
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(images.shape))

    def flops(returned):
        program = jax.jit(lambda v, x: returned(*model.apply(v, x)))
        return program.lower(variables, images).compile().cost_analysis()["flops"]

    dense = flops(lambda logits, features: (logits, features["logits_2d"]))
    pooled = flops(lambda logits, features: logits)
    work = 8 * 8 * 100 * (2 * 8 + 1)
    assert dense - pooled == pytest.approx(work, rel=0.05)


def test_unknown_model_is_refused_with_the_nearest_names():
    with pytest.raises(UserError, match=r"unknown model 'drn_c_27': did you mean .*drn_c_26"):
        create("drn_c_27")


def test_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no option 'running_varience'.*running_variance\?"):
        create("drn_c_26", running_varience="biased")
    with pytest.raises(UserError, match="no option 'stages'"):
        create("drn_c_26", stages=())


@pytest.mark.parametrize("width", [0, -0.5, float("nan"), float("inf")])
def test_width_that_is_no_positive_number_is_refused(width):
    with pytest.raises(UserError, match="width"):
        create("drn_c_26", width=width)


@pytest.mark.parametrize("name", RECEPTIVE_FIELDS)
def test_gradient_of_a_cell_reaches_exactly_its_receptive_field(name):
    """With positive weights nothing cancels, so the gradient is 0 only where there is no path.

    The image is one pixel wide: the geometry is the same along both axes, and one is enough.
    Example k of the batch asks for the gradient of one cell of level k, all in one pass.
    """
    sizes = RECEPTIVE_FIELDS[name]
    model = create(name, num_classes=1, width=1 / 128)
    height = 2 * (sizes[-1] // 2 + 8) + 1
    images = np.ones((len(sizes), height, 1, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))

    def positive(path, leaf):
        values = {"kernel": 1 / np.prod(leaf.shape[1:-1], initial=1.0), "scale": 1.0, "var": 1.0}
        return np.full(leaf.shape, values.get(path[-1].key, 0.0), leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(positive, shapes)
    strides = (1, 2, 4, 8, 8, 8, 8, 8)
    cells = [height // 2 // stride for stride in strides]

    @jax.jit
    @jax.grad
    def gradient(images):
        _, features = model.apply(variables, images)
        levels = [features[f"level{k + 1}"] for k in range(len(sizes))]
        return sum(level[k, cells[k], 0, :].sum() for k, level in enumerate(levels))

    reached = np.asarray(gradient(images))[:, :, 0, :].min(-1) > 0
    for k, size in enumerate(sizes):
        centre = cells[k] * strides[k]
        expected = np.abs(np.arange(height) - centre) <= size // 2
        np.testing.assert_array_equal(reached[k], expected, err_msg=f"level{k + 1}")
        assert expected.sum() == size
