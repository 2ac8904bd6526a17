"""PyTorch's state dictionaries to our variables and back, bit for bit.

Only the first kernel of torchvision's VGG-16 is rounded: it is rewritten for our images, which are
BGR of 0 to 255 less the mean (`rules.Rule.rgb`).

The rules are those of `names`: every name of the source is used once, every array of the network is
filled, every shape fits; anything else is an error that lists what differs. A file is opened with
`weights_only=True`, so that it can't run code.
"""

import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np

from drn_jax import models
from drn_jax.convert.names import CAFFE, HEAD, TORCH, UPSAMPLING, Layout, has_linear_head, units
from drn_jax.convert.rules import (
    UNUSED,
    Rule,
    Source,
    Variables,
    arrays,
    bilinear,
    check_names,
    kernel,
    label,
    num_classes,
    put,
    with_bias,
)
from drn_jax.errors import UserError
from drn_jax.models.stages import Conv, Stage

_CODEBASES: dict[Layout, str] = {
    "fyu": "fyu/drn's classifiers and torchvision's ResNets",
    "fyu_segment": "fyu/drn's segmentation networks",
    "pytorchcv": "pytorchcv's DRNs",
    "torchvision_vgg": "torchvision's VGG",
}

TRACKED = "num_batches_tracked"
"""PyTorch's step counter of a batch norm; of no use with a fixed momentum, so written as 0."""


def load(name: str, source: Source, width: float = 1.0, where: str = "") -> Variables:
    """The variables of the network `name`, from the weights of a published one.

    Args:
      name: one of `names.TORCH`; for a segmentation network that of its base.
      source: a mapping of names to arrays (`num_batches_tracked` may be left out), or a `.pth` or
        `.pth.tar` file of one: fyu/drn's classifiers and segmentation networks, torchvision's
        ResNets and VGG-16, pytorchcv's DRNs; names may start with the `module.` of DataParallel.
      width: of the network, where it is not the published one.
      where: what errors call the source; by default its path, or "the mapping".

    Returns: `params` and (but for VGG) `batch_stats`, NumPy float32, which
      `models.create(name, num_classes)` takes with the source's number of classes
      (`num_classes(variables)`); for DRN-C-58 also `unused`, the published parameters that take no
      part, where the source has them.
    Raises: UserError for a file that can't be read, and for a state of another network, naming what
      differs.
    """
    stages = table(name, width)
    where = label(source, where)
    found = arrays(source if isinstance(source, Mapping) else read(source), where)
    state = {key.removeprefix("module."): array for key, array in found.items()}
    layout = layout_of(state)
    if (layout == "torchvision_vgg") != (name == "vgg_16"):
        raise UserError(f"{where} does not fit {name}: it has the names of {_CODEBASES[layout]}")
    classes = _head_classes(state, layout)
    rules = list(_rules(stages, layout, classes))
    for norm in {rule.theirs.rpartition(".")[0] for rule in rules}:
        state.pop(f"{norm}.{TRACKED}", None)
    unused = {rule.theirs for rule in rules if rule.ours[0] == UNUSED}
    if not unused & set(state):
        rules = [rule for rule in rules if rule.theirs not in unused]
    upsampling = state.pop(UPSAMPLING, None) if layout == "fyu_segment" else None
    check_names(f"{where} does not fit {name}", state, {r.theirs: r.shape for r in rules})
    if upsampling is not None and not np.array_equal(upsampling, bilinear(classes)):
        raise UserError(f"{where}: {UPSAMPLING} is not fyu/drn's fixed bilinear kernel")
    variables: Variables = {}
    for rule in rules:
        put(variables, rule.ours, rule.to_ours(state[rule.theirs]))
    return variables


