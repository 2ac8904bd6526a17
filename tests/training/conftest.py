"""A network of four convolutions, so that a compilation takes a second."""

import jax
import pytest

from drn_jax.models.network import Network
from drn_jax.models.stages import Stage
from drn_jax.training import optim, state

STAGES = (
    Stage("stem", "conv", 6, kernel=3, stride=2),
    Stage("level1", "basic", 8, stride=2, dilation=2),
)


def make_model(classes=3, **options):
    return Network(STAGES, num_classes=classes, **options)


@pytest.fixture
def model():
    """Output stride 4, three classes; `model(5)` has five, `model(dtype=...)` another dtype."""
    return make_model


@pytest.fixture(scope="session")
def fresh_state():
    """`TrainState` of the network for images of 16x16: `fresh_state(seed)`, a copy each time."""
    optimizer = optim.sgd(lambda _: 0.1, momentum=0.9, weight_decay=1e-4)
    draw = jax.jit(lambda key: state.init(make_model(), optimizer, key, (16, 16, 3)))
    return lambda seed=0: draw(jax.random.key(seed))
