"""What a network costs, counted from its stage table: parameters and multiply-adds."""

from dataclasses import dataclass

from drn_jax.models.stages import Conv, Stage, blocks, strided


@dataclass(frozen=True)
class StageCost:
    """The price of one row at one input size."""

    name: str
    height: int
    width: int
    channels: int
    parameters: int
    """Kernels, biases, and batch-norm scales and biases; no running statistics."""
    multiply_adds: int
    """Products in the convolutions, taps on the padding counted too; batch norm is left out."""


def of_stages(
    table: tuple[Stage, ...], height: int, width: int, *, pooled: bool, inputs: int = 3
) -> tuple[StageCost, ...]:
    """The cost of every row for one input.

    Args:
      table: all rows, the classifier ("head") among them: `Network.table` and its like.
      height, width: of the input, its margin included.
      pooled: the classifier is applied once, to the mean (classification), else at every cell.
      inputs: channels of the input.
    """
    rows, channels = [], inputs
    for stage in table:
        parameters = multiply_adds = 0
        if stage.kind == "max_pool":
            height, width = strided(height, stage), strided(width, stage)
        elif pooled and stage.name == "head":
            height = width = 1
        for block in blocks(stage, channels):
            convs = list(block.path)
            for conv in block.path:
                height, width = strided(height, conv), strided(width, conv)
                multiply_adds += _weights(conv) * height * width
            if isinstance(block.shortcut, Conv):
                convs.append(block.shortcut)
                multiply_adds += _weights(block.shortcut) * height * width
            parameters += sum(_weights(conv) + _vectors(conv) for conv in convs)
        channels = channels if stage.kind == "max_pool" else stage.outputs
        rows.append(StageCost(stage.name, height, width, channels, parameters, multiply_adds))
    return tuple(rows)


def _weights(conv: Conv) -> int:
    return conv.kernel**2 * conv.inputs * conv.outputs


def _vectors(conv: Conv) -> int:
    """A bias, or batch norm's scale and bias."""
    return conv.outputs if conv.bias else 2 * conv.outputs
