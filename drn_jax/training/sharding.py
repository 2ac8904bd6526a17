"""One program on one device or many: the mesh, and where state and batch lie on it.

The batch is split over the mesh axis `data`, the state is on every device; `jit` does the rest.
Batch norm therefore sees the whole batch, and a run on eight devices computes what one would.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from drn_jax.errors import UserError


def make_mesh() -> Mesh:
    """All devices along one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """The first axis, N, over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """This process's share of a batch, as arrays that span the mesh."""
    sharding = by_example(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise UserError unless every device gets the same number of examples, at least one."""
    devices = mesh.shape["data"]
    if batch_size <= 0 or batch_size % devices:
        fitting = sorted({max(batch_size // devices + extra, 1) for extra in (0, 1)})
        offers = " or ".join(str(devices * n) for n in fitting)
        raise UserError(
            f"config.batch_size = {batch_size} can't be split over {devices} devices: use {offers}"
        )


def round_up(batch_size: int, mesh: Mesh) -> int:
    """The next batch size that every device gets an equal share of."""
    devices = mesh.shape["data"]
    return -(-max(batch_size, 1) // devices) * devices
