"""Compiles training steps, runs none of them, and prints the tables of docs/scaling.md and
docs/hosts.md.

python docs/scaling.py memory            what a step holds, by XLA's compiler for CPU
python docs/scaling.py memory --tpu      by its compiler for TPU v5e, which says what fits; no TPU
                                         is needed, but `pip install -e '.[tpu]'`
python docs/scaling.py traffic           what devices send, counted in programs for 8 to 32; and
                                         what follows for 8 to 1,024 H100, by stated assumptions
python docs/scaling.py traffic --tpu     the same for TPU v5e, in bfloat16, from programs for 8
python docs/scaling.py halo              heights below which a halo outgrows a shard

`--only=WORD,WORD` keeps the rows of `memory` that hold every word. `--effort=0` is the TPU
compiler's own; by default it is -1, which compiles sooner and may hold more.
"""

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from drn_jax import models, program
from drn_jax.analysis import collectives, cost, halo
from drn_jax.models.layers import Norm
from drn_jax.models.stages import output_stride
from drn_jax.tasks import Classification, Segmentation
from drn_jax.tasks.segmentation import Grid
from drn_jax.training import optim, peak, sharding
from drn_jax.training.sharding import MeshShape

NETWORKS = ("drn_d_22", "drn_d_105")
CROP, CLASSES = 896, 19
"""Cityscapes, as in configs/cityscapes.py."""

CPU_DEVICES = 32
TOPOLOGY = "v5e:2x4"
QUICK = {"xla_backend_optimization_level": 0}
"""For CPU: a third less time to compile; memory and collectives are the same."""


