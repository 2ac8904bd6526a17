"""What the benchmarks compute: networks at a size, told so that either library can build them."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp

from drn_jax import models
from drn_jax.analysis import cost
from drn_jax.errors import UserError
from drn_jax.models.context import ContextModule
from drn_jax.models.convolution import Method
from drn_jax.models.dilation import ContextNetwork
from drn_jax.models.inputs import Preprocess
from drn_jax.models.stages import Conv, Stage, blocks, output_stride, pool_padding
from drn_jax.tasks import Classification, Segmentation

ALIASES = {"dilation8": "dilation8_camvid"}
DTYPES = ("float32", "tf32", "bfloat16")
"""tf32: float32 whose products lose 13 bits, on GPUs."""

CITYSCAPES = 19
"""Classes of a segmenter."""


@dataclass(frozen=True)
class Case:
    """A network to train or apply."""

    network: str
    """A name of `models.MODELS`, or of `ALIASES`."""
    width: float = 1.0
    task: str = ""
    """classification or segmentation; "": what the network is for."""
    batch: int = 8
    size: int = 224
    """Pixels a side of the images, without margin."""
    dtype: str = "float32"
    convolution: Method = "auto"

    @property
    def name(self) -> str:
        """Of the network, in `models.MODELS`."""
        return ALIASES.get(self.network, self.network)

    @cached_property
    def model(self) -> models.OfImages:
        """Raises: UserError for what has no such name, takes no images, or upsamples by itself."""
        dense = self.name in models.CLASSES
        classes = CITYSCAPES if self.task == "segmentation" and not dense else None
        dtype = jnp.bfloat16 if self.dtype == "bfloat16" else jnp.float32
        model = models.create(self.name, classes, self.width, dtype, convolution=self.convolution)
        if isinstance(model, ContextModule):
            raise UserError(f"{self.network} takes maps, not images")
        if isinstance(model, ContextNetwork) and model.upsampling:
            raise UserError(f"{self.network} has a transposed convolution, which the peer lacks")
        return model

    @property
    def segments(self) -> bool:
        """Whether every pixel gets a class; else the image does."""
        dense = self.name in models.CLASSES
        if dense and self.task == "classification":
            raise UserError(f"{self.network} is for segmentation")
        return dense or self.task == "segmentation"

    @property
    def goal(self) -> Classification | Segmentation:
        """With the loss."""
        classes = self.model.num_classes
        if not self.segments:
            return Classification(classes)
        return Segmentation(classes, output_stride(self.model.stages))

    @property
    def preprocess(self) -> Preprocess:
        """Of images that bring their margin."""
        return models.preprocessing(self.name)

    @property
    def side(self) -> int:
        """Pixels of the input, its margin included."""
        return self.size + 2 * self.preprocess.margin

    @property
    def costs(self) -> tuple[cost.StageCost, ...]:
        """Of every row for one image."""
        return cost.of(self.model.table, self.side, self.side, pooled=not self.segments)

    def for_peer(self) -> dict[str, Any]:
        """All of it, in numbers and words."""
        preprocess = self.preprocess
        return {
            "rows": [row(stage, inputs) for stage, inputs in with_inputs(self.model.table)],
            "segments": self.segments,
            "classes": self.model.num_classes,
            "stride": output_stride(self.model.stages),
            "batch": self.batch,
            "size": self.size,
            "side": self.side,
            "dtype": self.dtype,
            "mean": preprocess.mean,
            "std": preprocess.std,
            "bgr": preprocess.space == "bgr",
        }


def with_inputs(table: tuple[Stage, ...]) -> list[tuple[Stage, int]]:
    """Every row and the channels that it receives."""
    channels, found = 3, []
    for stage in table:
        found.append((stage, channels))
        channels = channels if stage.kind == "max_pool" else stage.outputs
    return found


def row(stage: Stage, inputs: int) -> dict[str, Any]:
    """A row spelled out as its convolutions, or its pooling."""
    if stage.kind == "max_pool":
        window = {"kernel_size": stage.kernel, "stride": stage.stride}
        pool = {**window, "padding": pool_padding(stage), "ceil_mode": stage.ceil}
        return {"name": stage.name, "pool": pool}
    if stage.kind == "plain":
        [block] = blocks(stage, inputs)
        plain = {"relu": stage.relu, "dropout": stage.dropout}
        return {"name": stage.name, "plain": {**plain, "conv": _conv(block.path[0])}}
    spelled = []
    for block in blocks(stage, inputs):
        shortcut = block.shortcut
        spelled.append(
            {
                "name": block.name,
                "path": [_conv(conv) for conv in block.path],
                "shortcut": _conv(shortcut) if isinstance(shortcut, Conv) else shortcut,
            }
        )
    return {"name": stage.name, "blocks": spelled}


def _conv(conv: Conv) -> dict[str, Any]:
    fields = {key: value for key, value in asdict(conv).items() if key != "pad"}
    return {**fields, "padding": conv.padding, "norm": conv.norm}
