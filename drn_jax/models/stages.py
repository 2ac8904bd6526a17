"""The stage table: what a network is, in rows.

A network is a tuple of `Stage` rows. `blocks` spells a row out as the convolutions that it stands
for, and everything that must agree is read from that one expansion: the network itself
(`network.Network`, `context.ContextModule`), its receptive field and cost (`analysis`), and the
parameter names.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, TypeVar

import jax

Size = TypeVar("Size", int, jax.Array)
"""Cells along an axis: of one map, or integers of any shape, also traced."""

Kind = Literal["conv", "basic", "bottleneck", "plain", "max_pool"]
"""What a row is made of: convolutions with batch norm ("conv"), the residual blocks of He et al.
("basic", "bottleneck"), one convolution with a bias and no norm ("plain": VGG, the context module,
classifiers), or a pooling."""

EXPANSION = {"conv": 1, "basic": 1, "bottleneck": 4, "plain": 1, "max_pool": 1}
"""Output channels of a block over the stage's `channels` (He et al. 2016)."""


@dataclass(frozen=True)
class Stage:
    """One row: a run of equal blocks at one resolution. The DRN papers call it a level.

    Only the first block strides. `dilation` is that of every convolution in the row, except that
    `first_dilation` gives the (first, second) 3x3 convolution of the first block dilations of
    their own: a converted ResNet keeps its receptive field only if the convolution that lost its
    stride still dilates like the level before (DRN paper, Fig. 1). A bottleneck has one 3x3
    convolution and takes the first of the two.

    A "plain" row is one convolution; only it reads `relu` and `dropout`.
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
    padding: int | None = None
    """Pixels on each side of every map; None: so many that stride 1 keeps the size."""
    ceil: bool = False
    """A pooling whose last window may hang over the edge, as Caffe's do."""
    relu: bool = True
    dropout: float = 0.0
    """Share of the outputs that training sets to 0."""

    @property
    def outputs(self) -> int:
        """Channels that leave the stage."""
        return self.channels * EXPANSION[self.kind]


@dataclass(frozen=True)
class Conv:
    """One convolution, with batch norm or with a bias."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    bias: bool = False
    pad: int | None = None

    @property
    def norm(self) -> str:
        """Name of the batch norm behind the convolution."""
        return self.name.replace("conv", "norm") if "conv" in self.name else f"{self.name}_norm"

    @property
    def padding(self) -> int:
        """Pixels of zeros on each side, also at stride 2, as in PyTorch: `pad`, or so many that
        stride 1 keeps the size."""
        return self.dilation * (self.kernel // 2) if self.pad is None else self.pad


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
    if stage.kind == "plain":
        yield Block("", (_conv(stage, stage.name, inputs),), "none")
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


def _conv(stage: Stage, name: str, inputs: int) -> Conv:
    """The convolution of a "plain" row."""
    return Conv(
        name,
        inputs,
        stage.channels,
        stage.kernel,
        stage.stride,
        stage.dilation,
        bias=True,
        pad=stage.padding,
    )


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


def pool_padding(stage: Stage) -> int:
    """Pixels around the map of a pooling row, on each side."""
    return stage.kernel // 2 if stage.padding is None else stage.padding


def strided(size: Size, layer: Conv | Stage) -> Size:
    """Cells along an axis of `size` behind a convolution or a pooling row; 0 if none is left."""
    if isinstance(layer, Conv):
        reach, room = layer.dilation * (layer.kernel - 1), size + 2 * layer.padding
    else:
        reach, room = layer.kernel - 1, size + 2 * pool_padding(layer)
        if layer.ceil:
            room += (reach + 1 - room) % layer.stride
    steps = (room - reach - 1) // layer.stride + 1
    return steps * (steps > 0)


def cells(stages: tuple[Stage, ...], size: Size) -> Size:
    """Cells of the last map along an axis for an input of `size` pixels; 0 if none is left."""
    for stage in stages:
        size = row_cells(stage, size)
    return size


def row_cells(stage: Stage, size: Size) -> Size:
    """Cells along an axis of `size` behind one row."""
    for layer in layers(stage):
        size = strided(size, layer) * (size > 0)
    return size


def layers(*stages: Stage) -> Iterator[Conv | Stage]:
    """The convolutions and poolings of rows one behind another, shortcuts aside."""
    for stage in stages:
        if stage.kind == "max_pool":
            yield stage
        for block in blocks(stage, stage.channels):
            yield from block.path


def least_size(stages: tuple[Stage, ...]) -> int:
    """The smallest input that leaves one cell, pixels."""
    return next(size for size in count(1) if cells(stages, size))


def surroundings(stages: tuple[Stage, ...]) -> int:
    """Pixels on each side of an image that its network needs to give a cell for every
    `output_stride` pixels: what its rows leave unpadded, 186 for the dilated VGG front end."""
    stride, missing = 1, 0
    for stage in stages:
        if stage.kind == "plain":
            [conv] = next(blocks(stage, 1)).path
            missing += stride * (conv.dilation * (conv.kernel - 1) - 2 * conv.padding)
        stride *= stage.stride
    return missing // 2


def scale_width(stages: tuple[Stage, ...], width: float) -> tuple[Stage, ...]:
    """The same table with every channel count multiplied by `width`, rounded, at least 1."""
    return tuple(replace(s, channels=max(1, round(s.channels * width))) for s in stages)


def output_stride(stages: tuple[Stage, ...]) -> int:
    """Input pixels between neighbouring cells of the last feature map."""
    stride = 1
    for stage in stages:
        stride *= stage.stride
    return stride


def classifier(num_classes: int) -> Stage:
    """The row behind a network's table: the 1x1 convolution that scores every cell."""
    return Stage("head", "plain", num_classes, kernel=1, relu=False)
