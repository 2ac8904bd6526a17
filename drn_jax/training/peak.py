"""How fast the devices could be at most: the denominator of a run's share of peak.

The figures are the vendors', of dense (not sparse) matrix products of bfloat16 with float32 sums.
They stay the denominator where a run computes in float32, whose own peak is lower.
"""

from collections.abc import Iterable, Sequence
from types import MappingProxyType

import jax

from drn_jax.analysis.cost import StageCost

PEAK = MappingProxyType(
    {
        # cloud.google.com/tpu/docs, the page of each version. Of v2 and v3 a device is one of a
        # chip's two cores, of v4 and v5p the chip (both cores as one, the default), of v5e and v6e
        # the chip with its one core, of 7x one of two cores again.
        "TPU v2": 45e12 / 2,
        "TPU v3": 123e12 / 2,
        "TPU v4": 275e12,
        "TPU v5 lite": 197e12,
        "TPU v5e": 197e12,
        "TPU v5": 459e12,
        "TPU v5p": 459e12,
        "TPU v6 lite": 918e12,
        "TPU v6e": 918e12,
        "TPU7x": 2307e12 / 2,
        # NVIDIA's V100 and T4 data sheets, of float16: these have no bfloat16.
        "Tesla V100-SXM2-16GB": 125e12,
        "Tesla V100-SXM2-32GB": 125e12,
        "Tesla V100-PCIE-16GB": 112e12,
        "Tesla V100-PCIE-32GB": 112e12,
        "Tesla T4": 65e12,
        # NVIDIA's A10 data sheet, and that of the A10G, which Amazon publishes.
        "NVIDIA A10": 125e12,
        "NVIDIA A10G": 70e12,
        # NVIDIA's Ada white paper 2 (L4) and L40S data sheet.
        "NVIDIA L4": 121e12,
        "NVIDIA L40S": 362.05e12,
        # NVIDIA's A100 data sheet: the same in every form.
        "NVIDIA A100-SXM4-40GB": 312e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA A100-PCIE-40GB": 312e12,
        "NVIDIA A100 80GB PCIe": 312e12,
        # NVIDIA's H100 and H200 data sheets, half of what they state with sparsity; the first is
        # the SXM form.
        "NVIDIA H100 80GB HBM3": 1979e12 / 2,
        "NVIDIA H100 PCIe": 1513e12 / 2,
        "NVIDIA H100 NVL": 1671e12 / 2,
        "NVIDIA H200": 1979e12 / 2,
        "NVIDIA H200 NVL": 1671e12 / 2,
        # NVIDIA's Blackwell architecture brief, one of the eight of HGX B200, half as well.
        "NVIDIA B200": 4500e12 / 2,
        # NVIDIA's white papers of GA102 and Ada, bfloat16 with float32 sums.
        "NVIDIA GeForce RTX 3090": 71e12,
        "NVIDIA GeForce RTX 4090": 165.2e12,
    }
)
"""FLOP/s of one device, by `device_kind` as JAX gives it, to the letter: a part of a GPU, a laptop
version or another clock has a longer name, and another peak."""


def together(kinds: Iterable[str] | None = None) -> float | None:
    """FLOP/s of devices of these kinds, by default of all of the run; None unless each is known."""
    kinds = [device.device_kind for device in jax.devices()] if kinds is None else list(kinds)
    known = [PEAK[kind] for kind in kinds if kind in PEAK]
    return sum(known) if len(known) == len(kinds) else None


def training_flops(costs: Sequence[StageCost]) -> int:
    """Floating-point operations that training on one example takes of a network.

    Two a multiply-add, in three passes: forward, and backward by activations and by weights. What
    is computed a second time to save memory is not counted, so that runs compare.
    """
    return 3 * 2 * sum(cost.multiply_adds for cost in costs)
