"""What a network costs, counted from its stage table: parameters, multiply-adds, activations."""

from collections.abc import Sequence
from dataclasses import dataclass

from drn_jax import models
from drn_jax.models import full_table
from drn_jax.models.stages import Conv, Stage, blocks, strided


@dataclass(frozen=True)
class StageCost:
    """The price of one row for one input."""

    name: str
    height: int
    width: int
    channels: int
    parameters: int
    """Kernels, biases, and batch-norm scales and biases; no running statistics."""
    multiply_adds: int
    """Products in the convolutions, taps on the padding counted too, as is the custom; batch norm
    is left out."""
    inner_multiply_adds: int
    """Those of them whose tap lies on the map: what a program that skips the padding computes."""
    activation_bytes: int
    """Of the maps that its convolutions and poolings give. Batch norm, ReLU and the sum with a
    shortcut are taken to change them in place; training keeps about as much for the backward
    pass."""


def of(
    network: str | Sequence[Stage],
    height: int,
    width: int,
    *,
    pooled: bool = True,
    inputs: int | None = None,
    itemsize: int = 4,
) -> tuple[StageCost, ...]:
    """The cost of every row for one input.

    Args:
      network: a name of `models.MODELS`, as `models.create` makes it, or all rows of a table, the
        classifier ("head") among them: `Network.table` and its like.
      height, width: of the input, its margin included.
      pooled: a classifier that ends the table is applied once, to the mean (classification), else
        at every cell.
      inputs: channels of the input; by default 3, and those that a context module by name has.
      itemsize: bytes of a number: 4 for float32, 2 for bfloat16. (A classifier, and a context
        module's last layer, compute in no less than float32, for which this is too little.)

    Raises: UserError for an unknown name.
    """
    table = full_table(network)
    rows, channels = [], _inputs(network) if inputs is None else inputs
    for stage in table:
        parameters = multiply_adds = inner = numbers = 0
        if stage.kind == "max_pool":
            height, width = strided(height, stage), strided(width, stage)
            numbers += height * width * channels
        elif pooled and stage is table[-1] and stage.name == "head":
            height = width = 1
        for block in blocks(stage, channels):
            size = height, width
            layers = [(conv, True) for conv in block.path]
            if isinstance(block.shortcut, Conv):
                layers.append((block.shortcut, False))
            for conv, on_path in layers:
                before = (height, width) if on_path else size
                after = strided(before[0], conv), strided(before[1], conv)
                cells, products = after[0] * after[1], conv.inputs * conv.outputs
                parameters += _weights(conv) + _vectors(conv)
                multiply_adds += _weights(conv) * cells
                inner += products * _inside(before[0], conv) * _inside(before[1], conv)
                numbers += cells * conv.outputs
                height, width = after
        channels = channels if stage.kind == "max_pool" else stage.outputs
        activation_bytes = itemsize * numbers
        sizes = height, width, channels
        rows.append(
            StageCost(stage.name, *sizes, parameters, multiply_adds, inner, activation_bytes)
        )
    return tuple(rows)


@dataclass(frozen=True)
class Total:
    """The sums over rows, named as there."""

    parameters: int
    multiply_adds: int
    inner_multiply_adds: int
    activation_bytes: int


def total(costs: Sequence[StageCost]) -> Total:
    """Of all rows together."""
    return Total(
        sum(row.parameters for row in costs),
        sum(row.multiply_adds for row in costs),
        sum(row.inner_multiply_adds for row in costs),
        sum(row.activation_bytes for row in costs),
    )


def _inputs(network: str | Sequence[Stage]) -> int:
    """Channels of the input, as far as the network tells."""
    if isinstance(network, str) and not models.table(network):
        return models.CLASSES[network]
    return 3


def _inside(size: int, conv: Conv) -> int:
    """Pairs of a cell that the convolution gives and a tap of it on the map, along an axis."""
    firsts = [cell * conv.stride - conv.padding for cell in range(strided(size, conv))]
    return sum(
        0 <= first + tap * conv.dilation < size for first in firsts for tap in range(conv.kernel)
    )


def _weights(conv: Conv) -> int:
    return conv.kernel**2 * conv.inputs * conv.outputs


def _vectors(conv: Conv) -> int:
    """A bias, or batch norm's scale and bias."""
    return conv.outputs if conv.bias else 2 * conv.outputs
