"""The rows of a stage table as the DRN paper counts them: layers of one dilation and resolution are
a level. Residual networks have a row a level; of VGG and the context module several make one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from drn_jax.models.stages import Kind, Stage, row_cells


@dataclass(frozen=True)
class Level:
    """One level, or a pooling."""

    name: str
    """"level 5", "stem", "conv3"."""
    stage: str
    """The last of its rows: its map leaves the level."""
    kind: Kind
    channels: int
    """That leave it."""
    blocks: int
    """Residual blocks, or convolutions one behind another."""
    kernel: int
    stride: int
    dilation: int
    """1 where its kernels have one place."""
    first_dilation: int
    """Of its first convolution of more than one place."""
    residual: bool
    size: int
    """Cells along an axis."""
    total_stride: int
    """Pixels of the input between neighbouring cells."""
    column: int
    """Its place in the chart: levels of different networks in one column correspond."""


def of(table: Sequence[Stage], size: int) -> tuple[Level, ...]:
    """The levels of a table without its classifier, for an input of `size` pixels."""
    found: list[Level] = []
    stride = 1
    for stage in table:
        size = row_cells(stage, size)
        stride *= stage.stride
        level = _level(stage, size, stride)
        if found and _continues(found[-1], level):
            level = replace(level, blocks=found[-1].blocks + level.blocks)
            found.pop()
        found.append(level)
    columns = _columns(found)
    return tuple(replace(row, column=i) for row, i in zip(found, columns, strict=True))


def are_numbered(found: Sequence[Level]) -> bool:
    """Whether they are levels as the DRN paper counts them: of a residual network."""
    return any(row.name.startswith("level") for row in found)


def _level(stage: Stage, size: int, stride: int) -> Level:
    dilation = stage.dilation if stage.kernel > 1 else 1
    first = dilation if stage.first_dilation is None else stage.first_dilation[0]
    return Level(
        name=_name(stage),
        stage=stage.name,
        kind=stage.kind,
        channels=stage.outputs,
        blocks=stage.blocks,
        kernel=stage.kernel,
        stride=stage.stride,
        dilation=dilation,
        first_dilation=first,
        residual=stage.kind in ("basic", "bottleneck") and stage.residual,
        size=size,
        total_stride=stride,
        column=0,
    )


def _name(stage: Stage) -> str:
    if stage.kind == "max_pool":
        return "max-pool"
    if stage.kind == "plain":
        return stage.name.removeprefix("ctx_").partition("_")[0]
    return stage.name.replace("level", "level ")


def _continues(before: Level, level: Level) -> bool:
    """Whether two rows are one level."""
    return (
        before.kind == level.kind == "plain"
        and level.stride == 1
        and before.name == level.name
        and before.dilation == level.dilation
    )


def _columns(found: Sequence[Level]) -> list[int]:
    """By the level's number in the paper's Fig. 5, where the groups of a ResNet and of DRN-A stand
    under levels 3 to 6, of as many channels; of other networks one behind another."""
    if not are_numbered(found):
        return [i for i, _ in zip(count(), found, strict=False)]
    pools = any(row.kind == "max_pool" for row in found)
    columns = []
    for row in found:
        word, _, number = row.name.partition(" ")
        column = int(number) + pools if word == "level" else 2 if row.kind == "max_pool" else pools
        columns.append(int(column))
    return columns
