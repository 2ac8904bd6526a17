"""Reproducible weights and inputs: the same arrays on any machine, with NumPy alone.

Every tensor is drawn from its own counter-based stream, keyed by its name, so that
neither order nor framework matters. Names and shapes are those of the published
PyTorch state dictionaries (conv weights OIHW, linear weights OI).
"""

import zlib

import numpy as np


def stream(name: str) -> np.random.Generator:
    """The random stream that belongs to one tensor name."""
    return np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 value of the state-dictionary entry `name` of shape `shape`."""
    rng = stream(name)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_mean"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 4:  # convolution, He initialisation over fan-out
        std = np.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
        return (std * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) == 2:  # linear
        return (0.01 * rng.standard_normal(shape)).astype(np.float32)
    if name.endswith("weight"):  # batch-norm scale
        return rng.uniform(0.3, 0.7, shape).astype(np.float32)
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)  # any bias


def image(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 standard-normal input of shape NCHW."""
    return stream("input/" + name).standard_normal(shape).astype(np.float32)


def labels(name: str, shape: tuple[int, ...], classes: int) -> np.ndarray:
    """int64 labels in [0, classes)."""
    return stream("labels/" + name).integers(0, classes, shape)
