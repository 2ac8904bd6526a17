"""One program on one device or many: the mesh, and where state and batch lie on it.

The mesh has three axes. Examples are split over `data` and `fsdp`, rows of images over `spatial`,
parameters and what the optimiser keeps of them over `fsdp`; `jit` finds the communication. Batch
norm therefore sees the whole batch, and every mesh computes what one device would.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from drn_jax.errors import UserError

AXES = ("data", "fsdp", "spatial")
BATCH = ("data", "fsdp")
"""The axes that examples are split over."""

LEAST_SPLIT = 1024
"""Numbers in the smallest array that is split over `fsdp`: below, sending costs more than it
saves."""


@dataclass(frozen=True)
class MeshShape:
    """How many devices lie along each axis of the mesh; -1, for one of them: all that are left."""

    data: int = -1
    """Each takes examples of its own, and keeps all parameters."""
    fsdp: int = 1
    """Each takes examples of its own, and keeps a part of the parameters and of the optimiser's
    state."""
    spatial: int = 1
    """Each takes some rows of every image; neighbours exchange what their convolutions reach."""


class Share(NamedTuple):
    """Which part of every batch this process makes."""

    host: int
    hosts: int


WHOLE = Share(0, 1)
"""Of a process on its own."""


def make_mesh(shape: MeshShape = MeshShape(), devices: Any = None) -> Mesh:
    """The devices, by default all of all processes, as a mesh.

    Raises: UserError for a shape that does not use up the devices, offering one that does.
    """
    count = len(devices) if devices is not None else jax.device_count()
    sizes = [getattr(shape, axis) for axis in AXES]
    named = " x ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise UserError(f"config.mesh = {named}: sizes are 1 or more; one may be -1, for the rest")
    given = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and count % given == 0:
        sizes[sizes.index(-1)] = count // given
    elif given != count or -1 in sizes:
        spatial, fsdp = gcd(max(shape.spatial, 1), count), max(shape.fsdp, 1)
        fsdp = gcd(fsdp, count // spatial)
        raise UserError(
            f"config.mesh = {named} does not fit {_devices(count)}: use data "
            f"{count // spatial // fsdp}, fsdp {fsdp}, spatial {spatial}"
        )
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def described(mesh: Mesh) -> str:
    """What the mesh is made of, in words."""
    kind = mesh.devices.flat[0].device_kind
    split = [f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1]
    processes = len({device.process_index for device in mesh.devices.flat})
    words = [f"{mesh.size} x {kind}"]
    words += [f"of {processes} processes"] if processes > 1 else []
    words += [f"as {' x '.join(split)}"] if split else []
    return " ".join(words)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def of_batch(mesh: Mesh, shape: tuple[int, ...], stride: int = 1) -> NamedSharding:
    """Of one array of a batch, [N, ...] or [N, H, W, ...]: examples split over `data` and `fsdp`,
    rows over `spatial`, where they divide, and give each device a cell of the class map at least:
    one for every `stride` rows (see `check_rows`)."""
    parts = mesh.shape["spatial"]
    rows = len(shape) > 2 and shape[1] % parts == 0 and shape[1] >= parts * stride
    return NamedSharding(mesh, PartitionSpec(BATCH, "spatial") if rows else PartitionSpec(BATCH))


def of_state(mesh: Mesh, abstract: Any) -> Any:
    """Of every array of a pytree of parameters, or of a whole `TrainState`: its longest axis that
    divides is split over `fsdp`, the last of equals; small arrays lie whole everywhere."""

    def place(array: Any) -> NamedSharding:
        parts = mesh.shape["fsdp"]
        fitting = [a for a, size in enumerate(array.shape) if size % parts == 0]
        if parts == 1 or array.size < LEAST_SPLIT or not fitting:
            return replicated(mesh)
        longest = max(fitting, key=lambda axis: (array.shape[axis], axis))
        spec = ["fsdp" if axis == longest else None for axis in range(len(array.shape))]
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(place, abstract)


def placed(abstract: Any, shardings: Any) -> Any:
    """Shapes and dtypes of a pytree that also say where the arrays lie; `shardings` is a pytree
    like it, or one sharding for all."""
    if isinstance(shardings, jax.sharding.Sharding):
        one = shardings
        shardings = jax.tree.map(lambda _: one, abstract)
    return jax.tree.map(
        lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), abstract, shardings
    )


def share(
    mesh: Mesh,
    process: int | None = None,
    process_of: Callable[[Any], int] = lambda device: device.process_index,
) -> Share:
    """The part of every batch that the devices of a process, by default of this one, take.

    Processes whose devices take the same examples, different rows of them, have the same share.

    Raises: UserError if the mesh lies so that a process takes examples here and there.
    """
    batch = _batch_parts(mesh)
    where = NamedSharding(mesh, PartitionSpec(BATCH))
    places = where.devices_indices_map((batch,))
    parts: dict[int, set[int]] = {}
    for device, (part,) in places.items():
        parts.setdefault(process_of(device), set()).add(part.start or 0)
    mine = parts[jax.process_index() if process is None else process]
    even = all(len(p) == len(mine) and min(p) % len(mine) == 0 for p in parts.values())
    if not even or any(max(p) - min(p) + 1 != len(p) for p in parts.values()):
        raise UserError(
            f"config.mesh: {len(parts)} processes can't share the batch of this mesh evenly; let "
            "the devices of one process divide data * fsdp, or the other way round"
        )
    return Share(min(mine) // len(mine), batch // len(mine))


def to_devices(batch: Mapping[str, np.ndarray], mesh: Mesh, stride: int = 1) -> dict[str, Any]:
    """This process's share of a batch, as arrays that span the mesh; `stride`: see `of_batch`."""
    hosts = share(mesh).hosts

    def place(values: np.ndarray) -> jax.Array:
        shape = (values.shape[0] * hosts, *values.shape[1:])
        return jax.make_array_from_process_local_data(of_batch(mesh, shape, stride), values, shape)

    return {name: place(values) for name, values in batch.items()}


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Raise UserError unless every device gets the same number of examples, at least one, in each
    of `accumulate` parts of a step."""
    devices = _batch_parts(mesh)
    unit = devices * accumulate
    if batch_size <= 0 or batch_size % unit:
        fitting = sorted({max(batch_size // unit + extra, 1) for extra in (0, 1)})
        offers = " or ".join(str(unit * n) for n in fitting)
        parts = f", in {accumulate} parts" if accumulate > 1 else ""
        raise UserError(
            f"config.batch_size = {batch_size} can't be split over {_devices(devices)}{parts}: use "
            f"{offers}"
        )


def check_rows(field: str, size: int, margin: int, stride: int, mesh: Mesh) -> None:
    """Raise UserError unless the rows of a network's input, `size` and `margin` on both sides, can
    be split, and give each device a cell of the class map; `field` of the configuration holds the
    size. With devices that hold none, the partitioner's gradients were found wrong (jax 0.10.2, on
    CPU devices: where half of eight or more had none)."""
    parts = mesh.shape["spatial"]
    if parts > 1 and size < parts * stride:
        fitting = max(size // stride, 1)
        raise UserError(
            f"{field} = {size} rows are too few for config.mesh.spatial = {parts}: use "
            f"{parts * stride} or more, {stride} for each device, or spatial {fitting}"
        )
    if (size + 2 * margin) % parts == 0:
        return
    near = sorted(range(max(1, size - parts), size + parts + 1), key=lambda s: abs(s - size))
    fitting = sorted([s for s in near if (s + 2 * margin) % parts == 0][:2])
    offers = " or ".join(map(str, fitting))
    rows = f", {size + 2 * margin} rows with its margin," if margin else " rows"
    raise UserError(
        f"{field} = {size}{rows} can't be split over config.mesh.spatial = {parts}: use {offers}"
    )


def round_up(batch_size: int, mesh: Mesh) -> int:
    """The next batch size that every device gets an equal share of."""
    devices = _batch_parts(mesh)
    return -(-max(batch_size, 1) // devices) * devices


def _batch_parts(mesh: Mesh) -> int:
    """How many parts a batch is split into."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH]))


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
