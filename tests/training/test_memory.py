"""The fullest device counts; where none keeps count, the process."""

import resource
import sys

import jax
import pytest

from drn_jax.training import memory


class Device:
    def __init__(self, stats):
        self._stats = stats

    def memory_stats(self):
        return self._stats


@pytest.fixture
def devices(monkeypatch):
    """Sets what the local devices tell of their memory."""
    return lambda *stats: monkeypatch.setattr(jax, "local_devices", lambda: [*map(Device, stats)])


def test_the_fullest_device_counts(devices):
    devices({"peak_bytes_in_use": 2_000_000_000}, {"peak_bytes_in_use": 3_250_000_000})
    assert memory.peak_gb() == 3.25
    assert memory.peak() == "peak memory 3.25 GB of the device"


def test_a_device_without_count_is_passed_over(devices):
    devices(None, {"bytes_in_use": 9_000_000_000}, {"peak_bytes_in_use": 500_000_000})
    assert memory.peak_gb() == 0.5


@pytest.mark.parametrize("stats", [None, {}, {"bytes_in_use": 1}])
@pytest.mark.parametrize(("platform", "size"), [("linux", 2.048), ("darwin", 0.002)])
def test_where_no_device_counts_the_process_does(devices, monkeypatch, stats, platform, size):
    devices(stats)

    class Usage:
        ru_maxrss = 2_000_000

    monkeypatch.setattr(resource, "getrusage", lambda _: Usage)
    monkeypatch.setattr(sys, "platform", platform)
    assert memory.peak_gb() == pytest.approx(size)
    assert memory.peak() == f"peak memory {size:.2f} GB of the process"


def test_this_process_holds_something():
    assert 0.01 < memory.peak_gb() < 1000
