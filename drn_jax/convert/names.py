"""Where every convolution of a stage table is kept, here and in each published codebase.

`units(stages, layout)` is the whole rule table: one row a convolution with its batch norm. Layouts:
  "fyu"           fyu/drn's classifiers, and torchvision's ResNets: `layer3.0.conv1`, `fc`
  "fyu_segment"   fyu/drn's segmentation networks: `base.3.0.conv1`, `seg`, `up`
  "pytorchcv"     pytorchcv's DRNs: `features.stage3.unit1.body.conv1.conv`, `output`
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from drn_jax.models.stages import Conv, Stage, blocks

Layout = Literal["fyu", "fyu_segment", "pytorchcv"]

HEAD: dict[Layout, str] = {"fyu": "fc", "fyu_segment": "seg", "pytorchcv": "output"}
"""The classifier, `.weight` and `.bias`."""

UPSAMPLING = "up.weight"
"""The fixed kernel of the transposed convolution in fyu/drn's segmentation networks."""


class Unit(NamedTuple):
    """One convolution and its batch norm."""

    scope: tuple[str, str]
    """Stage and block of ours that hold it."""
    conv: Conv
    theirs: tuple[str, str]
    """Prefix of their convolution and of their batch norm."""
    used: bool
    """False: the published state carries it, the network does not compute with it."""


def units(stages: tuple[Stage, ...], layout: Layout) -> Iterator[Unit]:
    """Every convolution of the table, in the order of the network."""
    channels = 3
    for stage, place in zip(stages, _places(stages, layout), strict=True):
        for index, block in enumerate(blocks(stage, channels)):
            scope = (stage.name, block.name)
            for conv in block.path:
                yield Unit(scope, conv, place.conv(stage, index, conv.name), used=True)
            if isinstance(block.shortcut, Conv):
                yield Unit(scope, block.shortcut, place.shortcut(index), used=True)
            elif layout != "pytorchcv" and _has_dead_shortcut(stage, index, channels):
                dead = Conv("projection", channels, stage.outputs, kernel=1, stride=stage.stride)
                yield Unit(scope, dead, place.shortcut(index), used=False)
        if stage.kind != "max_pool":
            channels = stage.outputs


def has_linear_head(stages: tuple[Stage, ...]) -> bool:
    """Whether the published classifier is a matrix [classes, C]: ResNets and what comes of them."""
    return any(stage.kind == "max_pool" for stage in stages)


def _has_dead_shortcut(stage: Stage, index: int, inputs: int) -> bool:
    """fyu/drn makes a projection wherever the channels change, and never adds it where the level
    is not residual: level 7 of DRN-C-58."""
    changes = inputs != stage.outputs or stage.stride != 1
    return stage.kind in ("basic", "bottleneck") and not stage.residual and index == 0 and changes


class _Fyu(NamedTuple):
    """A level in fyu/drn and torchvision; plain convolutions are `Sequential(conv, bn, relu, ...)`.

    The stem of the other networks is not wrapped: its convolution and norm have names of their own.
    """

    prefix: str
    bare: tuple[str, str] | None = None

    def conv(self, stage: Stage, index: int, name: str) -> tuple[str, str]:
        if self.bare:
            return self.bare
        if stage.kind == "conv":
            return f"{self.prefix}.{3 * index}", f"{self.prefix}.{3 * index + 1}"
        block = f"{self.prefix}.{index}"
        return f"{block}.{name}", f"{block}.{name.replace('conv', 'bn')}"

    def shortcut(self, index: int) -> tuple[str, str]:
        return f"{self.prefix}.{index}.downsample.0", f"{self.prefix}.{index}.downsample.1"


class _PytorchCV(NamedTuple):
    """A level in pytorchcv, whose stages hold the levels of one resolution as numbered units."""

    prefix: str
    before: int = 0

    def conv(self, stage: Stage, index: int, name: str) -> tuple[str, str]:
        if self.prefix == _PYTORCHCV_STEM:
            return f"{self.prefix}.conv", f"{self.prefix}.bn"
        inner = "" if stage.kind == "conv" else f".{name}"
        body = f"{self._unit(index)}.body{inner}"
        return f"{body}.conv", f"{body}.bn"

    def shortcut(self, index: int) -> tuple[str, str]:
        return f"{self._unit(index)}.identity_conv.conv", f"{self._unit(index)}.identity_conv.bn"

    def _unit(self, index: int) -> str:
        return f"{self.prefix}.unit{self.before + index + 1}"


_PYTORCHCV_STEM = "features.init_block"


def _places(stages: tuple[Stage, ...], layout: Layout) -> Iterator[_Fyu | _PytorchCV]:
    """Where each stage of the table is kept."""
    rest = stages[1:]
    if layout == "pytorchcv":
        yield _PytorchCV(_PYTORCHCV_STEM)
        group, before = 1, 0
        for stage in rest:
            if stage.stride > 1:
                group, before = group + 1, 0
            yield _PytorchCV(f"features.stage{group}", before)
            before += stage.blocks
        return
    wrapped = rest[0].kind == "conv"  # DRN-D wraps its stem like a level, as layer0.
    if layout == "fyu":
        yield _Fyu("layer0", None if wrapped else ("conv1", "bn1"))
        number, prefix = 0, "layer"
    else:  # Numbered as the children of the classifier: conv1, bn1, relu, (maxpool,) layer1, ...
        yield _Fyu("base.0", None if wrapped else ("base.0", "base.1"))
        number, prefix = 0 if wrapped else 2, "base."
    for stage in rest:
        number += stage.kind != "max_pool" or layout == "fyu_segment"
        yield _Fyu(f"{prefix}{number}")
