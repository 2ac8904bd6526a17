"""The stage table: what a residual network is, in rows.

A network is a tuple of `Stage` rows. `blocks` spells a row out as the convolutions that it stands
for, and everything that must agree is read from that one expansion: the network itself
(`resnet.ResidualNetwork`), its cost (`analysis.cost`), and the parameter names.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["conv", "basic", "bottleneck", "max_pool"]

EXPANSION = {"conv": 1, "basic": 1, "bottleneck": 4, "max_pool": 1}
"""Output channels of a block over the stage's `channels` (He et al. 2016)."""


@dataclass(frozen=True)
class Stage:
    """One row: a run of equal blocks at one resolution. The DRN papers call it a level.

    Only the first block strides. `dilation` is that of every convolution in the row, except that
    `first_dilation` gives the (first, second) 3x3 convolution of the first block dilations of
    their own: a converted ResNet keeps its receptive field only if the convolution that lost its
    stride still dilates like the level before (DRN paper, Fig. 1). A bottleneck has one 3x3
    convolution and takes the first of the two.
    """

    name: str
    kind: Kind
    channels: int
    blocks: int = 1
    stride: int = 1
    dilation: int = 1
    first_dilation: tuple[int, int] | None = None
    residual: bool = True
    kernel: int = 3

    @property
    def outputs(self) -> int:
        """Channels that leave the stage."""
        return self.channels * EXPANSION[self.kind]


@dataclass(frozen=True)
class Conv:
    """One convolution with batch norm, padded so that stride 1 keeps the size."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1

    @property
    def norm(self) -> str:
        """Name of the batch norm behind the convolution."""
        return self.name.replace("conv", "norm") if "conv" in self.name else f"{self.name}_norm"

    @property
    def padding(self) -> int:
        """Pixels of zeros on each side, also at stride 2, as in PyTorch."""
        return self.dilation * (self.kernel // 2)


@dataclass(frozen=True)
class Block:
    """A chain of convolutions with ReLU between, and what is added before the last ReLU.

    `shortcut` is "none" (nothing is added), "identity", or a 1x1 convolution of the input.
    """

    name: str
    path: tuple[Conv, ...]
    shortcut: Conv | Literal["none", "identity"]


def blocks(stage: Stage, inputs: int) -> Iterator[Block]:
    """The blocks of a stage that receives `inputs` channels; none for a pooling stage."""
    if stage.kind == "max_pool":
        return
    for index in range(stage.blocks):
        first = index == 0
        stride = stage.stride if first else 1
        dilations = (stage.dilation, stage.dilation)
        if first and stage.first_dilation is not None:
            dilations = stage.first_dilation
        path = _path(stage, inputs, stride, dilations)
        if stage.kind == "conv" or not stage.residual:
            shortcut = "none"
        elif stride == 1 and inputs == stage.outputs:
            shortcut = "identity"
        else:
            shortcut = Conv("projection", inputs, stage.outputs, kernel=1, stride=stride)
        yield Block(f"block{index + 1}", path, shortcut)
        inputs = stage.outputs


def _path(stage: Stage, inputs: int, stride: int, dilations: tuple[int, int]) -> tuple[Conv, ...]:
    width, kernel = stage.channels, stage.kernel
    if stage.kind == "conv":
        return (Conv("conv1", inputs, width, kernel, stride, dilations[0]),)
    if stage.kind == "basic":
        return (
            Conv("conv1", inputs, width, kernel, stride, dilations[0]),
            Conv("conv2", width, width, kernel, 1, dilations[1]),
        )
    return (
        Conv("conv1", inputs, width, 1),
        Conv("conv2", width, width, kernel, stride, dilations[0]),
        Conv("conv3", width, stage.outputs, 1),
    )


def scale_width(stages: tuple[Stage, ...], width: float) -> tuple[Stage, ...]:
    """The same table with every channel count multiplied by `width`, rounded, at least 1."""
    return tuple(replace(s, channels=max(1, round(s.channels * width))) for s in stages)


def output_stride(stages: tuple[Stage, ...]) -> int:
    """Input pixels between neighbouring cells of the last feature map."""
    stride = 1
    for stage in stages:
        stride *= stage.stride
    return stride
