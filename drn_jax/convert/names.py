"""Where every convolution of a stage table is kept, here and in each published codebase.

`units(stages, layout)` is the whole rule table: one row a convolution with its batch norm. Layouts:
  "fyu"           fyu/drn's classifiers, and torchvision's ResNets: `layer3.0.conv1`, `fc`
  "fyu_segment"   fyu/drn's segmentation networks: `base.3.0.conv1`, `seg`, `up`
  "pytorchcv"     pytorchcv's DRNs: `features.stage3.unit1.body.conv1.conv`, `output`
  "torchvision_vgg"
                  torchvision's VGG-16: `features.0`, `classifier.3`, `classifier.6`
Caffe's names are in `caffe`.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

from drn_jax.models import MODELS
from drn_jax.models.dilation import PUBLISHED
from drn_jax.models.stages import Conv, Stage, blocks

Layout = Literal["fyu", "fyu_segment", "pytorchcv", "torchvision_vgg"]

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

CAFFE = ("vgg_16", "vgg_16_front_end", *PUBLISHED)
"""Networks that Caffe's weights were published of."""

TORCH = tuple(
    name
    for name, table in MODELS.items()
    if name == "vgg_16" or any(stage.kind not in ("plain", "max_pool") for stage in table())
)
"""Networks that PyTorch's weights were published of: all with batch norm, and VGG-16."""

HEAD: dict[Layout, str] = {
    "fyu": "fc",
    "fyu_segment": "seg",
    "pytorchcv": "output",
    "torchvision_vgg": "classifier.6",
}
"""The classifier, `.weight` and `.bias`."""

UPSAMPLING = "up.weight"
"""The fixed kernel of the transposed convolution in fyu/drn's segmentation networks."""


class Unit(NamedTuple):
    """One convolution, and its batch norm unless it has a bias."""

    scope: tuple[str, ...]
    """Stage and block of ours that hold it; empty for a "plain" row."""
    conv: Conv
    theirs: tuple[str, str]
    """Prefix of their convolution and of their batch norm ("": none)."""
    used: bool
    """False: the published state carries it, the network does not compute with it."""
    linear: bool = False
    """Kept as a matrix [O, I*k*k]."""


def units(stages: tuple[Stage, ...], layout: Layout) -> Iterator[Unit]:
    """Every convolution of the table, in the order of the network."""
    channels = 3
    for stage, place in zip(stages, _places(stages, layout), strict=True):
        for index, block in enumerate(blocks(stage, channels)):
            scope = (stage.name, block.name) if block.name else ()
            for conv in block.path:
                theirs = place.conv(stage, index, conv.name)
                linear = theirs[0].startswith(f"{_DENSE}.")
                yield Unit(scope, conv, theirs, used=True, linear=linear)
            if isinstance(block.shortcut, Conv):
                yield Unit(scope, block.shortcut, place.shortcut(index), used=True)
            elif layout != "pytorchcv" and _has_dead_shortcut(stage, index, channels):
                dead = Conv("projection", channels, stage.outputs, kernel=1, stride=stage.stride)
                yield Unit(scope, dead, place.shortcut(index), used=False)
        if stage.kind != "max_pool":
            channels = stage.outputs


def has_linear_head(stages: tuple[Stage, ...], layout: Layout) -> bool:
    """Whether the published classifier is a matrix [classes, C]: VGG, ResNets and what comes of
    them."""
    pools = any(stage.kind == "max_pool" for stage in stages)
    return layout == "torchvision_vgg" or (layout == "fyu" and pools)


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


class _Torchvision(NamedTuple):
    """A row of VGG in torchvision: a member of one of its two `Sequential`s."""

    prefix: str

    def conv(self, stage: Stage, index: int, name: str) -> tuple[str, str]:
        return self.prefix, ""

    def shortcut(self, index: int) -> tuple[str, str]:
        raise AssertionError("no row of VGG has a shortcut")


_DENSE = "classifier"
"""The second `Sequential` of torchvision's VGG, of matrices."""


def _places(
    stages: tuple[Stage, ...], layout: Layout
) -> Iterator[_Fyu | _PytorchCV | _Torchvision]:
    """Where each stage of the table is kept."""
    if layout == "torchvision_vgg":
        members = {"features": 0, _DENSE: 0}
        for stage in stages:
            part = _DENSE if stage.name.startswith("fc") else "features"
            yield _Torchvision(f"{part}.{members[part]}")
            # A convolution is followed by ReLU, a matrix by ReLU and dropout.
            members[part] += 3 if part == _DENSE else 1 if stage.kind == "max_pool" else 2
        return
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
