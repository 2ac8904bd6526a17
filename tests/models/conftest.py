"""Random variables for a module without running its initialisation, which is slow to compile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def random_variables(module, *inputs, seed=0):
    """What `module.init(key, *inputs)` would return, by shape, filled with NumPy's numbers.

    `inputs` are arrays or shapes of float32 images. Kernels keep the scale of what they convolve;
    scales and variances lie around 1, biases and means around 0, none of them exactly there.
    """
    inputs = [jnp.zeros(x) if isinstance(x, tuple) else x for x in inputs]
    shapes = jax.eval_shape(lambda key: module.init(key, *inputs), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif name in ("bias", "mean"):
            values = rng.normal(0, 0.1, leaf.shape)
        else:
            values = rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        return np.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture
def variables_of():
    return random_variables


@pytest.fixture(scope="module")
def variables_of_module():
    """`variables_of` for fixtures that a whole module shares."""
    return random_variables
