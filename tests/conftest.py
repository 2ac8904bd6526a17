"""Strict surroundings for every test: eight CPU devices, no silent broadcasting of ranks.

Warnings are errors by setup.cfg.
"""

import os

os.environ["XLA_FLAGS"] = " ".join(
    (os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8")
).strip()
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
