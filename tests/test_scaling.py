"""The arithmetic behind docs/scaling.md."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from drn_jax.analysis.collectives import Collective

PLACE = Path(__file__).parents[1] / "docs/scaling.py"


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", PLACE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scaling"]


def test_collectives_are_sorted_by_what_they_are_for(scaling):
    statistics = Collective("all-reduce", 64, 4, 2, "jvp(Network)/level1/norm1/reduce_sum")
    gradient = Collective("all-reduce", 900, 2, 1, "transpose(jvp(x))/conv_general_dilated")
    halo = Collective("collective-permute", 30, 2, 3, "conv_general_dilated")
    gather = Collective("all-gather", 7, 8, 1, "")
    found = scaling.traffic_of([statistics, gradient, halo, gather])
    assert found.sums == ((4, 2, 128),)
    assert found.gradients == ((2, 900),)
    assert (found.halos, found.halo_bytes) == (3, 90)
    assert (found.gathers, found.gather_bytes) == (1, 7)
    assert found.sent == pytest.approx(2 * 64 * 1.5 + 900 + 3 * 30 + 7 * 7 / 8)


def test_each_device_of_a_ring_sends_an_array_almost_twice(scaling):
    assert scaling.ring(1) == 0
    assert scaling.ring(2) == 1
    assert scaling.ring(1024) == pytest.approx(2, rel=1e-3)


def test_a_pod_sums_as_fast_as_its_maker_says(scaling):
    # 51.2 TB/s of all-reduces a pod of 256: every chip sends 200 GB a second.
    seconds = scaling.TpuV5e().all_reduce(1e9, 256, 1)
    assert scaling.ring(256) * 1e9 / seconds * 256 == pytest.approx(51.2e12)


def test_h100s_beyond_a_machine_wait_for_the_network(scaling):
    machine = scaling.H100()
    assert machine.all_reduce(8e9, 8, 1) == pytest.approx(1.75 * 8e9 / 450e9)
    far = machine.all_reduce(8e9, 16, 1) - machine.all_reduce(8e9, 8, 1)
    assert far == pytest.approx(1e9 / 50e9)
    # With an image over a machine's eight GPUs each has its own port and the whole gradient.
    assert machine.all_reduce(8e9, 16, 8) == pytest.approx(8e9 / 50e9)


@pytest.mark.parametrize("name", ["TpuV5e", "H100"])
def test_a_thousand_devices_are_kept_less_busy_and_hiding_helps(scaling, name):
    machine = getattr(scaling, name)()
    step = scaling.Step("drn_d_22", images=8)
    found = scaling.Traffic(sums=((8, 90, 1000),), gradients=((8, 64_000_000),))
    pairs = [scaling.seconds(machine, step, found, n).efficiency for n in scaling.COUNTS]
    for least, most in pairs:
        assert 0 < least < most < 1
    assert all(few > many for few, many in zip(pairs[0], pairs[-1], strict=True))
    images = scaling.least_images(machine, step, found, 1024)
    enough, short = (scaling.seconds(machine, step, found, 1024, n) for n in (images, images - 1))
    assert 20 * enough.sums <= enough.compute
    assert images == 1 or 20 * short.sums > short.compute


def test_rows_over_devices_share_the_compute_and_sum_near_and_far(scaling):
    machine = scaling.TpuV5e()
    whole = scaling.Step("drn_d_22", images=8)
    split = replace(whole, images=2, spatial=4)
    none = scaling.Traffic()
    assert scaling.seconds(machine, split, none, 64).compute == pytest.approx(
        scaling.seconds(machine, whole, none, 64).compute / 4
    )
    near, far = (scaling.Traffic(sums=((n, 10, 80),)) for n in (4, 2))
    assert scaling.seconds(machine, split, near, 64).sums == pytest.approx(10 * 6e-6)
    assert scaling.seconds(machine, split, far, 64).sums == pytest.approx(10 * 28e-6)


def test_a_program_that_does_not_fit_is_told_from_one_that_is_wrong(scaling):
    told = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (33.16G) exceeds available HBM (15.75G)."
    )
    assert scaling.refusal(told) == "does not fit: 33.16GiB of 15.75GiB"
    with pytest.raises(RuntimeError, match="INVALID"):
        scaling.refusal("INVALID_ARGUMENT: no")


def test_a_step_is_compiled_for_as_many_devices_as_it_has(scaling):
    step = scaling.Step("drn_d_22", images=2, devices=2, imagenet=True)
    run = step.run()
    assert run.batch_shapes["image"].shape == (2, 224, 224, 3)
    assert run.model.num_classes == 1000
    # Two floating-point operations a multiply-add, three passes; 13,034 M at 224x224.
    assert step.flops == pytest.approx(6 * 13_034e6, rel=1e-4)
    assert len(jax.devices()) >= step.devices
