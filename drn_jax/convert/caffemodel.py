"""Caffe's binary model files: which arrays they hold, by layer.

A .caffemodel is one protobuf message. Of Caffe's schema (caffe.proto) the few fields that lead to
the arrays are declared here at run time; all others are skipped. The schema has a pool of its own,
so that it can't clash with that of an installed Caffe or OpenCV.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from drn_jax.errors import UserError

_LEGACY = ("num", "channels", "height", "width")
"""Four sizes that files had before a blob could have any number of axes."""

_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "BlobShape": {"dim": (1, "repeated int64")},
    "BlobProto": {
        "num": (1, "int32"),
        "channels": (2, "int32"),
        "height": (3, "int32"),
        "width": (4, "int32"),
        "data": (5, "repeated float"),
        "shape": (7, "BlobShape"),
        "double_data": (8, "repeated double"),
    },
    "V1LayerParameter": {"name": (4, "bytes"), "blobs": (6, "repeated BlobProto")},
    "LayerParameter": {"name": (1, "bytes"), "blobs": (7, "repeated BlobProto")},
    "NetParameter": {
        "layers": (2, "repeated V1LayerParameter"),
        "layer": (100, "repeated LayerParameter"),
    },
}
"""Number and type of each field, by message. Names are bytes because a damaged one need not be
UTF-8; on the wire it is the same."""

_MAGIC = {
    b"PK\x03\x04": "a zip archive as of PyTorch, which `python -m drn_jax.convert torch` reads",
    b"\x80\x02": "a pickle as of PyTorch, which `python -m drn_jax.convert torch` reads",
    b"\x89HDF": "an HDF5 file: let Caffe save the net as a binary .caffemodel",
}
"""What files of other kinds begin with."""


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a .caffemodel, in the format of Caffe 1.0 (`layer`) or the older (`layers`).

    Returns: float32 (or float64, as stored) `LAYER.weight`, and `LAYER.bias` where there is one,
      in the stored shapes: a convolution OIHW, an inner product [O, I], or, as files had it before
      2015, [1, 1, O, I] and [1, 1, 1, O].
    Raises: UserError if it can't be read, and for a layer that is there twice, has more than two
      arrays, or an array of another size than it says.
    """
    where = os.fspath(path)
    net = _parse(where)
    found: dict[str, np.ndarray] = {}
    for layer in _layers(net):
        name = layer.name.decode(errors="replace")
        if len(layer.blobs) > 2:
            raise UserError(
                f"{where}: layer {name} has {len(layer.blobs)} arrays, where a convolution has a "
                "weight and a bias: this is another kind of net"
            )
        if f"{name}.weight" in found:
            raise UserError(f"{where}: two layers with weights are named {name}")
        for part, blob in zip(("weight", "bias"), layer.blobs, strict=False):
            found[f"{name}.{part}"] = _array(blob, f"{where}: {name}.{part}")
    if not found:
        raise UserError(f"{where}: holds no layer with weights: is it a Caffe model?")
    return found


def _layers(net: Any) -> Iterator[Any]:
    for layers in (net.layers, net.layer):
        yield from (layer for layer in layers if layer.blobs)


def _parse(path: str) -> Any:
    """The file as a NetParameter."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    if not content:
        raise UserError(f"{path}: is empty")
    for magic, kind in _MAGIC.items():
        if content.startswith(magic):
            raise UserError(f"{path}: is no Caffe model but {kind}")
    if _is_text(content[:4096]):
        raise UserError(
            f"{path}: is a text file: a .prototxt describes a net, its weights are in a .caffemodel"
        )
    try:
        return _NET.FromString(content)
    except DecodeError:
        raise UserError(
            f"{path}: can't be read as a Caffe model: it is cut short, damaged, or something else"
        ) from None


def _is_text(start: bytes) -> bool:
    """Whether there are only characters; a net has the tag of its layers, 0x06 or 0x12."""
    return all(byte >= 0x20 or byte in b"\t\n\f\r" for byte in start)


def _array(blob: Any, where: str) -> np.ndarray:
    """One array in its stored shape."""
    if any(blob.HasField(name) for name in _LEGACY):
        shape = tuple(getattr(blob, name) for name in _LEGACY)
    else:
        shape = tuple(blob.shape.dim)
    double = len(blob.double_data) > 0
    values = blob.double_data if double else blob.data
    if min(shape, default=1) < 0 or math.prod(shape) != len(values):
        raise UserError(f"{where} has {len(values)} values, not those of its shape {shape}")
    # One by one, because an older protobuf hands NumPy a list of Python's floats, 8 times as large.
    flat = np.fromiter(values, np.float64 if double else np.float32, len(values))
    return flat.reshape(shape)


def _schema() -> Any:
    """The class of NetParameter, from `_FIELDS`."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="drn_jax/caffe.proto", package="caffe")
    for message, fields in _FIELDS.items():
        declared = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            *repeated, kind = kind.split()
            field = declared.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _FIELDS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


_NET = _schema()
