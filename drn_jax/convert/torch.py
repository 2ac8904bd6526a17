"""PyTorch's state dictionaries to our variables and back, bit for bit.

The rules are those of `names`: every name of the source is used once, every array of the network is
filled, every shape fits; anything else is an error that lists what differs. A file is opened with
`weights_only=True`, so that it can't run code.
"""

import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from drn_jax import models
from drn_jax.convert.names import HEAD, UPSAMPLING, Layout, has_linear_head, units
from drn_jax.errors import UserError
from drn_jax.models.stages import Stage
from drn_jax.trees import differences

Source = Mapping[str, Any] | str | os.PathLike[str]
Variables = dict[str, Any]

UNUSED = "unused"
"""The collection of what a published state carries and no network computes with."""


TRACKED = "num_batches_tracked"
"""PyTorch's step counter of a batch norm; of no use with a fixed momentum, so written as 0."""


def load(name: str, source: Source, width: float = 1.0, where: str = "") -> Variables:
    """The variables of the network `name`, from the weights of a published one.

    Args:
      name: one of `models.MODELS`; for a segmentation network that of its base.
      source: a mapping of names to arrays (`num_batches_tracked` may be left out), or a `.pth` or
        `.pth.tar` file of one: fyu/drn's classifiers and segmentation networks, torchvision's
        ResNets, pytorchcv's DRNs; names may start with the `module.` of DataParallel.
      width: of the network, where it is not the published one.
      where: what errors call the source; by default its path, or "the mapping".

    Returns: `params` and `batch_stats`, NumPy float32, which `models.create(name, num_classes)`
      takes with the source's number of classes (`num_classes(variables)`); for DRN-C-58 also
      `unused`, the published parameters that take no part, where the source has them.
    Raises: UserError for a file that can't be read, and for a state of another network, naming what
      differs.
    """
    stages = models.table(name, width)
    where = where or ("the mapping" if isinstance(source, Mapping) else os.fspath(source))
    state = _arrays(source if isinstance(source, Mapping) else read(source), where)
    layout = layout_of(state)
    classes = _head_classes(state, layout)
    rules = list(_rules(stages, layout, classes))
    for norm in {rule.theirs.rpartition(".")[0] for rule in rules}:
        state.pop(f"{norm}.{TRACKED}", None)
    unused = {rule.theirs for rule in rules if rule.ours[0] == UNUSED}
    if not unused & set(state):
        rules = [rule for rule in rules if rule.theirs not in unused]
    upsampling = state.pop(UPSAMPLING, None) if layout == "fyu_segment" else None
    _check_names(f"{where} does not fit {name}", state, {r.theirs: r.shape for r in rules})
    if upsampling is not None and not np.array_equal(upsampling, bilinear_kernel(classes)):
        raise UserError(f"{where}: {UPSAMPLING} is not fyu/drn's fixed bilinear kernel")
    variables: Variables = {}
    for rule in rules:
        _put(variables, rule.ours, rule.to_ours(state[rule.theirs]))
    return variables


def dump(
    name: str, variables: Mapping[str, Any], layout: Layout = "fyu", width: float = 1.0
) -> dict[str, np.ndarray]:
    """The state dictionary of the published network, for its `load_state_dict(strict=True)`.

    Args:
      layout: whose names: see `names`.

    Returns: float32 arrays, and `num_batches_tracked` as int64 zeros. Parameters that take no part
      (DRN-C-58) are those of `variables["unused"]`, or else zeros.
    Raises: UserError if `variables` are not those of the network, naming what differs.
    """
    rules = list(_rules(models.table(name, width), layout, num_classes(variables)))
    ours = {
        "/".join(rule.ours): rule.to_ours(np.zeros(rule.shape, np.float32)).shape for rule in rules
    }
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables))
    }
    for path in [path for path in found if path.startswith(UNUSED) and path not in ours]:
        del found[path]  # pytorchcv's DRN-C-58 has no place for it.
    for path, shape in ours.items():
        if path.startswith(UNUSED):
            found.setdefault(path, np.zeros(shape, np.float32))
    _check_names(f"the variables are not those of {name}", found, ours)
    state: dict[str, np.ndarray] = {}
    for rule in rules:
        state[rule.theirs] = rule.to_theirs(found["/".join(rule.ours)])
        if rule.ours[-1] == "var":
            norm = rule.theirs.rpartition(".")[0]
            state[f"{norm}.{TRACKED}"] = np.zeros((), np.int64)
    if layout == "fyu_segment":
        state[UPSAMPLING] = bilinear_kernel(num_classes(variables))
    return state


