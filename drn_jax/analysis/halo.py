"""What spatial partitioning asks of a network: with the rows of every map over S devices, those
that a layer needs from beyond its own share, the halo. Counted from the stage table.

The compiler (XLA's SPMD partitioner) gives every shard ceil(h/S) of a map's h rows, the last ones
fewer or none. It moves a halo by permutes, one for every shard that it reaches into on either side,
and gathers the map on every device where a halo of several shards would hold all of it.

Heights that are multiples of S times the output stride are the safe ones. Elsewhere a map may have
rows that S does not divide, and the compiler may keep it on fewer shards (each on several devices,
which then do the same work), or gather it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from drn_jax.models.stages import Conv, Stage, blocks, least_size, pool_padding, strided


@dataclass(frozen=True)
class Halo:
    """What a shard needs of the map that a layer reads."""

    name: str
    """Of the row."""
    before: int
    """Rows above its own, on the shard that needs most."""
    after: int
    """Rows below its own."""
    held: int
    """Its own rows; the last shards may have fewer."""
    shards: int

    @property
    def rows(self) -> int:
        """The wider side's."""
        return max(self.before, self.after)

    @property
    def outgrown(self) -> bool:
        """Rows come from beyond the neighbour."""
        return self.rows > self.held

    @property
    def gathered(self) -> bool:
        """The compiler gathers the map instead."""
        return self.outgrown and self.before + self.held + self.after >= self.held * self.shards

    @property
    def permutes(self) -> int:
        """Exchanges between neighbours in the forward pass."""
        return 0 if self.gathered else -(-self.before // self.held) - (-self.after // self.held)


def of_layers(table: tuple[Stage, ...], height: int, shards: int) -> Iterator[Halo]:
    """The halo of every convolution and pooling, shortcuts too.

    Args:
      height: rows of the input, its margin included; so many that every map has some.
      shards: S.
    """
    for stage in table:
        if stage.kind == "max_pool":
            yield _halo(stage.name, stage, height, shards)
            height = strided(height, stage)
        for block in blocks(stage, stage.channels):
            if isinstance(block.shortcut, Conv):
                yield _halo(stage.name, block.shortcut, height, shards)
            for conv in block.path:
                yield _halo(stage.name, conv, height, shards)
                height = strided(height, conv)


def of_stages(table: tuple[Stage, ...], height: int, shards: int) -> tuple[Halo, ...]:
    """The halo of every row: of its layers that which is widest for the shard that it falls on."""
    rows = {}
    for halo in of_layers(table, height, shards):
        rows.setdefault(halo.name, []).append(halo)
    return tuple(max(row, key=lambda halo: halo.rows / halo.held) for row in rows.values())


def outgrown(table: tuple[Stage, ...], height: int, shards: int) -> tuple[Halo, ...]:
    """The halos that reach beyond the neighbour."""
    return tuple(halo for halo in of_stages(table, height, shards) if halo.outgrown)


def least_height(table: tuple[Stage, ...], shards: int, multiple: int) -> int:
    """The smallest input, a multiple of `multiple` rows, in which no halo outgrows a shard."""
    least = -(-least_size(table) // multiple) * multiple
    return next(height for height in count(least, multiple) if not outgrown(table, height, shards))


def _halo(name: str, layer: Conv | Stage, height: int, shards: int) -> Halo:
    """Output rows too are ceil(h/S) a shard. Where the two shares disagree (uneven heights,
    unpadded convolutions), a shard's output drifts away from its input, by more rows the further
    down it lies."""
    if isinstance(layer, Conv):
        reach, padding = layer.dilation * (layer.kernel - 1), layer.padding
    else:
        reach, padding = layer.kernel - 1, pool_padding(layer)
    held, made = -(-height // shards), -(-strided(height, layer) // shards)
    drift = made * layer.stride - held
    before = [padding - drift * shard for shard in range(1, shards)]
    after = [drift * shard + reach - padding + 1 - layer.stride for shard in range(1, shards)]
    return Halo(name, max([0, *before]), max([0, *after]), held, shards)
