"""Batch and state lie where the mesh says, or the user hears what fits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from drn_jax.errors import UserError
from drn_jax.training import sharding
from drn_jax.training.sharding import MeshShape


@pytest.fixture(scope="module")
def mesh():
    """Eight devices, each with examples of its own."""
    return sharding.make_mesh()


@pytest.fixture(scope="module")
def cube():
    return sharding.make_mesh(MeshShape(2, 2, 2))


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (MeshShape(), (8, 1, 1)),
        (MeshShape(-1, 2, 2), (2, 2, 2)),
        (MeshShape(1, -1, 4), (1, 2, 4)),
        (MeshShape(2, 1, -1), (2, 1, 4)),
        (MeshShape(1, 1, 8), (1, 1, 8)),
    ],
    ids=str,
)
def test_the_mesh_uses_every_device_once(shape, sizes):
    mesh = sharding.make_mesh(shape)
    assert mesh.devices.shape == sizes
    assert set(mesh.devices.flat) == set(jax.devices())


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (MeshShape(3, 1, 1), "data 3 x fsdp 1 x spatial 1 does not fit 8 devices: use data 8,"),
        (MeshShape(-1, 1, 3), "use data 8, fsdp 1, spatial 1"),
        (MeshShape(-1, 3, 4), "use data 2, fsdp 1, spatial 4"),
        (MeshShape(4, 1, 1), "use data 8, fsdp 1, spatial 1"),
        (MeshShape(1, 1, 16), "use data 1, fsdp 1, spatial 8"),
        (MeshShape(0, 1, 8), "sizes are 1 or more; one may be -1"),
        (MeshShape(-1, -1, 1), "sizes are 1 or more; one may be -1"),
    ],
    ids=str,
)
def test_a_mesh_that_does_not_fit_is_refused_offering_one_that_does(shape, says):
    with pytest.raises(UserError, match=r"^config\.mesh = ") as caught:
        sharding.make_mesh(shape)
    assert says in str(caught.value)
    offer = [
        int(word.strip(",")) for word in str(caught.value).split() if word.strip(",").isdigit()
    ]
    if "use data" in str(caught.value):
        sharding.make_mesh(MeshShape(*offer[-3:]))


def test_a_batch_lies_split_by_example_and_in_order(mesh):
    batch = {"image": np.arange(16 * 4).reshape(16, 2, 2), "label": np.arange(16)}
    placed = sharding.to_devices(batch, mesh)
    for name, values in batch.items():
        np.testing.assert_array_equal(placed[name], values)
        shards = sorted(placed[name].addressable_shards, key=lambda shard: shard.index[0].start)
        assert len({shard.device for shard in shards}) == 8
        for i, shard in enumerate(shards):
            np.testing.assert_array_equal(shard.data, values[2 * i : 2 * i + 2])


def test_examples_are_split_over_data_and_fsdp_and_rows_over_spatial(cube):
    batch = {
        "image": np.arange(4 * 6 * 5 * 3).reshape(4, 6, 5, 3),
        "mask": np.arange(4 * 6 * 5).reshape(4, 6, 5),
        "label": np.arange(4),
    }
    placed = sharding.to_devices(batch, cube)
    for name, shape in (("image", (1, 3, 5, 3)), ("mask", (1, 3, 5)), ("label", (1,))):
        np.testing.assert_array_equal(placed[name], batch[name])
        assert {shard.data.shape for shard in placed[name].addressable_shards} == {shape}


def test_rows_that_do_not_divide_lie_whole_on_each_device(cube):
    placed = sharding.to_devices({"image": np.zeros((4, 5, 6, 3), np.uint8)}, cube)["image"]
    assert {shard.data.shape for shard in placed.addressable_shards} == {(1, 5, 6, 3)}


def test_large_arrays_are_split_over_fsdp_along_their_longest_axis_that_divides(cube):
    shapes = {
        "kernel": (3, 3, 64, 128),
        "tied": (3, 3, 64, 64),
        "odd": (3, 3, 64, 127),
        "indivisible": (5, 5, 41, 1),
        "small": (1, 1, 16, 16),
        "step": (),
    }
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    found = {name: where.spec for name, where in sharding.of_state(cube, tree).items()}
    assert found == {
        "kernel": PartitionSpec(None, None, None, "fsdp"),
        "tied": PartitionSpec(None, None, None, "fsdp"),
        "odd": PartitionSpec(None, None, "fsdp", None),
        "indivisible": PartitionSpec(),
        "small": PartitionSpec(),
        "step": PartitionSpec(),
    }


@pytest.mark.parametrize(
    ("size", "parts", "offer"),
    [
        (12, 1, "use 8 or 16"),
        (3, 1, "use 8"),
        (0, 1, "use 8"),
        (-8, 1, "use 8"),
        (50, 1, "use 48 or 56"),
        (24, 2, "use 16 or 32"),
        (8, 3, "use 24"),
    ],
)
def test_a_batch_that_cannot_be_split_is_refused_offering_sizes_that_fit(mesh, size, parts, offer):
    with pytest.raises(UserError) as caught:
        sharding.check_batch(size, parts, mesh)
    message = str(caught.value)
    assert message.startswith(f"config.batch_size = {size} can't be split over 8 devices")
    assert (f", in {parts} parts: " in message) == (parts > 1)
    assert message.endswith(offer)
    offered = [int(word) for word in offer.split() if word.isdigit()]
    for fitting in offered:
        sharding.check_batch(fitting, parts, mesh)


@pytest.mark.parametrize(
    ("size", "margin", "says"),
    [
        (
            90,
            0,
            "config.data.crop = 90 rows can't be split over config.mesh.spatial = 4: use 88 or",
        ),
        (91, 0, "use 88 or 92"),
        (89, 186, "= 89, 461 rows with its margin, can't be split"),
    ],
)
def test_rows_that_cannot_be_split_are_refused_offering_sizes_that_fit(size, margin, says):
    mesh = sharding.make_mesh(MeshShape(2, 1, 4))
    with pytest.raises(UserError) as caught:
        sharding.check_rows("config.data.crop", size, margin, 1, mesh)
    assert says in str(caught.value)
    offers = str(caught.value).split("use ")[1].split(" or ")
    for fitting in offers:
        sharding.check_rows("config.data.crop", int(fitting), margin, 1, mesh)
    sharding.check_rows("config.data.crop", size, margin, 1, sharding.make_mesh())


def test_rows_that_leave_a_device_without_a_cell_are_refused_and_not_split():
    mesh = sharding.make_mesh(MeshShape(1, 1, 8))
    says = (
        r"crop = 56 rows are too few for config\.mesh\.spatial = 8: use 64 or more, .* spatial 7$"
    )
    with pytest.raises(UserError, match=says):
        sharding.check_rows("config.data.crop", 56, 0, 8, mesh)
    sharding.check_rows("config.data.crop", 64, 0, 8, mesh)
    sharding.check_rows("config.data.crop", 4, 0, 8, sharding.make_mesh())
    for rows, split in ((56, None), (64, "spatial")):
        spec = sharding.of_batch(mesh, (2, rows, 32, 3), stride=8).spec
        assert (spec[1] if len(spec) > 1 else None) == split


@pytest.mark.parametrize(("size", "rounded"), [(0, 8), (1, 8), (8, 8), (9, 16), (50, 56)])
def test_validation_batches_are_rounded_up_to_the_next_that_splits(mesh, size, rounded):
    assert sharding.round_up(size, mesh) == rounded


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (MeshShape(8, 1, 1), [(0, 2), (1, 2)]),
        (MeshShape(2, 2, 2), [(0, 2), (1, 2)]),
        (MeshShape(1, 2, 4), [(0, 2), (1, 2)]),
        (MeshShape(1, 1, 8), [(0, 1), (0, 1)]),
    ],
    ids=str,
)
def test_processes_share_the_batch_in_the_order_of_their_devices(shape, expected):
    first_half = set(jax.devices()[:4])

    def process_of(device):
        return 0 if device in first_half else 1

    mesh = sharding.make_mesh(shape)
    found = [sharding.share(mesh, process, process_of) for process in range(2)]
    assert [tuple(share) for share in found] == expected


def test_processes_that_would_take_examples_here_and_there_are_refused():
    odd = set(jax.devices()[1::2])
    with pytest.raises(UserError, match=r"config\.mesh: 2 processes can't share the batch"):
        sharding.share(sharding.make_mesh(), 0, lambda device: int(device in odd))
