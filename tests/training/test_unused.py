"""What converted weights carry besides the network goes through training untouched."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from drn_jax.errors import UserError
from drn_jax.models.inputs import Preprocess
from drn_jax.tasks import Classification
from drn_jax.training import optim, steps
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.sharding import placed

UNUSED = {"level7": {"block1": {"projection": {"kernel": np.arange(6, dtype=np.float32)}}}}


@pytest.fixture
def here():
    return SingleDeviceSharding(jax.devices()[0])


@pytest.fixture
def carrying(fresh_state):
    return dataclasses.replace(fresh_state(), unused=jax.tree.map(jnp.asarray, UNUSED))


def kernel(variables):
    return np.asarray(variables["unused"]["level7"]["block1"]["projection"]["kernel"])


def test_training_neither_moves_nor_decays_it(model, carrying):
    optimizer = optim.sgd(lambda _: 0.1, momentum=0.9, weight_decay=0.5)
    step = jax.jit(
        steps.make_train_step(
            model(),
            Classification(3),
            optimizer,
            lambda batch: Preprocess((0.5,) * 3, (0.2,) * 3)(batch["image"]),
        )
    )
    batch = {"image": jnp.ones((2, 16, 16, 3), jnp.uint8), "label": jnp.array([0, 2])}
    after, _ = step(carrying, batch)
    assert np.array_equal(kernel(after.variables), np.arange(6))
    assert not np.array_equal(
        after.params["head"]["kernel"], np.asarray(carrying.params["head"]["kernel"])
    )


def test_a_checkpoint_brings_it_back_with_the_state(carrying, here, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(carrying, {})
        plain = dataclasses.replace(carrying, unused={})
        restored = checkpoints.restore(0, placed(jax.eval_shape(lambda: plain), here))
    assert np.array_equal(kernel(restored.variables), np.arange(6))


def test_weights_alone_are_transferred_but_not_resumed(carrying, here, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_weights(carrying.variables, {"config": {}})
        variables, fresh_head = checkpoints.transfer(
            0, {"params": carrying.params, "batch_stats": carrying.batch_stats}
        )
        assert not fresh_head
        assert np.array_equal(kernel(variables), np.arange(6))
        with pytest.raises(UserError, match=r"weights alone.*--config\.init_from"):
            checkpoints.restore(0, placed(jax.eval_shape(lambda: carrying), here))


def test_a_save_under_way_does_not_see_the_steps_that_follow(carrying, here, tmp_path):
    """The next step takes over the buffers of the state that is being written."""
    before = jax.device_get(carrying)
    overwrite = jax.jit(
        lambda s: jax.tree.map(lambda a: a * 0 - 7, s),
        donate_argnums=0,
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(carrying, {})
        jax.block_until_ready(overwrite(carrying))
        restored = checkpoints.restore(0, placed(jax.eval_shape(lambda: before), here))
    assert jax.tree.all(jax.tree.map(np.array_equal, jax.device_get(restored), before))
