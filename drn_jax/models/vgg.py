"""The tables of VGG-16 (Simonyan & Zisserman 2015) and of the dilated front end cut from it (Yu &
Koltun 2016, section 4): the same parameters but for the classifier."""

from dataclasses import replace
from typing import Literal

from drn_jax.errors import UserError
from drn_jax.models.stages import Stage

Padding = Literal["none", "zero"]

FINAL_STD = 0.001
"""Deviation with which the front end's new classifier is drawn (published code)."""

_LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""(channels, convolutions) between two poolings."""

_KEPT_POOLS = 3
"""Poolings that the front end keeps: its maps are an eighth of the image."""


def vgg_16(dropout: float = 0.5, fc_channels: int = 4096) -> tuple[Stage, ...]:
    """The ImageNet classifier, fc6 and fc7 as convolutions: 7x7 and 1x1, of `fc_channels`.

    At 224x224 one cell is left; a larger image gives a map of them. Poolings round up, as Caffe's.

    Raises: UserError for a dropout outside [0, 1).
    """
    if not 0 <= dropout < 1:
        raise UserError(f"VGG's dropout {dropout} must be at least 0 and below 1")
    rows = []
    for level, (channels, count) in enumerate(_LEVELS, 1):
        names = [f"conv{level}_{i + 1}" for i in range(count)]
        rows += [Stage(name, "plain", channels) for name in names]
        rows.append(
            Stage(f"pool{level}", "max_pool", channels, stride=2, kernel=2, padding=0, ceil=True)
        )
    return (
        *rows,
        Stage("fc6", "plain", fc_channels, kernel=7, padding=0, dropout=dropout),
        Stage("fc7", "plain", fc_channels, kernel=1, dropout=dropout),
    )


def front_end(
    padding: Padding = "none", dropout: float = 0.5, fc_channels: int = 4096
) -> tuple[Stage, ...]:
    """The dilated front end: the last two poolings are gone, and all behind each dilates twice as
    much (conv5 by 2, fc6 by 4).

    `padding="none"`, the paper's: no zeros anywhere, so that the image brings 186 pixels of
    surroundings on each side. "zero" pads every convolution instead: cheaper, with borders of its
    own; parameters are the same.

    Raises: UserError for another padding.
    """
    if padding not in ("none", "zero"):
        raise UserError(f"the VGG front end has no padding {padding!r}: use 'none' or 'zero'")
    dilation, pools, rows = 1, 0, []
    for row in vgg_16(dropout, fc_channels):
        if row.kind == "max_pool":
            pools += 1
            if pools > _KEPT_POOLS:
                dilation *= row.stride
            else:
                rows.append(row)
            continue
        rows.append(replace(row, dilation=dilation, padding=0 if padding == "none" else None))
    return tuple(rows)
