"""The most memory that this process has held, to be printed with what it did."""

import resource
import sys

import jax


def peak() -> str:
    """The peak in words: of the first device where it keeps count, else of the whole process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return f"peak memory {stats['peak_bytes_in_use'] / 1e9:.2f} GB of the device"
    unit = 1 if sys.platform == "darwin" else 1024  # Bytes there, KiB on Linux.
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"peak memory {size / 1e9:.2f} GB of the process"