def dump(
    name: str, variables: Mapping[str, Any], layout: Layout | Literal[""] = "", width: float = 1.0
) -> dict[str, np.ndarray]:
    """The state dictionary of the published network, for its `load_state_dict(strict=True)`.

    Args:
      layout: whose names: see `names`; by default "torchvision_vgg" for vgg_16, else "fyu".

    Returns: float32 arrays, and `num_batches_tracked` as int64 zeros. Parameters that take no part
      (DRN-C-58) are those of `variables["unused"]`, or else zeros.
    Raises: UserError if `variables` are not those of the network, naming what differs, and for a
      network that has no names in PyTorch, or not in that layout.
    """
    stages = table(name, width)
    layout = layout or ("torchvision_vgg" if name == "vgg_16" else "fyu")
    if (layout == "torchvision_vgg") != (name == "vgg_16"):
        raise UserError(f"{name} has no names in the layout {layout}")
    rules = list(_rules(stages, layout, num_classes(variables)))
    ours = {"/".join(rule.ours): rule.our_shape for rule in rules}
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables))
    }
    for path in [path for path in found if path.startswith(UNUSED) and path not in ours]:
        del found[path]  # pytorchcv's DRN-C-58 has no place for it.
    for path, shape in ours.items():
        if path.startswith(UNUSED):
            found.setdefault(path, np.zeros(shape, np.float32))
    check_names(f"the variables are not those of {name}", found, ours)
    state: dict[str, np.ndarray] = {}
    for rule in rules:
        state[rule.theirs] = rule.to_theirs(found["/".join(rule.ours)])
        if rule.ours[-1] == "var":
            norm = rule.theirs.rpartition(".")[0]
            state[f"{norm}.{TRACKED}"] = np.zeros((), np.int64)
    if layout == "fyu_segment":
        state[UPSAMPLING] = bilinear(num_classes(variables))
    return state


def layout_of(state: Mapping[str, Any]) -> Layout:
    """Whose names a state dictionary uses, judged by their first parts."""
    parts = [str(name).removeprefix("module.").split(".") for name in state]
    first = {part[0] for part in parts}
    if "base" in first:
        return "fyu_segment"
    if any(part[0] == "features" and part[1:2] and part[1].isdigit() for part in parts):
        return "torchvision_vgg"
    return "pytorchcv" if "features" in first else "fyu"


def table(name: str, width: float = 1.0) -> tuple[Stage, ...]:
    """The stage table of a network that has names in PyTorch.

    Raises: UserError for another.
    """
    stages = models.table(name, width)
    if name not in TORCH:
        command = f"`python -m drn_jax.convert caffe FILE --model {name} --out DIR`"
        offer = f": the published weights are Caffe's, which {command} brings in"
        raise UserError(f"{name} has no names in PyTorch{offer if name in CAFFE else ''}")
    return stages


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


def _rules(stages: tuple[Stage, ...], layout: Layout, classes: int) -> Iterator[Rule]:
    """All arrays but the step counters and the upsampling kernel, in the order of the network."""
    for number, unit in enumerate(units(stages, layout)):
        conv, (weight, norm) = unit.conv, unit.theirs
        params, stats = ("params", "batch_stats") if unit.used else (UNUSED, UNUSED)
        path = (params, *unit.scope, conv.name)
        if conv.bias:
            rgb = layout == "torchvision_vgg" and number == 0
            yield from with_bias(path, weight, conv, unit.linear, rgb)
            continue
        yield kernel(path, weight, conv)
        for kind, ours, theirs in (
            (params, "scale", "weight"),
            (params, "bias", "bias"),
            (stats, "mean", "running_mean"),
            (stats, "var", "running_var"),
        ):
            path = (kind, *unit.scope, conv.norm, ours)
            yield Rule(path, f"{norm}.{theirs}", (conv.outputs,))
    head = Conv("head", stages[-1].outputs, classes, kernel=1, bias=True)
    linear = has_linear_head(stages, layout)
    yield from with_bias(("params", "head"), HEAD[layout], head, linear)


def _head_classes(state: Mapping[str, np.ndarray], layout: Layout) -> int:
    bias = state.get(f"{HEAD[layout]}.bias")
    return len(bias) if bias is not None and bias.ndim == 1 else 0


def _pytorch() -> Any:
    try:
        import torch
    except ImportError:
        raise UserError("PyTorch's files need PyTorch: pip install 'drn-jax[torch]'") from None
    return torch
