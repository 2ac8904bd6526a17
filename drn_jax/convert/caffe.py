"""Caffe's VGG-16 and the dilated nets of Yu & Koltun (fyu/dilation) to our variables, bit for bit.

Rows of our tables are named like Caffe's layers; `_layer` lists the exceptions. As in `torch`,
every name of the source is used once, every array of the network is filled, every shape fits.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from drn_jax import models
from drn_jax.convert import caffemodel
from drn_jax.convert.names import CAFFE
from drn_jax.convert.rules import (
    UNUSED,
    Rule,
    Source,
    Variables,
    arrays,
    bilinear,
    check_names,
    label,
    put,
    with_bias,
)
from drn_jax.errors import UserError
from drn_jax.models.context import ContextModule
from drn_jax.models.dilation import PUBLISHED, UPSAMPLING, ContextNetwork
from drn_jax.models.stages import Stage, blocks

_HEADS = {
    "vgg_16": ("fc8",),
    "vgg_16_front_end": ("final", "fc-final"),
    "dilation8_pascal_voc": ("fc-final",),
}
"""The layer that classifies, where it is not `final`; of two, the one that is there."""

_UPSAMPLED = ("dilation10_cityscapes", "context10_cityscapes")
"""Nets whose published weights hold a fixed upsampling."""

_INNER_PRODUCTS = ("fc6", "fc7", "fc8")
"""Layers that Caffe's classifier keeps as matrices."""


def load(name: str, source: Source, width: float = 1.0, where: str = "") -> Variables:
    """The variables of the network `name`, from Caffe's weights.

    Args:
      name: one of `names.CAFFE`.
      source: a mapping of `LAYER.weight` and `LAYER.bias` to arrays, or a .caffemodel file (see
        `caffemodel.read`). fc6, fc7 and fc8 may be matrices [O, I*k*k] or [1, 1, O, I*k*k], in the
        order (I, k, k), and a bias [1, 1, 1, O].
      width: of the front end, where it is not the published one.
      where: what errors call the source; by default its path, or "the mapping".

    Returns: `params`, NumPy float32, which `models.create(name, num_classes)` takes with the
      source's number of classes (`rules.num_classes(variables)`). Dilation10's fixed upsampling may
      be left out (bilinear then); what the context module alone has of it goes to `unused`.
    Raises: UserError for a network that has no Caffe weights, a file that can't be read, and for
      the weights of another net, naming what differs.
    """
    models.table(name, width)  # Says so if there is no such network or width.
    if name not in CAFFE:
        raise UserError(f"no Caffe weights of {name} were published, only of {', '.join(CAFFE)}")
    where = label(source, where)
    state = arrays(source if isinstance(source, Mapping) else caffemodel.read(source), where)
    heads = _HEADS.get(name, ("final",))
    head = next((layer for layer in heads if f"{layer}.bias" in state), heads[0])
    classes = state.get(f"{_layer('ctx_final', name, head) if _is_context(name) else head}.bias")
    count = models.CLASSES.get(name, 1000) if classes is None else classes.size
    rules = list(_rules(name, models.create(name, count, width), head))
    if name in _UPSAMPLED:
        rules += _upsampling(name, count, state)
    for rule in rules:
        if rule.theirs in state and state[rule.theirs].shape in _also(rule):
            state[rule.theirs] = state[rule.theirs].reshape(rule.shape)
    check_names(f"{where} does not fit {name}", state, {r.theirs: r.shape for r in rules})
    variables: Variables = {}
    for rule in rules:
        put(variables, rule.ours, rule.to_ours(state[rule.theirs]))
    return variables


def _rules(name: str, model: models.AnyNetwork, head: str) -> Iterator[Rule]:
    """All arrays, in the order of the network."""
    for scope, rows, channels in _parts(model):
        for row in rows:
            for block in blocks(row, channels):
                [conv] = block.path
                yield from with_bias(
                    ("params", *scope, row.name), _layer(row.name, name, head), conv
                )
            channels = row.outputs


def _upsampling(name: str, classes: int, state: dict[str, np.ndarray]) -> Iterator[Rule]:
    """Where the fixed kernel of Dilation10 goes. Left out of `state`, it becomes the bilinear one;
    the context module alone carries it along, unused."""
    theirs = f"{UPSAMPLING}.weight"
    collection = "params" if PUBLISHED[name].front_end else UNUSED
    if collection == "params" and theirs not in state:
        state[theirs] = bilinear(classes)
    if theirs in state:
        oihw = bilinear(classes).shape
        yield Rule((collection, UPSAMPLING, "kernel"), theirs, oihw, oihw)


def _parts(model: models.AnyNetwork) -> list[tuple[tuple[str, ...], tuple[Stage, ...], int]]:
    """Scope, rows and input channels of the networks that a net is made of."""
    if isinstance(model, ContextModule):
        return [((), model.table, model.channels)]
    if not isinstance(model, ContextNetwork):
        return [((), model.table, 3)]
    return [
        (("front_end",), model.front_end.table, 3),
        (("context",), model.context.table, model.context.channels),
    ]


def _layer(row: str, name: str, head: str) -> str:
    """Caffe's name of a row."""
    if row == "head":
        return head
    return row.replace("ctx_", "ct_") if name.endswith("pascal_voc") else row


def _is_context(name: str) -> bool:
    """Whether a net is a context module alone, which has no classifier of its own."""
    return not models.table(name)


def _also(rule: Rule) -> list[tuple[int, ...]]:
    """Shapes other than its own in which Caffe may keep an array."""
    if not rule.oihw:
        return [(1, 1, 1, *rule.shape)]
    if rule.theirs.removesuffix(".weight") not in _INNER_PRODUCTS:
        return []
    matrix = (rule.shape[0], int(np.prod(rule.shape[1:])))
    return [matrix, (1, 1, *matrix)]
