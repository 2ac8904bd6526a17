"""The network is the chain of blocks that its table spells out, written out here by hand."""

import jax
import numpy as np
import pytest

from drn_jax.models.convolution import dilated_conv
from drn_jax.models.layers import max_pool
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage

STAGES = (
    Stage("stem", "conv", 4, kernel=7),
    Stage("level1", "basic", 4),
    Stage("level2", "basic", 6, stride=2),
    Stage("level3", "bottleneck", 3, 2, dilation=2),
    Stage("level4", "basic", 12, dilation=2, residual=False),
)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(2, 9, 10, 3)).astype(np.float32)


def by_hand(variables, x):
    """Every map of the network of STAGES in eval mode."""
    params, statistics = variables["params"], variables["batch_stats"]

    def conv_norm(x, level, block, conv, norm, padding=0, stride=1, dilation=1):
        kernel = params[level][block][conv]["kernel"]
        y = dilated_conv(x, kernel, stride=stride, dilation=dilation, padding=padding)
        p, s = params[level][block][norm], statistics[level][block][norm]
        return (np.asarray(y) - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]

    def relu(x):
        return np.maximum(x, 0)

    at = ("stem", "block1")
    x = stem = relu(conv_norm(x, *at, "conv1", "norm1", 3))

    at = ("level1", "block1")
    y = relu(conv_norm(x, *at, "conv1", "norm1", 1))
    x = level1 = relu(conv_norm(y, *at, "conv2", "norm2", 1) + x)

    at = ("level2", "block1")
    y = relu(conv_norm(x, *at, "conv1", "norm1", 1, stride=2))
    shortcut = conv_norm(x, *at, "projection", "projection_norm", stride=2)
    x = level2 = relu(conv_norm(y, *at, "conv2", "norm2", 1) + shortcut)

    at = ("level3", "block1")
    y = relu(conv_norm(x, *at, "conv1", "norm1"))
    y = relu(conv_norm(y, *at, "conv2", "norm2", 2, dilation=2))
    shortcut = conv_norm(x, *at, "projection", "projection_norm")
    x = relu(conv_norm(y, *at, "conv3", "norm3") + shortcut)
    at = ("level3", "block2")
    y = relu(conv_norm(x, *at, "conv1", "norm1"))
    y = relu(conv_norm(y, *at, "conv2", "norm2", 2, dilation=2))
    x = level3 = relu(conv_norm(y, *at, "conv3", "norm3") + x)

    at = ("level4", "block1")
    y = relu(conv_norm(x, *at, "conv1", "norm1", 2, dilation=2))
    level4 = relu(conv_norm(y, *at, "conv2", "norm2", 2, dilation=2))

    head = params["head"]
    logits_2d = level4 @ head["kernel"][0, 0] + head["bias"]
    return {
        "stem": stem,
        "level1": level1,
        "level2": level2,
        "level3": level3,
        "level4": level4,
        "logits_2d": logits_2d,
    }


def test_every_map_equals_the_chain_of_blocks_written_out(images, variables_of):
    network = Network(STAGES, num_classes=5)
    variables = variables_of(network, images)
    logits, features = jax.jit(network.apply)(variables, images)
    expected = by_hand(variables, images)
    assert set(features) == set(expected)
    for name, feature in features.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(feature / scale, expected[name] / scale, atol=1e-5, err_msg=name)
    mean = expected["logits_2d"].mean((1, 2))
    np.testing.assert_allclose(logits, mean, atol=1e-5 * np.abs(mean).max())


PLAIN = (
    Stage("conv1", "plain", 4, padding=0),
    Stage("pool1", "max_pool", 4, kernel=2, stride=2, padding=0, ceil=True),
    Stage("conv2", "plain", 3, dilation=2, relu=False),
    Stage("fc3", "plain", 6, kernel=2, padding=0, dropout=0.5),
)


def test_plain_rows_are_convolutions_with_biases_and_relu_where_they_say(images, variables_of):
    network = Network(PLAIN, num_classes=5)
    variables = variables_of(network, images)
    assert set(variables) == {"params"}
    params = variables["params"]

    def conv(x, name, **geometry):
        return (
            np.asarray(dilated_conv(x, params[name]["kernel"], **geometry)) + params[name]["bias"]
        )

    expected = {"conv1": np.maximum(conv(images, "conv1"), 0)}
    expected["pool1"] = np.asarray(max_pool(expected["conv1"], 2, 2, 0, ceil=True))
    expected["conv2"] = conv(expected["pool1"], "conv2", dilation=2, padding=2)
    expected["fc3"] = np.maximum(conv(expected["conv2"], "fc3"), 0)
    expected["logits_2d"] = conv(expected["fc3"], "head")
    logits, features = jax.jit(network.apply)(variables, images)
    assert set(features) == set(expected)
    assert expected["conv2"].min() < 0
    for name, feature in features.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(feature / scale, expected[name] / scale, atol=1e-5, err_msg=name)
    mean = expected["logits_2d"].mean((1, 2))
    np.testing.assert_allclose(logits, mean, atol=1e-5 * np.abs(mean).max())


def test_table_of_a_network_ends_with_its_classifier():
    network = Network(PLAIN, num_classes=5)
    assert network.table[:-1] == PLAIN
    assert (network.table[-1].name, network.table[-1].channels) == ("head", 5)


def dropping(share):
    return Network((Stage("fc", "plain", 500, kernel=1, dropout=share),), num_classes=2)


ONES = np.ones((4, 3, 3, 3), np.float32)


@pytest.fixture(scope="module")
def dropped():
    """The map behind dropout: in evaluation, and in training by key, for a share of 0.25."""
    network = dropping(0.25)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), ONES)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4"), shapes)

    @jax.jit
    def train(key):
        return network.apply(variables, ONES, train=True, rngs={"dropout": key})[1]["fc"]

    evaluated = np.asarray(network.apply(variables, ONES)[1]["fc"])
    return evaluated, lambda seed: np.asarray(train(jax.random.key(seed)))


def test_dropout_in_training_drops_its_share_and_scales_the_rest(dropped):
    evaluated, train = dropped
    alive = evaluated > 0
    assert alive.mean() > 0.2
    kept = train(0) != 0
    assert not kept[~alive].any()
    np.testing.assert_allclose(train(0)[kept], evaluated[kept] / 0.75, rtol=1e-6)
    count = alive.sum()
    assert abs(kept[alive].mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / count)


def test_dropout_is_one_draw_of_its_key(dropped):
    _, train = dropped
    np.testing.assert_array_equal(train(1), train(1))
    assert np.any(train(1) != train(2))


def test_dropout_is_off_in_evaluation_and_for_share_0_and_then_needs_no_key(variables_of):
    with_dropout, without = dropping(0.25), dropping(0.0)
    variables = variables_of(with_dropout, ONES)
    expected, _ = without.apply(variables, ONES)
    np.testing.assert_array_equal(with_dropout.apply(variables, ONES)[0], expected)
    np.testing.assert_array_equal(without.apply(variables, ONES, train=True)[0], expected)
