"""The tables of Dilated Residual Networks (Yu, Koltun, Funkhouser, CVPR 2017).

They follow the paper's Fig. 5 (C) and the published code of fyu/drn (C, D). Levels 5 and 6 dilate
by 2 and 4 instead of striding, so the last map is 1/8 of the image; levels 7 and 8 dilate by 2 and
1 without residual connections, which removes the gridding that the dilation leaves.
"""

from drn_jax.models.stages import Kind, Stage

Counts = tuple[int, int, int, int, int, int, int, int]
"""Blocks in levels 1 to 8."""


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


STAGES: dict[str, tuple[Stage, ...]] = {
    "drn_c_26": drn_c("basic", (1, 1, 2, 2, 2, 2, 1, 1)),
    "drn_c_42": drn_c("basic", (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_c_58": drn_c("bottleneck", (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_d_22": drn_d("basic", (1, 1, 2, 2, 2, 2, 1, 1)),
    "drn_d_38": drn_d("basic", (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_d_54": drn_d("bottleneck", (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_d_105": drn_d("bottleneck", (1, 1, 3, 4, 23, 3, 1, 1)),
}