def layout_of(state: Mapping[str, Any]) -> Layout:
    """Whose names a state dictionary uses, judged by their first parts."""
    first = {str(name).removeprefix("module.").split(".")[0] for name in state}
    if "base" in first:
        return "fyu_segment"
    return "pytorchcv" if "features" in first else "fyu"


def num_classes(variables: Mapping[str, Any]) -> int:
    """Outputs of the classifier."""
    try:
        return int(variables["params"]["head"]["bias"].shape[0])
    except (KeyError, TypeError, AttributeError):
        raise UserError("the variables hold no params/head/bias, so no classifier") from None


def read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The state dictionary in a file of PyTorch's, alone or as `state_dict` of a checkpoint.

    Raises: UserError if it can't be read, or holds anything but tensors and plain values.
    """
    torch = _pytorch()
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # What matters of a strange file is said below.
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused, because it is no PyTorch file of tensors alone: it is damaged, or "
            "would run code when read"
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: can't be read as a PyTorch file: {reason}") from None
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: holds a {type(found).__name__}, not a state dictionary")
    return found


def write(path: str | os.PathLike[str], state: Mapping[str, np.ndarray]) -> None:
    """Write a state dictionary as a file for `torch.load`; whole or not at all."""
    torch = _pytorch()
    draft = f"{os.fspath(path)}.tmp"
    torch.save({name: torch.tensor(array) for name, array in state.items()}, draft)
    os.replace(draft, path)


def bilinear_kernel(classes: int, stride: int = 8) -> np.ndarray:
    """fyu/drn's fixed `up.weight`, float32 [classes, 1, 2*stride, 2*stride]: a tent each way."""
    tent = 1 - np.abs((np.arange(2 * stride) + 0.5) / stride - 1)
    return np.tile(np.outer(tent, tent).astype(np.float32), (classes, 1, 1, 1))


class _Rule(NamedTuple):
    """One array: its path here, its name and shape there."""

    ours: tuple[str, ...]
    theirs: str
    shape: tuple[int, ...]

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """OIHW to HWIO; the matrix [O, I] of a linear classifier to [1, 1, I, O]."""
        if len(self.shape) == 2:
            array = array[:, :, None, None]
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """The inverse."""
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        return np.ascontiguousarray(array.reshape(self.shape))


def _rules(stages: tuple[Stage, ...], layout: Layout, classes: int) -> Iterator[_Rule]:
    """All arrays but the step counters and the upsampling kernel, in the order of the network."""
    for unit in units(stages, layout):
        conv, (weight, norm) = unit.conv, unit.theirs
        params, stats = ("params", "batch_stats") if unit.used else (UNUSED, UNUSED)
        shape = (conv.outputs, conv.inputs, conv.kernel, conv.kernel)
        yield _Rule((params, *unit.scope, conv.name, "kernel"), f"{weight}.weight", shape)
        for kind, ours, theirs in (
            (params, "scale", "weight"),
            (params, "bias", "bias"),
            (stats, "mean", "running_mean"),
            (stats, "var", "running_var"),
        ):
            path = (kind, *unit.scope, conv.norm, ours)
            yield _Rule(path, f"{norm}.{theirs}", (conv.outputs,))
    channels = stages[-1].outputs
    head = HEAD[layout]
    linear = has_linear_head(stages) and layout == "fyu"
    shape = (classes, channels) if linear else (classes, channels, 1, 1)
    yield _Rule(("params", "head", "kernel"), f"{head}.weight", shape)
    yield _Rule(("params", "head", "bias"), f"{head}.bias", (classes,))


def _arrays(source: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """The source's arrays by name, without the `module.` of DataParallel."""
    arrays = {}
    for name, value in source.items():
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise UserError(f"{where}: {name} holds no numbers but {array.dtype}")
        if not str(name).endswith(TRACKED):
            array = array.astype(np.float32, copy=False)
        arrays[str(name).removeprefix("module.")] = array
    return arrays


def _head_classes(state: Mapping[str, np.ndarray], layout: Layout) -> int:
    bias = state.get(f"{HEAD[layout]}.bias")
    return len(bias) if bias is not None and bias.ndim == 1 else 0


def _check_names(
    what: str, found: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise UserError unless names and shapes agree, listing what does not."""
    shapes = {name: tuple(array.shape) for name, array in found.items()}
    if shapes != dict(wanted):
        raise UserError(f"{what}: {differences(shapes, wanted)}")


def _put(tree: Variables, path: tuple[str, ...], value: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _pytorch() -> Any:
    try:
        import torch
    except ImportError:
        raise UserError("PyTorch's files need PyTorch: pip install 'drn-jax[torch]'") from None
    return torch
