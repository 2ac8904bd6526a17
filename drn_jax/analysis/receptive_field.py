"""How far a cell sees: the theoretical receptive field, from the stage table alone."""

from dataclasses import dataclass

from drn_jax.models.stages import Stage, blocks


@dataclass(frozen=True)
class Field:
    """The receptive field of one cell of a stage's map."""

    name: str
    size: int
    """Side of the square of input pixels that can reach the cell, by the longest path."""
    stride: int
    """Input pixels between neighbouring cells."""


def of_stages(stages: tuple[Stage, ...]) -> tuple[Field, ...]:
    """The field at the end of every stage.

    A K x K convolution of dilation d on a map of stride s widens it by (K - 1) * d * s; shortcuts,
    1x1 or nothing, are never the longest path.
    """
    size, stride, channels, fields = 1, 1, 3, []
    for stage in stages:
        if stage.kind == "max_pool":
            size += (stage.kernel - 1) * stride
            stride *= stage.stride
        for block in blocks(stage, channels):
            for conv in block.path:
                size += (conv.kernel - 1) * conv.dilation * stride
                stride *= conv.stride
        channels = stage.outputs
        fields.append(Field(stage.name, size, stride))
    return tuple(fields)
