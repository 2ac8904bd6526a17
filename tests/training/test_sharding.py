"""Batches are split evenly over all devices, or the user hears which sizes fit."""

import jax
import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.training import sharding


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh()


def test_the_mesh_holds_every_device_along_one_axis(mesh):
    assert dict(mesh.shape) == {"data": 8}
    assert set(mesh.devices.flat) == set(jax.devices())


def test_a_batch_lies_split_by_example_and_in_order(mesh):
    batch = {"image": np.arange(16 * 4).reshape(16, 2, 2), "label": np.arange(16)}
    placed = sharding.to_devices(batch, mesh)
    for name, values in batch.items():
        np.testing.assert_array_equal(placed[name], values)
        shards = sorted(placed[name].addressable_shards, key=lambda shard: shard.index[0].start)
        assert len({shard.device for shard in shards}) == 8
        for i, shard in enumerate(shards):
            np.testing.assert_array_equal(shard.data, values[2 * i : 2 * i + 2])


@pytest.mark.parametrize(
    ("size", "offer"),
    [(12, "use 8 or 16"), (3, "use 8"), (0, "use 8"), (-8, "use 8"), (50, "use 48 or 56")],
)
def test_a_batch_that_cannot_be_split_is_refused_offering_sizes_that_fit(mesh, size, offer):
    with pytest.raises(UserError) as caught:
        sharding.check_batch_size(size, mesh)
    message = str(caught.value)
    assert message.startswith(f"config.batch_size = {size} can't be split over 8 devices")
    assert message.endswith(offer)
    offered = [int(word) for word in offer.split() if word.isdigit()]
    for fitting in offered:
        sharding.check_batch_size(fitting, mesh)


@pytest.mark.parametrize(("size", "rounded"), [(0, 8), (1, 8), (8, 8), (9, 16), (50, 56)])
def test_validation_batches_are_rounded_up_to_the_next_that_splits(mesh, size, rounded):
    assert sharding.round_up(size, mesh) == rounded
