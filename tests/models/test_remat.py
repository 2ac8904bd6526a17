"""A backward pass that recomputes what it needs computes the same from less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax import parts
from drn_jax.config import Model
from drn_jax.errors import UserError
from drn_jax.models import create
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage

TABLE = (
    Stage("stem", "conv", 4),
    Stage("level1", "basic", 4, 3),
    Stage("level2", "bottleneck", 2, 2, dilation=2),
    Stage("level3", "basic", 8, 3, dilation=2),
)
IMAGES = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
WAYS = ("none", "level", "block")

# XLA drops on CPUs what keeps a compiler from merging the second computation with the first.
KEPT = {"xla_backend_optimization_level": 0, "xla_disable_hlo_passes": "cse_barrier_expander"}


@pytest.fixture(scope="module")
def compiled(variables_of):
    """By way of recomputing: the compiled gradient of a network, and its variables."""
    found = {}
    for way in WAYS:
        network = Network(TABLE, num_classes=2, remat=way)
        variables = variables_of(network, IMAGES)

        def step(variables, network=network):
            def loss(params):
                (logits, features), updates = network.apply(
                    {**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"]
                )
                seen = jnp.square(features["level1"]).mean()
                return jnp.square(logits).sum() + seen, (features, updates["batch_stats"])

            return jax.value_and_grad(loss, has_aux=True)(variables["params"])

        found[way] = jax.jit(step).lower(variables).compile(KEPT), variables
    return found


@pytest.mark.parametrize("way", WAYS[1:])
def test_parameters_maps_statistics_and_gradients_are_the_same(compiled, way):
    variables = compiled[way][1]
    jax.tree.map(np.testing.assert_array_equal, variables, compiled["none"][1])
    (found, expected) = (compiled[w][0](variables) for w in (way, "none"))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )


def test_memory_falls_with_what_is_recomputed(compiled):
    none, level, block = (compiled[w][0].memory_analysis().temp_size_in_bytes for w in WAYS)
    assert level < 0.7 * none
    assert block < 0.9 * level


def test_initial_parameters_are_the_same():
    def draw(way):
        network = Network((Stage("stem", "conv", 2, kernel=1),), num_classes=2, remat=way)
        return network.init(jax.random.key(0), IMAGES[:, :2, :2])

    for way in WAYS[1:]:
        jax.tree.map(np.testing.assert_array_equal, draw(way), draw("none"))


def test_a_configuration_sets_it():
    assert parts.network(Model("drn_d_22"), 3).remat == "none"
    assert parts.network(Model("drn_d_22", remat="block"), 3).remat == "block"


@pytest.mark.parametrize(
    ("name", "way", "message"),
    [
        ("drn_d_22", "blocks", "config.model.remat = 'blocks': did you mean .*block"),
        ("vgg_16", "level", "config.model.remat = level: vgg_16 has no residual levels"),
        ("dilation7_kitti", "block", "dilation7_kitti has no residual levels"),
        ("context", "block", "context has no residual levels"),
    ],
)
def test_recomputing_that_no_network_or_not_this_one_has_is_refused(name, way, message):
    with pytest.raises(UserError, match=message) as caught:
        create(name, remat=way)
    assert "\n" not in str(caught.value)
