"""Collectives are those of real programs, whose bytes are worked out by hand, and of HLO as other
compilers write it."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from drn_jax.analysis.collectives import Collective, of_program, sent
from drn_jax.models.convolution import dilated_conv


def mesh(**axes):
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def array(mesh, shape, *spec, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(*spec)))


def collectives(function, *args):
    return of_program(jax.jit(function).lower(*args).compile().as_text())


def literal(*lines, header="HloModule m, replica_count=1, num_partitions=8"):
    return of_program("\n".join([header, "", "ENTRY %main () -> f32[] {", *lines, "}"]))


@pytest.mark.parametrize(
    ("axis", "spec", "devices"), [("data", ("data",), 2), ("rows", (None, "rows"), 4)]
)
def test_a_sum_over_an_axis_is_an_all_reduce_of_every_devices_share(axis, spec, devices):
    lattice = mesh(data=2, rows=4)

    def total(x):
        return jax.lax.psum(x, axis)

    share = jax.shard_map(total, mesh=lattice, in_specs=P(*spec), out_specs=P())
    [found] = collectives(share, array(lattice, (6, 4)))
    assert found.kind == "all-reduce"
    assert found.bytes == 6 * 4 * 4 / devices
    assert found.devices == devices
    assert found.times == 1
    assert found.source.startswith("jit(total)/shard_map/psum")
    assert sent(found) == found.bytes * 2 * (devices - 1) / devices


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_dilated_convolution_over_rows_permutes_a_halo_on_either_side(dilation):
    lattice = mesh(data=2, rows=4)
    x = array(lattice, (4, 32, 9, 3), "data", "rows")
    kernel = array(lattice, (3, 3, 3, 5))
    conv = partial(dilated_conv, dilation=dilation, padding=dilation)
    found = collectives(conv, x, kernel)
    halo = 2 * dilation * 9 * 3 * 4
    assert [(c.kind, c.bytes, c.devices, c.times) for c in found] == [
        ("collective-permute", halo, 2, 1)
    ] * 2
    assert [sent(c) for c in found] == [halo, halo]


def test_what_a_scan_sends_counts_as_often_as_it_loops():
    lattice = mesh(data=8)

    def inner(x, _):
        return jax.lax.pmean(2 * x, "data") + 1, None

    def outer(x, _):
        return jax.lax.scan(inner, jax.lax.pmax(jnp.sin(x), "data"), None, length=5)

    def loops(x):
        return jax.lax.scan(outer, x, None, length=3)[0]

    share = jax.shard_map(loops, mesh=lattice, in_specs=P(), out_specs=P(), check_vma=False)
    found = collectives(share, array(lattice, (7, 2)))
    assert sorted((c.bytes, c.times) for c in found) == [(7 * 2 * 4, 3), (7 * 2 * 4, 15)]
    assert sum(sent(c) for c in found) == 18 * 7 * 2 * 4 * 2 * 7 / 8


def test_both_branches_of_a_conditional_count_once():
    lattice = mesh(data=8)

    def choose(flag, x):
        def total(x):
            return jax.lax.psum(x, "data")

        def greatest(x):
            return jax.lax.pmax(x, "data")[:, :1] + x

        return jax.lax.cond(flag[0], total, greatest, x)

    share = jax.shard_map(choose, mesh=lattice, in_specs=P(), out_specs=P(), check_vma=False)
    found = collectives(share, array(lattice, (1,), dtype=jnp.bool_), array(lattice, (3, 2)))
    assert [(c.kind, c.times) for c in found] == [("all-reduce", 1)] * 2


def test_a_sharded_weight_is_gathered_where_it_is_used():
    """And its gradient is the sum over the batch."""
    lattice = mesh(fsdp=8)

    def loss(kernel, x):
        whole = jax.lax.with_sharding_constraint(kernel, NamedSharding(lattice, P()))
        return jnp.square(dilated_conv(x, whole)).mean()

    kernel = array(lattice, (3, 3, 4, 16), None, None, None, "fsdp")
    x = array(lattice, (8, 12, 12, 4), "fsdp")
    found = collectives(jax.value_and_grad(loss), kernel, x)
    weights = 3 * 3 * 4 * 16 * 4
    [gathered] = [c for c in found if c.kind == "all-gather"]
    assert (gathered.bytes, gathered.devices) == (weights, 8)
    assert sent(gathered) == weights * 7 / 8
    reduced = Counter(c.kind for c in found if c.kind != "all-gather")
    assert set(reduced) == {"all-reduce"}
    # The loss may travel with the gradient.
    assert sum(c.bytes for c in found if c.kind == "all-reduce") == weights + 4


def test_shares_exchanged_among_all_and_reduced_to_shares():
    lattice = mesh(data=8)

    def swap(x):
        return jax.lax.all_to_all(x, "data", 0, 1, tiled=True)

    def scatter(x):
        return jax.lax.psum_scatter(x, "data", tiled=True)

    x = array(lattice, (8, 16), None, "data")
    share = partial(jax.shard_map, mesh=lattice, in_specs=P(None, "data"), check_vma=False)
    found = collectives(share(swap, out_specs=P("data")), x)
    assert [(c.kind, c.bytes, sent(c)) for c in found] == [("all-to-all", 64, 56)]
    found = collectives(share(scatter, out_specs=P("data", None)), x)
    assert [(c.kind, c.bytes, sent(c)) for c in found] == [("reduce-scatter", 8, 56)]


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("{{0,1,2},{3,4,5}}", 3),
        ("{}", 8),
        ("[2,4]<=[8]", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", 2),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", 8),
        ("mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b':(1)2}", 2),
        ("mesh[a=2,b=4], device_ids=(0,2,4,6,1,3,5,7) {a, b:(2)2}", 4),
    ],
)
def test_groups_are_read_however_they_are_written(groups, devices):
    [found] = literal(
        f"  %a = f32[2]{{0}} all-reduce(%x), channel_id=1, replica_groups={groups}, to_apply=%add"
    )
    assert found.devices == devices


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("f32[8,32]{1,0:T(8,128)}", 1024),
        ("bf16[8,32]{1,0:T(8,128)(2,1)S(1)}", 512),
        ("pred[5]{0}", 5),
        ("s4[3]{0:T(256)(128)E(4)}", 2),
        ("u8[0,7]{1,0}", 0),
        ("f8e4m3fn[6]{0}", 6),
        ("c64[3]{0}", 24),
        ("f32[<=4,2]{1,0}", 32),
        ("(f32[2]{0}, /*index=1*/bf16[3,2]{1,0:T(8,128)(2,1)}, s32[])", 24),
    ],
)
def test_bytes_are_those_of_every_array_of_the_result(shape, size):
    [found] = literal(f"  ROOT %a.1 = {shape} all-reduce(%x, %y), replica_groups={{{{0,1}}}}")
    assert found == Collective("all-reduce", size, 2, 1, "")


def test_an_asynchronous_pair_counts_once_and_without_its_operands():
    found = literal(
        "  %s = (f32[2,8]{1,0:T(2,128)}, f32[4,8]{1,0:T(4,128)}) all-gather-start(%x), "
        'replica_groups={{0,1}}, dimensions={0}, metadata={op_name="jit(f)/dot" stack_frame_id=3}',
        "  %d = f32[4,8]{1,0} all-gather-done(%s)",
        "  %s.1 = ((f32[2]{0}, bf16[3]{0}), (f32[4]{0}, bf16[6]{0})) all-gather-start(%x, %y), "
        "replica_groups={{0,1}}",
        "  %s.2 = (bf16[6]{0:T(256)(128)(2,1)S(1)}, bf16[6]{0}, u32[]{:S(2)}, u32[]{:S(2)}) "
        "collective-permute-start(%x), source_target_pairs={{0,1},{1,2},{2,3}}",
        "  %d.2 = bf16[6]{0} collective-permute-done(%s.2)",
        "  %s.3 = (f32[2]{0}, f32[3]{0}) all-reduce-start(%x, %y), replica_groups={{0,1}}",
        "  %s.4 = ((f32[16]{0}), f32[4]{0}, u32[]) reduce-scatter-start(%x), "
        "replica_groups={{0,1,2,3}}",
    )
    assert [(c.kind, c.bytes, c.devices) for c in found] == [
        ("all-gather", 128, 2),
        ("all-gather", 28, 2),
        ("collective-permute", 12, 2),
        ("all-reduce", 20, 2),
        ("reduce-scatter", 16, 4),
    ]
    assert [c.source for c in found] == ["jit(f)/dot", "", "", "", ""]


def test_a_called_computation_counts_for_each_of_its_callers_and_never_for_a_done():
    found = of_program(
        """HloModule m, is_scheduled=true, num_partitions=4

