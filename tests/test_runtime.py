"""What the machine under a program is asked for."""

import os
import platform
import subprocess
import sys

import pytest

from drn_jax import runtime

FAULTS = """
import ctypes, resource, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 4 kB wherever this runs.
import jax, jax.numpy as jnp
from drn_jax import runtime

print(sys.argv[1] == "keep" and runtime.keep_memory())
program = jax.jit(lambda x: jnp.sin(x @ x.T) @ x)  # 36 MiB in between.
x = jnp.ones((3072, 8))
program(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    program(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, **variables):
    """Whether memory was to be kept, and the pages fetched in thirty calls."""
    environment = {n: value for n, value in os.environ.items() if not n.startswith("MALLOC_")}
    environment |= {"XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join(sys.path)} | variables
    command = [sys.executable, "-c", FAULTS, how]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    kept, pages = printed.stdout.split()
    return kept, int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_is_kept_is_not_fetched_from_the_system_again():
    _, anew = faults("leave")
    kept, again = faults("keep")
    assert kept == "True"
    assert anew > 30 * 9000  # 9216 pages of 4 kB each time.
    assert again < anew / 2  # Some at first, where small blocks come to lie between.


def test_an_allocator_that_the_user_has_set_up_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert not runtime.keep_memory()
