"""Products are those of real programs, whose multiply-adds are the loops of the definition; and bad
programs are told from good ones."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from drn_jax.analysis import hlo
from drn_jax.analysis.products import of_program, reordered
from drn_jax.models.convolution import dilated_conv

X = jax.ShapeDtypeStruct((2, 12, 16, 5), jnp.float32)
KERNEL = jax.ShapeDtypeStruct((3, 3, 5, 7), jnp.float32)


def lowered(function, *args):
    return jax.jit(function).lower(*args).as_text("hlo")


def compiled(function, *args):
    return jax.jit(function).lower(*args).compile().as_text()


def gradients(conv, x, kernel):
    """By both arguments, of a sum of squares."""
    return jax.grad(lambda x, kernel: jnp.square(conv(x, kernel)).sum(), (0, 1))(x, kernel)


@pytest.mark.parametrize("read", [lowered, compiled])
@pytest.mark.parametrize(
    ("stride", "dilation", "padding"), [(1, 1, 1), (1, 4, 4), (2, 1, 1), (2, 2, 2)]
)
def test_a_convolution_and_its_gradients_multiply_each_tap_of_each_output(
    read, stride, dilation, padding
):
    """The gradient by the input skips, at stride 2, the zeros between its cells."""
    conv = partial(dilated_conv, stride=stride, dilation=dilation, padding=padding, method="native")
    n, height, width, outputs = jax.eval_shape(conv, X, KERNEL).shape
    found = of_program(read(partial(gradients, conv), X, KERNEL))
    assert [product.kind for product in found] == ["convolution"] * 3
    assert {product.times for product in found} == {1}
    assert {p.multiply_adds for p in found} == {n * height * width * outputs * 3 * 3 * 5}


def test_a_convolution_without_padding_multiplies_nothing_else():
    [found] = of_program(lowered(partial(dilated_conv, method="native"), X, KERNEL))
    assert [array.shape for array in found.operands] == [X.shape, KERNEL.shape]
    assert found.result == hlo.Array("f32", (2, 10, 14, 7), (0, 1, 2, 3))
    assert found.multiply_adds == 2 * 10 * 14 * 7 * 3 * 3 * 5


def test_a_convolution_by_groups_multiplies_within_them():
    def conv(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=5
        )

    kernel = jax.ShapeDtypeStruct((3, 3, 1, 10), jnp.float32)
    [found] = of_program(lowered(conv, X, kernel))
    assert found.multiply_adds == 2 * 12 * 16 * 10 * 3 * 3


@pytest.mark.parametrize("read", [lowered, compiled])
def test_a_matrix_product_multiplies_what_it_sums_over(read):
    a, b = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 6, 7), (4, 7, 5)))
    [found] = of_program(read(lambda a, b: jnp.einsum("nij,njk->nik", a, b), a, b))
    assert (found.kind, found.multiply_adds) == ("dot", 4 * 6 * 7 * 5)


def test_types_are_those_of_the_operands():
    """A product of bfloat16 that was meant to be, and one that a float32 kernel made float32."""
    x = jax.ShapeDtypeStruct(X.shape, jnp.bfloat16)

    def meant(x, kernel):
        return dilated_conv(x, kernel.astype(x.dtype), method="native")

    def bad(x, kernel):
        return dilated_conv(x.astype(kernel.dtype), kernel, method="native").astype(x.dtype)

    [good], [bad] = (of_program(lowered(program, x, KERNEL)) for program in (meant, bad))
    assert [array.dtype for array in (*good.operands, good.result)] == ["bf16"] * 3
    assert [array.dtype for array in (*bad.operands, bad.result)] == ["f32"] * 3


def test_products_in_called_functions_and_loops_are_executed_as_often():
    """The compiler notes how often a loop runs."""
    a = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    square = jax.jit(lambda a: a @ a)

    def thrice(a):
        return square(square(square(a)))

    def loop(a):
        return lax.scan(lambda a, _: (jnp.sin(a @ a), None), a, None, length=5)[0]

    assert sum(product.times for product in of_program(lowered(thrice, a))) == 3
    assert sum(product.times for product in of_program(lowered(loop, a))) == 1
    assert sum(product.times for product in of_program(compiled(loop, a))) == 5


def channels_first(x, kernel):
    """The convolution of [N, H, W, C] in another order than theirs."""
    y = lax.conv_general_dilated(
        x.transpose(0, 3, 1, 2),
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NCHW", "HWIO", "NCHW"),
    )
    return y.transpose(0, 2, 3, 1)


def test_maps_that_are_transposed_for_a_convolution_are_found():
    n, height, width, channels = X.shape
    assert [array.shape for array in reordered(lowered(channels_first, X, KERNEL))] == [
        (n, channels, height, width),
        (n, height, width, 7),
    ]
    plain = partial(dilated_conv, padding=1, method="native")
    for read in (lowered, compiled):
        assert reordered(read(plain, X, KERNEL)) == ()


def test_an_axis_of_one_cell_has_no_order():
    x = jax.ShapeDtypeStruct((3, 1, 4), jnp.float32)
    assert reordered(lowered(lambda x: x.transpose(1, 0, 2), x)) == ()
    assert [a.shape for a in reordered(lowered(lambda x: x.transpose(1, 2, 0), x))] == [(1, 4, 3)]


def test_a_copy_to_another_layout_counts_and_one_to_the_same_does_not():
    program = """HloModule m

ENTRY %e (p: f32[3,4]) -> f32[3,4] {
  %p = f32[3,4]{1,0} parameter(0)
  %other = f32[3,4]{0,1:T(8,128)} copy(f32[3,4]{1,0} %p)
  ROOT %same = f32[3,4]{0,1:T(8,128)} copy(%other)
}
"""
    assert reordered(program) == (hlo.Array("f32", (3, 4), (1, 0)),)
