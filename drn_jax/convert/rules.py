"""What every conversion is made of: one rule an array, strict names and shapes."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from drn_jax.errors import UserError
from drn_jax.models.dilation import bilinear_kernel
from drn_jax.models.inputs import IMAGENET_STD
from drn_jax.models.stages import Conv
from drn_jax.trees import Shapes, differences

Source = Mapping[str, Any] | str | os.PathLike[str]
Variables = dict[str, Any]

UNUSED = "unused"
"""The collection of what a published state carries and no network computes with."""


class Rule(NamedTuple):
    """One array: its path here, its name and shape there."""

    ours: tuple[str, ...]
    theirs: str
    shape: tuple[int, ...]
    """There: OIHW or a matrix [O, I*H*W] of a kernel, else [C]."""
    oihw: tuple[int, ...] = ()
    """Of a kernel: what a matrix stands for."""
    rgb: bool = False
    """A kernel that sees RGB images in [0, 1] less the mean, over the deviation; ours sees BGR, 0
    to 255, less the same mean (`inputs.Preprocess`)."""

    @property
    def our_shape(self) -> tuple[int, ...]:
        """Here: HWIO of a kernel, else [C]."""
        return tuple(self.oihw[axis] for axis in (2, 3, 1, 0)) if self.oihw else self.shape

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """Their array as ours: a copy in another order, bit for bit unless `rgb`."""
        if not self.oihw:
            return np.ascontiguousarray(array)
        kernel = array.reshape(self.oihw)
        if self.rgb:
            kernel = (kernel / _LEVELS)[:, ::-1].astype(np.float32)
        return np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """The inverse; with `rgb` up to float32 rounding."""
        if not self.oihw:
            return np.ascontiguousarray(array)
        kernel = array.transpose(3, 2, 0, 1)
        if self.rgb:
            kernel = (kernel[:, ::-1] * _LEVELS).astype(np.float32)
        return np.ascontiguousarray(kernel.reshape(self.shape))


_LEVELS = 255 * np.array(IMAGENET_STD)[None, :, None, None]
"""What is 1 to torchvision's networks in levels of 0 to 255, by input channel: float64, so that a
kernel is rounded once."""


def kernel(
    ours: tuple[str, ...], theirs: str, conv: Conv, matrix: bool = False, rgb: bool = False
) -> Rule:
    """The rule of a convolution's kernel; `matrix`: kept as [O, I*k*k] there."""
    oihw = (conv.outputs, conv.inputs, conv.kernel, conv.kernel)
    shape = (conv.outputs, conv.inputs * conv.kernel**2) if matrix else oihw
    return Rule((*ours, "kernel"), f"{theirs}.weight", shape, oihw, rgb)


def with_bias(
    ours: tuple[str, ...], theirs: str, conv: Conv, matrix: bool = False, rgb: bool = False
) -> Iterator[Rule]:
    """The rules of a convolution with a bias, `.weight` and `.bias` there; options of `kernel`."""
    yield kernel(ours, theirs, conv, matrix, rgb)
    yield Rule((*ours, "bias"), f"{theirs}.bias", (conv.outputs,))


def label(source: Source, where: str = "") -> str:
    """What errors call a source: `where`, or its path, or "the mapping"."""
    return where or ("the mapping" if isinstance(source, Mapping) else os.fspath(source))


def arrays(source: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """A mapping's arrays or tensors as float32, by name.

    Raises: UserError for one that holds no numbers.
    """
    found = {}
    for name, value in source.items():
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise UserError(f"{where}: {name} holds no numbers but {array.dtype}")
        found[str(name)] = array.astype(np.float32, copy=False)
    return found


def check_names(what: str, found: Mapping[str, np.ndarray], wanted: Shapes) -> None:
    """Raise UserError unless names and shapes agree, listing what does not."""
    shapes = {name: tuple(array.shape) for name, array in found.items()}
    if shapes != dict(wanted):
        raise UserError(f"{what}: {differences(shapes, wanted)}")


def put(tree: Variables, path: tuple[str, ...], value: np.ndarray) -> None:
    """Set the array at a path, making the dictionaries on the way."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def num_classes(variables: Mapping[str, Any]) -> int:
    """Outputs of the classifier; of a context module alone, its channels.

    Raises: UserError for variables with neither.
    """
    for path in (("head",), ("front_end", "head"), ("ctx_final",)):
        try:
            found = variables["params"]
            for key in path:
                found = found[key]
            return int(found["bias"].shape[0])
        except (KeyError, TypeError, AttributeError):
            continue
    raise UserError("the variables hold no params/head/bias, so no classifier")


def sha256(path: str | os.PathLike[str]) -> str:
    """The digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bilinear(classes: int, factor: int = 8) -> np.ndarray:
    """The fixed kernel of the published transposed convolutions (fyu/drn's `up`, Dilation10's
    `ctx_upsample`), float32 [classes, 1, 2 * factor, 2 * factor]."""
    return np.tile(bilinear_kernel(factor), (classes, 1, 1, 1))
