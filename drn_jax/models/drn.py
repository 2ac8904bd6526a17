"""The tables of ResNets (He et al. 2016) and Dilated Residual Networks (Yu et al., CVPR 2017).

A DRN keeps the image at 1/8: levels that a ResNet strides dilate instead. DRN-A is a converted
ResNet; DRN-B, C (paper, Fig. 5) and D (published code) remove the gridding that dilation leaves,
by a convolutional stem and by levels 7 and 8, whose dilation falls to 2 and 1.
"""

from dataclasses import replace
from typing import Literal

from drn_jax.errors import UserError
from drn_jax.models.stages import Kind, Stage

Counts = tuple[int, int, int, int, int, int, int, int]
"""Blocks in levels 1 to 8."""

OUTPUT_STRIDES = (32, 16, 8, 4)
Variant = Literal["paper", "published_code"]


def resnet(kind: Kind, n: tuple[int, int, int, int]) -> tuple[Stage, ...]:
    """ResNet as in torchvision, whose bottlenecks stride in their 3x3 convolution. Levels 2 to 5
    are the groups of the DRN paper: G2 to G5, conv2_x to conv5_x of He et al."""
    return (
        Stage("stem", "conv", 64, kernel=7, stride=2),
        Stage("pool", "max_pool", 64, stride=2),
        Stage("level2", kind, 64, n[0]),
        Stage("level3", kind, 128, n[1], stride=2),
        Stage("level4", kind, 256, n[2], stride=2),
        Stage("level5", kind, 512, n[3], stride=2),
    )


def drn_a(
    kind: Kind,
    n: tuple[int, int, int, int],
    output_stride: int = 8,
    variant: Variant = "paper",
) -> tuple[Stage, ...]:
    """DRN-A: the ResNet of the same parameters, dilated where it would stride beyond
    `output_stride` (32, 16, 8 or 4).

    A convolution that loses its stride s leaves all behind it s times more dilated, but not itself
    (paper, section 2 and Fig. 1). So every unit keeps its receptive field, and the ResNet's maps
    are every (32/output_stride)-th row and column of these. `variant="published_code"` is
    fyu/drn's `DRN_A`: there the whole first block of a converted level has dilation 1.

    Raises: UserError for another stride or variant.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(f"output_stride {output_stride} is none of {OUTPUT_STRIDES}")
    if variant not in ("paper", "published_code"):
        raise UserError(f"DRN-A has no variant {variant!r}: use 'paper' or 'published_code'")
    stride, dilation, stages = 1, 1, []
    for stage in resnet(kind, n):
        if stride * stage.stride <= output_stride:
            stride *= stage.stride
            stages.append(stage)
            continue
        before, dilation = dilation, dilation * stage.stride
        first = (before, dilation) if variant == "paper" else (1, 1)
        stages.append(replace(stage, stride=1, dilation=dilation, first_dilation=first))
    return tuple(stages)


def drn_b(kind: Kind, n: Counts) -> tuple[Stage, ...]:
    """DRN-B (paper, Fig. 5): as DRN-C, but levels 7 and 8 are residual too."""
    return tuple(replace(stage, residual=True) for stage in drn_c(kind, n))


def drn_c(kind: Kind, n: Counts) -> tuple[Stage, ...]:
    """DRN-C (paper, Fig. 5): levels 1 to 6 are residual, 3 to 6 of them made of `kind`."""
    return (
        Stage("stem", "conv", 16, kernel=7),
        Stage("level1", "basic", 16, n[0]),
        Stage("level2", "basic", 32, n[1], stride=2),
        Stage("level3", kind, 64, n[2], stride=2),
        Stage("level4", kind, 128, n[3], stride=2),
        Stage("level5", kind, 256, n[4], dilation=2),
        Stage("level6", kind, 512, n[5], dilation=4),
        Stage("level7", "basic", 512, n[6], dilation=2, residual=False),
        Stage("level8", "basic", 512, n[7], residual=False),
    )


def drn_d(kind: Kind, n: Counts) -> tuple[Stage, ...]:
    """DRN-D (published code only): levels 1, 2, 7 and 8 are plain convolutions."""
    return (
        Stage("stem", "conv", 16, kernel=7),
        Stage("level1", "conv", 16, n[0]),
        Stage("level2", "conv", 32, n[1], stride=2),
        Stage("level3", kind, 64, n[2], stride=2),
        Stage("level4", kind, 128, n[3], stride=2),
        Stage("level5", kind, 256, n[4], dilation=2),
        Stage("level6", kind, 512, n[5], dilation=4),
        Stage("level7", "conv", 512, n[6], dilation=2),
        Stage("level8", "conv", 512, n[7]),
    )