@dataclass(frozen=True)
class Step:
    """One training step, by its configuration."""

    network: str
    images: int
    """In the whole batch."""
    devices: int = 8
    fsdp: int = 1
    spatial: int = 1
    dtype: str = "float32"
    remat: str = "none"
    accumulate: int = 1
    group: int = 0
    """Of batch norm's statistics; 0: the whole batch."""
    imagenet: bool = False
    """Classification at 224x224, not segmentation of crops."""

    @property
    def size(self) -> int:
        """Side of the network's input."""
        return 224 if self.imagenet else CROP

    def run(self) -> Any:
        """As much of an experiment as `program` asks for."""
        size, count = self.size, self.images
        preprocess = models.preprocessing(self.network)
        labels = {"mask": jax.ShapeDtypeStruct((count, size, size), np.uint8)}
        if self.imagenet:
            labels = {"label": jax.ShapeDtypeStruct((count,), np.int32)}
        segmentation = Segmentation(CLASSES, output_stride(self.model.stages), Grid(border="zero"))
        return SimpleNamespace(
            model=self.model,
            task=Classification(1000) if self.imagenet else segmentation,
            training_inputs=lambda batch: preprocess(batch["image"], surrounded=True),
            input_shape=(size, size, 3),
            batch_shapes={
                "image": jax.ShapeDtypeStruct((count, size, size, 3), np.uint8),
                **labels,
            },
            config=SimpleNamespace(
                seed=0, accumulate=self.accumulate, ema=0.0, deterministic=False
            ),
        )

    @property
    def model(self) -> Any:
        """The network."""
        return models.create(
            self.network,
            1000 if self.imagenet else CLASSES,
            dtype=jnp.dtype(self.dtype),
            remat=self.remat,
            convolution="native",  # As accelerators compute; this host's CPU only compiles.
            norm=Norm("group", self.group) if self.group else Norm(),
        )

    def compile(self, devices: Sequence[Any], options: Any = None) -> jax.stages.Compiled:
        """The program, for the first so many of the devices."""
        shape = MeshShape(fsdp=self.fsdp, spatial=self.spatial)
        mesh = sharding.make_mesh(shape, list(devices)[: self.devices])
        run, optimizer = self.run(), optim.sgd(lambda _: 0.01, 0.9, 1e-4)
        state = program.abstract_state(run, optimizer, mesh)
        batch = program.abstract_batch(run, mesh)
        jitted: Any = program.trainer(run, optimizer, mesh)
        return jitted.lower(state, batch).compile(options)

    @property
    def flops(self) -> int:
        """Of training on one image; what `remat` repeats is not counted."""
        costs = cost.of(self.model.table, self.size, self.size, pooled=self.imagenet)
        return peak.training_flops(costs)

    def __str__(self) -> str:
        """A row's beginning."""
        mesh = "x".join(map(str, (self.devices // self.fsdp // self.spatial, self.fsdp)))
        parts = f" in {self.accumulate} parts" if self.accumulate > 1 else ""
        return (
            f"| `{self.network}` | {self.dtype} | {self.images}{parts} | {mesh}x{self.spatial} "
            f"| {self.remat} |"
        )


# Memory.


def cpu_steps() -> Iterator[Step]:
    """The table by the compiler for CPU."""
    for network in NETWORKS:
        base = Step(network, images=8)
        yield from (replace(base, remat=remat) for remat in ("none", "level", "block"))
        yield from (replace(base, images=8 // spatial, spatial=spatial) for spatial in (2, 4, 8))
    large = Step(NETWORKS[-1], images=8)
    yield replace(large, fsdp=8)
    yield replace(large, images=32)
    yield replace(large, images=32, accumulate=4)


def tpu_steps() -> Iterator[Step]:
    """The table by the compiler for TPU."""
    for dtype in ("bfloat16", "float32"):
        for images in (8, 32):
            yield Step("drn_d_22", images=images, dtype=dtype)
    for dtype in ("bfloat16", "float32"):
        base = Step("drn_d_105", images=8, dtype=dtype)
        yield base
        yield replace(base, remat="block")
        yield replace(base, images=16, remat="block")
        yield replace(base, images=1, spatial=8)
        yield replace(base, images=4, spatial=2)
        yield replace(base, images=32, remat="block")
        yield replace(base, images=16)
        yield replace(base, images=32)


def memory(tpu: bool, effort: float, only: Sequence[str]) -> None:
    """Print bytes on one device for every step, as far as each compiles."""
    if tpu:
        jax.config.update("jax_exec_time_optimization_effort", effort)
    devices = tpu_devices() if tpu else jax.devices()
    print("| network | dtype | images a step | data x fsdp x spatial | remat | GB | state |")
    print("|---|---|---:|---|---|---:|---:|")
    for step in tpu_steps() if tpu else cpu_steps():
        if not all(word in str(step) for word in only):
            continue
        start = time.monotonic()
        try:
            held, state = held_bytes(step.compile(devices, None if tpu else QUICK))
            row = f"{held / 1e9:.2f} | {state / 1e9:.2f} |"
        except jax.errors.JaxRuntimeError as error:
            row = f"{refusal(str(error))} | |"
        print(step, row, flush=True)
        print(f"{time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def held_bytes(compiled: jax.stages.Compiled) -> tuple[int, int]:
    """On one device: argument + output + temporary - aliased bytes, and the aliased: the state,
    whose memory the step uses again."""
    found: Any = compiled.memory_analysis()
    given = found.argument_size_in_bytes + found.output_size_in_bytes
    aliased = found.alias_size_in_bytes
    return given + found.temp_size_in_bytes - aliased, aliased


def refusal(message: str) -> str:
    """What the compiler says about a program that does not fit."""
    over = re.search(
        r"required for .* \(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)", message
    )
    if not over:
        raise RuntimeError(message)
    return f"does not fit: {over[1]}iB of {over[2]}iB"


def tpu_devices() -> Sequence[Any]:
    """Eight TPU v5e, by name alone."""
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices


# Traffic.


@dataclass(frozen=True)
class Traffic:
    """What one device takes part in during a step. Bytes are of results; `sent` are sent."""

    sums: tuple[tuple[int, int, int], ...] = ()
    """(devices in a group, number, bytes) of the all-reduces of statistics and of losses: those
    that the next operation waits for."""
    gradients: tuple[tuple[int, int], ...] = ()
    """(devices in a group, bytes) of the gradients' all-reduces."""
    halos: int = 0
    """Number of exchanges with a neighbour."""
    halo_bytes: int = 0
    gathers: int = 0
    """Number of all-gathers and all-to-alls."""
    gather_bytes: int = 0
    sent: float = 0.0


def traffic_of(found: Sequence[collectives.Collective]) -> Traffic:
    """The collectives of a train step, sorted by what they are for."""
    sums: dict[int, list[int]] = {}
    gradients: dict[int, int] = {}
    permutes = [c for c in found if c.kind == "collective-permute"]
    gathered = [c for c in found if c.kind not in ("collective-permute", "all-reduce")]
    for one in found:
        if one.kind != "all-reduce":
            continue
        if "conv_general_dilated" in one.source or "dot_general" in one.source:
            gradients[one.devices] = gradients.get(one.devices, 0) + one.times * one.bytes
        else:
            several = sums.setdefault(one.devices, [0, 0])
            several[0] += one.times
            several[1] += one.times * one.bytes
    return Traffic(
        tuple((n, count, size) for n, (count, size) in sorted(sums.items())),
        tuple(sorted(gradients.items())),
        sum(c.times for c in permutes),
        sum(c.times * c.bytes for c in permutes),
        sum(c.times for c in gathered),
        sum(c.times * c.bytes for c in gathered),
        sum(map(collectives.sent, found)),
    )


def traffic_steps(tpu: bool) -> Iterator[tuple[str, Step]]:
    """The steps whose traffic is counted, and what they are called."""
    for network in NETWORKS:
        one = Step(network, images=8, dtype="bfloat16" if tpu else "float32")
        yield "data", one
        yield "data, statistics of groups of 1", replace(one, group=1)
        yield "fsdp", replace(one, fsdp=8)
        yield "spatial 2", replace(one, images=4, spatial=2)
        yield "spatial 4", replace(one, images=2, spatial=4)
        if not tpu:  # It is known by eight chips.
            yield "spatial 8", replace(one, images=2, devices=16, spatial=8)
            yield "ImageNet, data", replace(one, images=8 * 32, imagenet=True)
            yield "data", replace(one, images=16, devices=16)
    if not tpu:
        yield "data", Step("drn_d_22", images=32, devices=32)


def traffic(tpu: bool, effort: float) -> None:
    """Print what devices send, and what follows for many."""
    if tpu:
        jax.config.update("jax_exec_time_optimization_effort", effort)
    devices = tpu_devices() if tpu else jax.devices()
    print(
        "| network | split | devices | images a step | sums | their KB | gradients, MB | halos "
        "| their MB | gathers | their MB | sent, MB |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    rows: dict[tuple[str, str], tuple[Step, Traffic]] = {}
    for name, step in traffic_steps(tpu):
        text = step.compile(devices, None if tpu else QUICK).as_text()
        found = traffic_of(collectives.of_program(text or ""))
        if name != "fsdp":  # The fewest devices are reckoned with.
            rows.setdefault((step.network, name), (step, found))
        sums = " + ".join(f"{count} of {n}" for n, count, _ in found.sums)
        kilobytes = sum(size for _, _, size in found.sums) / 1e3
        gradients = " + ".join(f"{size / 1e6:.1f} of {n}" for n, size in found.gradients)
        print(
            f"| `{step.network}` | {name} | {step.devices} | {step.images} | {sums} "
            f"| {kilobytes:.0f} | {gradients} | {found.halos} | {found.halo_bytes / 1e6:.1f} "
            f"| {found.gathers} | {found.gather_bytes / 1e6:.1f} | {found.sent / 1e6:.1f} |",
            flush=True,
        )
    efficiency(TpuV5e() if tpu else H100(), rows)


# Efficiency: assumptions, each with its source. None was measured here.

SHARE_OF_PEAK = 0.4
"""Of the peak that a step computes at between its collectives: an assumption, no measurement."""

BACKWARD = 2 / 3
"""Share of a step's compute time that is backward, beside which gradients can travel."""

# TPU v5e. cloud.google.com/tpu/docs/v5e: 1,600 Gbit/s between chips, a chip has four links;
# all-reduces at 51.2 TB/s a pod of 256, which is 200 GB/s a chip; 6.4 Tbit/s of data centre network
# a pod. jax-ml.github.io/scaling-book, parts 2 and 3: 5e10 bytes/s one way a link, about a
# microsecond a hop, rings closed along axes of 16 chips only.
LINK = 5e10
HOP = 1e-6
POD = 256
POD_NETWORK = 6.4e12 / 8 / POD
"""Bytes/s a chip."""
POD_LATENCY = 50e-6
"""Of one message between pods: an assumption without a source."""
SLICES = {8: (2, 4), 64: (8, 8), 256: (16, 16), 1024: (16, 16)}
"""Of one pod; 1,024 chips are four pods."""

# H100. NVIDIA's H100 data sheet: 900 GB/s of NVLink, both ways together, between the 8 of a
# machine; NVIDIA's DGX H100 data sheet: a network port of 400 Gbit/s a GPU.
NVLINK = 450e9
NETWORK = 400e9 / 8
MACHINE = 8
# NVIDIA/nccl, src/graph/tuning.cc at 01afd20, what NCCL itself reckons with: "tree", "LL"; the last
# for messages between machines. For the A100's time; a newer table was not at hand.
NCCL_BASE = 4.4e-6
NCCL_NEAR = 0.52e-6
NCCL_NEAR_OF_MANY = 1.8 * NCCL_NEAR
NCCL_FAR = 5.0e-6
NCCL_SEND = 3.6e-6 + 0.47e-6
"""One message to a neighbour in the machine: "ring", "LL", one step."""


def ring(devices: int) -> float:
    """Share of an array that each device sends in an all-reduce."""
    return 2 * (devices - 1) / devices


@dataclass(frozen=True)
class TpuV5e:
    """Seconds on TPU v5e: pods of 16x16 chips, a part of one below 256."""

    name: str = "TPU v5e"
    flops: float = peak.PEAK["TPU v5e"]

    def all_reduce(self, size: float, devices: int, spatial: int) -> float:
        """Of `size` bytes between all devices, or, where rows are split, between those that hold
        the same rows: then along one axis of the chips."""
        links = 4 if spatial == 1 else 2
        wide = min(devices, POD)
        width = LINK * links * (1 if max(SLICES[wide]) == 16 else 0.5)
        pods = devices // wide
        near = wide // spatial
        return ring(near) * size / width + ring(pods) * size / near / POD_NETWORK

    def rows_reduce(self, size: float, spatial: int) -> float:
        """The same between the devices of one image, a row of chips."""
        return ring(spatial) * size / LINK

    def sum_latency(self, devices: int) -> float:
        """Of a small all-reduce between all."""
        wide, high = SLICES[devices]
        hops = wide // 2 + high // 2 if high == 16 else wide - 1 + high - 1
        pods = max(1, devices // POD)
        return 2 * hops * HOP + 2 * math.log2(pods) * POD_LATENCY

    def rows_latency(self, spatial: int) -> float:
        """Of a small all-reduce between the devices of one image."""
        return 2 * (spatial - 1) * HOP

    def halo(self, size: float) -> float:
        """Of rows to a neighbour."""
        return HOP + size / LINK


@dataclass(frozen=True)
class H100:
    """Seconds on H100: machines of eight with a network port a GPU."""

    name: str = "H100"
    flops: float = peak.PEAK["NVIDIA H100 80GB HBM3"]

    def all_reduce(self, size: float, devices: int, spatial: int) -> float:
        """As above: within the machine, then each GPU its part between machines."""
        near, machines = MACHINE // spatial, devices // MACHINE
        return ring(near) * size / NVLINK + ring(machines) * size / near / NETWORK

    def rows_reduce(self, size: float, spatial: int) -> float:
        """As above."""
        return ring(spatial) * size / NVLINK

    def sum_latency(self, devices: int) -> float:
        """As above."""
        machines = devices // MACHINE
        near = NCCL_NEAR if machines == 1 else NCCL_NEAR_OF_MANY
        return NCCL_BASE + 2 * ((MACHINE - 1) * near + math.log2(machines) * NCCL_FAR)

    def rows_latency(self, spatial: int) -> float:
        """As above."""
        return NCCL_BASE + 2 * (spatial - 1) * NCCL_NEAR

    def halo(self, size: float) -> float:
        """As above."""
        return NCCL_SEND + size / NVLINK


COUNTS = tuple(SLICES)


@dataclass(frozen=True)
class Seconds:
    """Of one step."""

    compute: float
    gradients: float
    sums: float
    halos: float

    @property
    def efficiency(self) -> tuple[float, float]:
        """Compute time over the step's: with nothing hidden behind compute; and with the gradients
        travelling beside the backward pass, as far as it lasts. Sums and halos are never hidden:
        the next operation waits for them."""
        waiting = self.sums + self.halos
        left = max(0.0, self.gradients - BACKWARD * self.compute)
        return (
            self.compute / (self.compute + waiting + self.gradients),
            self.compute / (self.compute + waiting + left),
        )


def seconds(
    machine: TpuV5e | H100, step: Step, found: Traffic, devices: int, images: float = 0
) -> Seconds:
    """A step of as many devices as given, from the traffic of a program for fewer. `images`: on
    each group of `spatial` devices; by default as in the program."""
    spatial = step.spatial
    programmed = step.images * spatial / step.devices
    images = images or programmed
    gradients = sums = 0.0
    for group, size in found.gradients:
        if spatial > 1 and group == spatial:
            gradients += machine.rows_reduce(size, spatial)
        else:
            gradients += machine.all_reduce(size, devices, spatial)
    for group, count, _ in found.sums:
        if spatial > 1 and group == spatial:
            sums += count * machine.rows_latency(spatial)
        elif devices > spatial:
            sums += count * machine.sum_latency(devices)
    each = found.halo_bytes / found.halos if found.halos else 0
    return Seconds(
        images * step.flops / spatial / (SHARE_OF_PEAK * machine.flops),
        gradients,
        sums,
        found.halos * machine.halo(each * images / programmed),
    )


def least_images(machine: TpuV5e | H100, step: Step, found: Traffic, devices: int) -> int:
    """Images a device from which sums take at most a twentieth of a step's compute time."""
    one = seconds(machine, step, found, devices, 1)
    return math.ceil(20 * one.sums / one.compute)


def efficiency(
    machine: TpuV5e | H100, rows: Mapping[tuple[str, str], tuple[Step, Traffic]]
) -> None:
    """Print how far devices are kept busy, by (network, split)."""
    wide = " | ".join(f"{n:,}" for n in COUNTS)
    print(f"\n{machine.name}: nothing hidden to gradients hidden\n")
    print(f"| network | split | compute, ms | {wide} |\n|---|---|---:|{'---:|' * len(COUNTS)}")
    for (network, name), (step, found) in rows.items():
        all_of = [seconds(machine, step, found, n) for n in COUNTS]
        cells = [f"{100 * a:.0f} to {100 * b:.0f} %" for a, b in (s.efficiency for s in all_of)]
        print(f"| `{network}` | {name} | {1e3 * all_of[0].compute:.1f} |", " | ".join(cells), "|")
    print(f"\n{machine.name}: ms of gradients + sums + halos\n")
    print(f"| network | split | {wide} |\n|---|---|{'---:|' * len(COUNTS)}")
    for (network, name), (step, found) in rows.items():
        cells = [
            f"{1e3 * s.gradients:.2f} + {1e3 * s.sums:.2f} + {1e3 * s.halos:.2f}"
            for s in (seconds(machine, step, found, n) for n in COUNTS)
        ]
        print(f"| `{network}` | {name} |", " | ".join(cells), "|")
    print(f"\n{machine.name}: images a device from which sums take 5 % of compute\n")
    print(f"| network | split | {wide} |\n|---|---|{'---:|' * len(COUNTS)}")
    for (network, name), (step, found) in rows.items():
        if step.spatial == 1 and not step.group:
            cells = [str(least_images(machine, step, found, n)) for n in COUNTS]
            print(f"| `{network}` | {name} |", " | ".join(cells), "|")


# Heights.


def heights() -> None:
    """Print the least heights of an image over so many devices, as multiples of them and the
    stride."""
    shards = (2, 4, 8, 16)
    names = ("resnet_50", "drn_a_50", "drn_c_26", "drn_d_22", "drn_d_105", "vgg_16_front_end")
    print("| network | stride |", " | ".join(map(str, shards)), "|")
    print("|---|---:|" + "---:|" * len(shards))
    for name in names:
        table = models.create(name).table
        stride = output_stride(table)
        cells = [str(halo.least_height(table, n, n * stride)) for n in shards]
        print(f"| `{name}` | {stride} |", " | ".join(cells), "|")


def main(args: Sequence[str]) -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=("memory", "traffic", "halo"))
    parser.add_argument("--tpu", action="store_true", help="by the TPU's compiler")
    parser.add_argument(
        "--effort", type=float, default=-1.0, help="of the TPU's compiler; its own default is 0"
    )
    parser.add_argument("--only", default="", help="of memory: the rows with these words")
    given = parser.parse_args(args)
    flag = f"--xla_force_host_platform_device_count={CPU_DEVICES}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    jax.config.update("jax_platforms", "cpu")
    if given.table == "memory":
        memory(given.tpu, given.effort, [word for word in given.only.split(",") if word])
    elif given.table == "traffic":
        traffic(given.tpu, given.effort)
    else:
        heights()


if __name__ == "__main__":
    main(sys.argv[1:])
