"""The share of peak is of what a data sheet says of exactly this device, or there is none."""

import pytest

from drn_jax.analysis import cost
from drn_jax.models.stages import Stage
from drn_jax.training import peak


def test_devices_add_up():
    assert peak.together(["TPU v4"] * 4) == 4 * 275e12
    assert peak.together(["TPU v3"] * 8) == 4 * 123e12  # Two devices a chip.


def test_one_unknown_device_leaves_the_whole_unknown():
    assert peak.together(["TPU v4", "cpu"]) is None


@pytest.mark.parametrize(
    "kind",
    [
        "cpu",
        "TPU v4 lite",
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
    ],
)
def test_a_device_that_is_almost_known_is_unknown(kind):
    assert peak.together([kind]) is None


def test_the_devices_of_this_run_are_asked_by_default():
    assert peak.together() is None  # These tests run on CPU.


def test_dense_figures_only():
    """With sparsity, data sheets state twice as much."""
    assert peak.PEAK["NVIDIA H100 80GB HBM3"] == 989.5e12
    assert peak.PEAK["NVIDIA L4"] == 121e12
    assert max(peak.PEAK.values()) < 2500e12
    assert min(peak.PEAK.values()) > 20e12


def test_training_takes_six_operations_a_multiply_add():
    table = (
        Stage("stem", "conv", 8, kernel=3, stride=2),
        Stage("head", "plain", 5, kernel=1),
    )
    costs = cost.of(table, 8, 12, pooled=True)
    products = 4 * 6 * (9 * 3 * 8) + 8 * 5
    assert peak.training_flops(costs) == 6 * products
