"""The most memory that a run has held, to be printed or logged with what it did."""

import resource
import sys

import jax


def peak() -> str:
    """The peak in words: of the fullest local device, or of the process; see `peak_gb`."""
    size = _devices()
    if size is not None:
        return f"peak memory {size / 1e9:.2f} GB of the device"
    return f"peak memory {_process() / 1e9:.2f} GB of the process"


def peak_gb() -> float:
    """The peak in 1e9 bytes: of the fullest device of this process where devices keep count, else
    of the whole process."""
    size = _devices()
    return (_process() if size is None else size) / 1e9


def _devices() -> int | None:
    """Bytes of the fullest local device; None where none keeps count, as on CPU."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max((s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s), default=None)


def _process() -> int:
    """Bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # Bytes there, KiB on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
