"""The network is the chain of blocks that its table spells out, written out here by hand."""

import jax
import numpy as np
import pytest

from drn_jax.models.layers import dilated_conv
from drn_jax.models.resnet import ResidualNetwork
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
    network = ResidualNetwork(STAGES, num_classes=5)
    variables = variables_of(network, images)
    logits, features = jax.jit(network.apply)(variables, images)
    expected = by_hand(variables, images)
    assert set(features) == set(expected)
    for name, feature in features.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(feature / scale, expected[name] / scale, atol=1e-5, err_msg=name)
    mean = expected["logits_2d"].mean((1, 2))
    np.testing.assert_allclose(logits, mean, atol=1e-5 * np.abs(mean).max())
