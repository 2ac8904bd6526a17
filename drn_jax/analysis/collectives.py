"""What the devices of a partitioned program send one another, read from its compiled text."""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from drn_jax.analysis import hlo

Kind = Literal["all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter"]
"""Opcodes of XLA's HLO; the rare others are left out."""


@dataclass(frozen=True)
class Collective:
    """One instruction by which devices exchange data."""

    kind: Kind
    bytes: int
    """Of the result on one device, all its arrays together."""
    devices: int
    """In one group; 2 for a permute, whose devices send to one other each."""
    times: int
    """Executions of the instruction in one of the program."""
    source: str
    """Where it comes from: JAX's path of the operation, "" if none is noted."""


def of_program(text: str) -> tuple[Collective, ...]:
    """The collectives of a program, in the order of its text; an asynchronous pair counts once, as
    its start. Times are `hlo.instructions`'s.

    Args:
      text: `jax.stages.Compiled.as_text()`; for CPU, GPU or TPU.
    """
    header = text.partition("\n")[0]
    everyone = math.prod(map(int, re.findall(r"(?:replica_count|num_partitions)=(\d+)", header)))
    found, channels = [], set()
    for instruction in hlo.instructions(text):
        opcode, shape, line = instruction.opcode, instruction.shape, instruction.line
        kind = next((k for k in get_args(Kind) if opcode in (k, f"{k}-start")), None)
        if kind is None:
            continue
        # A TPU carries a collective through several fusions, and repeats it in each.
        channel = re.search(r"channel_id=(\d+)", line)
        if instruction.fused and channel:
            if channel[1] in channels:
                continue
            channels.add(channel[1])
        if opcode != kind and kind != "all-reduce":  # Operands, results, and handles.
            shape = hlo.elements(shape)[1]
        source = re.search(r'op_name="([^"]*)"', line)
        found.append(
            Collective(
                kind,
                sum(array.bytes for array in hlo.arrays(shape)),
                _devices(line, everyone),
                instruction.times,
                source[1] if source else "",
            )
        )
    return tuple(found)


def sent(collective: Collective) -> float:
    """Bytes that a device sends in all executions, by the algorithms for rings of n devices:

    all-reduce 2(n-1)/n, all-gather and all-to-all (n-1)/n, reduce-scatter n-1 and permute 1 times
    the bytes of the result. A permute's last device in a row sends nothing: this is the others'.
    """
    n = collective.devices
    share = {
        "all-gather": (n - 1) / n,
        "all-reduce": 2 * (n - 1) / n,
        "all-to-all": (n - 1) / n,
        "collective-permute": 1,
        "reduce-scatter": n - 1,
    }[collective.kind]
    return collective.times * collective.bytes * share


def _devices(line: str, everyone: int) -> int:
    """In one group. {{0,1},{2,3}}, [2,2]<=[4] and mesh['a'=2,'b'=2] {'b'} all say 2; {} says all.

    A mesh's axis may be split: 'b':(1)2 is the part of size 2 with 1 before it.
    """
    if "source_target_pairs" in line:
        return 2
    if mesh := re.search(r"replica_groups=mesh\[([^]]*)\].*?\{([^}]*)\}", line):
        sizes = dict(re.findall(r"(\w+)'?=(\d+)", mesh[1]))
        axes = re.findall(r"([a-zA-Z_]\w*)'?(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(iota[1])
    if group := re.search(r"replica_groups=\{\{([^}]*)\}", line):
        return group[1].count(",") + 1
    return everyone