%inner (p: f32[2]) -> f32[2] {
  ROOT %g = f32[2]{0} all-reduce(%p), replica_groups={}, to_apply=%add
}

%unused (p: f32[2]) -> f32[2] {
  ROOT %g = f32[2]{0} all-reduce(%p), replica_groups={}, to_apply=%add
}

%body (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %c = f32[2]{0} call(%x), to_apply=%inner
  ROOT %t = (s32[], f32[2]{0}) tuple(%i, %c)
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %a = ((f32[2]{0}), f32[2]{0}, u32[]) async-start(%p), calls=%inner
  %u = ((f32[2]{0}), f32[2]{0}, u32[]) async-update(%a), calls=%inner
  %d = f32[2]{0} async-done(%u), calls=%inner
  %w = (s32[], f32[2]{0}) while(%t), condition=%cond, body=%body, """
        """backend_config="{\\"known_trip_count\\":{\\"n\\":\\"6\\"}}"
  ROOT %f = f32[2]{0} conditional(%b, %p, %p), branch_computations={%inner, %other}
}, execution_thread="main"
"""
    )
    assert found == (Collective("all-reduce", 8, 4, 1 + 6 + 1, ""),)


def test_a_collective_carried_through_several_fusions_counts_once():
    gather = (
        "  %g = bf16[3,3,8,16]{3,2,1,0:T(8,128)(2,1)} all-gather(%p), channel_id=7, "
        "replica_groups=mesh['a'=2,'b'=4] {'a'}, dimensions={3}"
    )
    bodies = "\n\n".join(
        f"%{name} (p: bf16[3,3,8,8]) -> bf16[3,3,8,16] {{\n{gather}\n}}" for name in ("f", "g", "h")
    )
    calls = "\n".join(f"  %{n} = bf16[] fusion(%p), kind=kCustom, calls=%{n}" for n in "fgh")
    text = f"HloModule m, num_partitions=8\n\n{bodies}\n\nENTRY %e () -> () {{\n{calls}\n}}\n"
    assert of_program(text) == (Collective("all-gather", 2 * 9 * 8 * 16, 2, 1, ""),)


def test_a_program_on_one_device_sends_nothing():
    assert collectives(jnp.sin, jnp.ones(3)) == ()
