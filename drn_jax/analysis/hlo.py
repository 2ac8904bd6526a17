"""The instructions of an XLA program, read from its text (HLO), and how often each is executed."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Array(NamedTuple):
    """What an instruction takes or gives."""

    dtype: str
    """HLO's name, such as "bf16"."""
    shape: tuple[int, ...]
    """Of a dynamic dimension its bound."""
    order: tuple[int, ...]
    """Its axes as they lie in memory, the one whose steps are largest first."""

    @property
    def elements(self) -> int:
        """How many."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of all elements, those of less than 8 bits packed; a layout's padding is left out."""
        bits = 8 if self.dtype == "pred" else int(re.findall(r"\d+", self.dtype)[0])
        return -(-self.elements * bits // 8)


@dataclass(frozen=True)
class Instruction:
    """One line of a program."""

    opcode: str
    shape: str
    """Of the result, as it is written: an array or a tuple, with layouts."""
    line: str
    times: int
    """Executions of the instruction in one of the program."""
    fused: bool
    """It lies in the body of a fusion, and is computed with its neighbours."""
    siblings: Mapping[str, str]
    """By name, the shapes of the results in the same computation."""

    @property
    def results(self) -> tuple[Array, ...]:
        """One, or all in the tuple."""
        return arrays(self.shape)

    @cached_property
    def operands(self) -> tuple[tuple[Array, ...], ...]:
        """Of every operand its arrays, as `results`."""
        inside = self.line.partition(f" {self.opcode}(")[2]
        names = [operand.split()[-1].lstrip("%") for operand in _parts(inside) if operand.split()]
        return tuple(arrays(self.siblings[name]) for name in names if name in self.siblings)


def instructions(text: str) -> tuple[Instruction, ...]:
    """Those that are executed, in the order of the text.

    Times multiply the trip counts of the loops around. A loop whose count is not noted (before
    compilation none is) counts once, and so does every branch of a conditional. What an
    asynchronous start calls counts with it, not again with its update and done.

    Args:
      text: `jax.stages.Compiled.as_text()`, for CPU, GPU or TPU; or, before the compiler changes
        anything, `jax.stages.Lowered.as_text("hlo")`.
    """
    computations, entry = _computations(text)
    runs, fused = _runs(computations, entry)
    found = []
    for name, lines in computations.items():
        siblings = {label: shape for label, shape, _, _ in lines}
        found += [
            Instruction(opcode, shape, line, runs[name], name in fused, siblings)
            for _, shape, opcode, line in (lines if runs[name] else ())
        ]
    return tuple(found)


def arrays(shape: str) -> tuple[Array, ...]:
    """The array, or all in a tuple, however deep."""
    found = []
    for dtype, sizes, layout in _ARRAY.findall(shape):
        dimensions = tuple(int(size.strip("<=")) for size in sizes.split(",") if size)
        order = tuple(int(axis) for axis in reversed(layout.split(",")) if axis)
        found.append(Array(dtype, dimensions, order or tuple(range(len(dimensions)))))
    return tuple(found)


def elements(shape: str) -> list[str]:
    """The shapes in a tuple, as they are written."""
    return _parts(shape.strip()[1:])


# `%name = shape opcode(operands), attributes`. A shape holds no blank before a word and a bracket.
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) .*\{$")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|\w+_computations?)=(?:\{([^}]*)\}|%?([\w.-]+))"
)
_TRIPS = re.compile(r'known_trip_count\\?":\{\\?"n\\?":\\?"(\d+)')
_ARRAY = re.compile(r"(pred|[a-z]+\d+\w*)\[([\d,<=]*)\](?:\{([\d,]*))?")

_Line = tuple[str, str, str, str]
"""Name, shape, opcode, and the whole line."""


def _computations(text: str) -> tuple[dict[str, list[_Line]], str]:
    """The instructions of every computation, and the name of the first to run."""
    computations, lines, entry = {}, [], ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            lines = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif found := _INSTRUCTION.match(line):
            lines.append((found[1], found[2], found[3], line))
    return computations, entry


def _runs(computations: dict[str, list[_Line]], entry: str) -> tuple[Counter[str], set[str]]:
    """How often every computation is executed, and which are bodies of fusions."""
    calls, fused = defaultdict(list), set()
    for name, lines in computations.items():
        for _, _, opcode, line in lines:
            # What an asynchronous -start calls, its -update and -done only name again.
            if opcode.endswith(("-update", "-done")):
                continue
            trips = _TRIPS.search(line) if opcode == "while" else None
            for several, one in _CALLED.findall(line):
                for callee in re.findall(r"[\w.-]+", several or one):
                    calls[name].append((callee, int(trips[1]) if trips else 1))
                    if opcode == "fusion":
                        fused.add(callee)
    runs = Counter()

    def run(name: str, times: int) -> None:
        runs[name] += times
        for callee, trips in calls[name]:
            run(callee, times * trips)

    run(entry, 1)
    return runs, fused


def _parts(text: str) -> list[str]:
    """What stands between the commas, up to the bracket that closes more than was opened."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            break
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
