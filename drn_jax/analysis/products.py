"""The work of a program in multiply-adds, read from its text: convolutions and matrix products."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from drn_jax.analysis import hlo

Kind = Literal["convolution", "dot"]
"""Opcodes of XLA's HLO."""


@dataclass(frozen=True)
class Product:
    """One instruction that multiplies and adds."""

    kind: Kind
    operands: tuple[hlo.Array, hlo.Array]
    result: hlo.Array
    multiply_adds: int
    """In one execution. Of a convolution those on its padding count too, as in `cost.of`,
    those on the zeros between the cells of a dilated input (the gradient of a stride) do not."""
    times: int
    """Executions of the instruction in one of the program."""


def of_program(text: str) -> tuple[Product, ...]:
    """The products of a program, in the order of its text; times are `hlo.instructions`'s.

    Args:
      text: see `hlo.instructions`. What a compiler replaces by a call of a library is not seen, and
        that for CPUs computes bfloat16 in float32: read types from the program before compilation.
    """
    found = []
    for instruction in hlo.instructions(text):
        if instruction.opcode == "convolution":
            kind, count = "convolution", _of_convolution
        elif instruction.opcode == "dot":
            kind, count = "dot", _of_dot
        else:
            continue
        [left], [right] = instruction.operands
        [result] = instruction.results
        multiply_adds = count(instruction.line, left, right, result)
        found.append(Product(kind, (left, right), result, multiply_adds, instruction.times))
    return tuple(found)


def reordered(text: str) -> tuple[hlo.Array, ...]:
    """What a program puts into another order: the result of every transposition, and of every copy
    to another layout, as often as it is executed. Axes of one cell have no order.

    A transposition counts also where a compiler lets a layout stand for it: before compilation all
    have one that does, and it means nothing.

    Args:
      text: see `hlo.instructions`.
    """
    found = []
    for instruction in hlo.instructions(text):
        if instruction.opcode not in ("transpose", "copy"):
            continue
        [[operand]] = instruction.operands
        if instruction.opcode == "transpose":
            before, after = range(len(operand.shape)), _numbers("dimensions", instruction.line)
        else:
            [result] = instruction.results
            before, after = operand.order, result.order
        if _long(before, operand) != _long(after, operand):
            found += instruction.results * instruction.times
    return tuple(found)


def _long(axes: Iterable[int], array: hlo.Array) -> list[int]:
    """Those of more than one cell."""
    return [axis for axis in axes if array.shape[axis] > 1]


def _of_convolution(line: str, left: hlo.Array, right: hlo.Array, result: hlo.Array) -> int:
    kernel = re.search(r"dim_labels=\w+_(\w+)->(\w+)", line)
    assert kernel is not None
    window = dict(re.findall(r"(\w+)=([\dx_-]+)", line.partition("window={")[2].partition("}")[0]))
    places = 1
    for axis in range(len(left.shape) - 2):
        size = right.shape[kernel[1].index(str(axis))]
        outputs = result.shape[kernel[2].index(str(axis))]
        places *= _places(window, axis, size, outputs)
    outputs = result.shape[kernel[2].index("b")] * result.shape[kernel[2].index("f")]
    return outputs * places * right.shape[kernel[1].index("i")]


def _places(window: dict[str, str], axis: int, size: int, outputs: int) -> int:
    """Pairs of an output and a tap along an axis that meet at a cell, or beyond the edge."""

    def setting(name: str, default: int) -> int:
        # `pad` has two numbers; only the lower shifts the taps.
        return int(window[name].split("x")[axis].partition("_")[0]) if name in window else default

    apart = setting("lhs_dilate", 1)
    if apart == 1:
        return outputs * size
    stride, dilation, pad = setting("stride", 1), setting("rhs_dilate", 1), setting("pad", 0)
    return sum(
        (output * stride + tap * dilation - pad) % apart == 0
        for output in range(outputs)
        for tap in range(size)
    )


def _of_dot(line: str, left: hlo.Array, right: hlo.Array, result: hlo.Array) -> int:
    del right
    summed = _numbers("lhs_contracting_dims", line)
    return result.elements * math.prod(left.shape[axis] for axis in summed)


def _numbers(name: str, line: str) -> list[int]:
    """Those of the attribute `name={1,2}`; none where it is left out."""
    found = re.search(rf"\b{name}=\{{([\d,]*)\}}", line)
    return [int(number) for number in found[1].split(",") if number] if found else []
