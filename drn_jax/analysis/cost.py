"""What a network costs, counted from its stage table: parameters and multiply-adds."""

from dataclasses import dataclass

from drn_jax.models.stages import Conv, Stage, blocks


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
    stages: tuple[Stage, ...], num_classes: int, height: int, width: int, *, pooled: bool
) -> tuple[StageCost, ...]:
    """The cost of every stage and, last, of the 1x1 classifier ("head") for one image.

    `pooled` applies the classifier once, to the mean (classification), else at every cell.
    """
    rows, channels = [], 3
    for stage in stages:
        parameters = multiply_adds = 0
        for block in blocks(stage, channels):
            convs = list(block.path)
            for conv in block.path:
                height, width = _strided(height, conv.stride), _strided(width, conv.stride)
                multiply_adds += _weights(conv) * height * width
            if isinstance(block.shortcut, Conv):
                convs.append(block.shortcut)
                multiply_adds += _weights(block.shortcut) * height * width
            parameters += sum(_weights(conv) + 2 * conv.outputs for conv in convs)
        if stage.kind == "max_pool":
            height, width = _strided(height, stage.stride), _strided(width, stage.stride)
        else:
            channels = stage.outputs
        rows.append(StageCost(stage.name, height, width, channels, parameters, multiply_adds))
    weights = channels * num_classes
    cells = 1 if pooled else height * width
    head = StageCost("head", height, width, num_classes, weights + num_classes, weights * cells)
    return (*rows, head)


def _weights(conv: Conv) -> int:
    return conv.kernel**2 * conv.inputs * conv.outputs


def _strided(size: int, stride: int) -> int:
    return (size - 1) // stride + 1
