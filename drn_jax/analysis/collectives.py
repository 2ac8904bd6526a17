"""What the devices of a partitioned program send one another, read from its compiled text."""

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal, get_args

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
    """The collectives of a program, in the order of its text.

    Times multiply the trip counts of the loops around. A loop whose count the compiler does not
    know counts once, and so does every branch of a conditional. An asynchronous pair counts once,
    as its start.

    Args:
      text: `jax.stages.Compiled.as_text()`; for CPU, GPU or TPU.
    """
    computations, entry = _computations(text)
    runs, fused = _runs(computations, entry)
    header = text.partition("\n")[0]
    everyone = math.prod(map(int, re.findall(r"(?:replica_count|num_partitions)=(\d+)", header)))
    found, channels = [], set()
    for name, lines in computations.items():
        for line in lines if runs[name] else ():
            instruction = _INSTRUCTION.match(line)
            if instruction is None:
                continue
            shape, opcode = instruction.groups()
            kind = next((k for k in get_args(Kind) if opcode in (k, f"{k}-start")), None)
            if kind is None:
                continue
            # A TPU carries a collective through several fusions, and repeats it in each.
            channel = re.search(r"channel_id=(\d+)", line)
            if name in fused and channel:
                if channel[1] in channels:
                    continue
                channels.add(channel[1])
            if opcode != kind and kind != "all-reduce":  # Operands, results, and handles.
                shape = _elements(shape)[1]
            source = re.search(r'op_name="([^"]*)"', line)
            found.append(
                Collective(
                    kind,
                    _bytes(shape),
                    _devices(line, everyone),
                    runs[name],
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


# `%name = shape opcode(operands), attributes`. A shape holds no blank before a word and a bracket.
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?[\w.-]+ = (.*?) ([a-z][\w-]*)\(")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) .*\{$")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|\w+_computations?)=(?:\{([^}]*)\}|%?([\w.-]+))"
)
_TRIPS = re.compile(r'known_trip_count\\?":\{\\?"n\\?":\\?"(\d+)')
_ARRAY = re.compile(r"(pred|[a-z]+(\d+)\w*)\[([\d,<=]*)\]")


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of every computation, and the name of the first to run."""
    computations, lines, entry = {}, [], ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            lines = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        else:
            lines.append(line)
    return computations, entry


def _runs(computations: dict[str, list[str]], entry: str) -> tuple[Counter[str], set[str]]:
    """How often every computation is executed, and which are bodies of fusions."""
    calls, fused = defaultdict(list), set()
    for name, lines in computations.items():
        for instruction, line in zip(map(_INSTRUCTION.match, lines), lines, strict=True):
            # What an asynchronous -start calls, its -update and -done only name again.
            if instruction is None or instruction[2].endswith(("-update", "-done")):
                continue
            trips = _TRIPS.search(line) if instruction[2] == "while" else None
            for several, one in _CALLED.findall(line):
                for callee in re.findall(r"[\w.-]+", several or one):
                    calls[name].append((callee, int(trips[1]) if trips else 1))
                    if instruction[2] == "fusion":
                        fused.add(callee)
    runs = Counter()

    def run(name: str, times: int) -> None:
        runs[name] += times
        for callee, trips in calls[name]:
            run(callee, times * trips)

    run(entry, 1)
    return runs, fused


def _elements(shape: str) -> list[str]:
    """The shapes in a tuple."""
    parts, depth = [""], 0
    for letter in shape.strip()[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _bytes(shape: str) -> int:
    """Of an array, or of all in a tuple; layouts and their padding are left out."""
    total = 0
    for name, bits, dimensions in _ARRAY.findall(shape):
        count = math.prod(int(size.strip("<=")) for size in dimensions.split(",") if size)
        total += -(-count * (8 if name == "pred" else int(bits)) // 8)
    return total


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
