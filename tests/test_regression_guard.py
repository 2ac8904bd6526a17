"""What must not creep into the train step and inference: counts that depend on no machine.

Convolutions, their types and multiply-adds, and transpositions are read from the programs as they
go to the compiler: the same everywhere. What the compiler decides, passes over the maps and memory,
is read from its programs for CPUs, and bounded: a bound lies 10 to 40 % above what jax 0.10
and 0.12 give. That the readers find what they look for: analysis/test_products.py.
"""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from drn_jax import models
from drn_jax.analysis import collectives, cost, hlo, products
from drn_jax.models import stages
from drn_jax.models.context import Context
from drn_jax.models.inputs import Preprocess
from drn_jax.models.layers import DilatedConv
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage
from drn_jax.tasks import Classification, Segmentation
from drn_jax.training import optim, sharding, state, steps

IMAGES, SIDE, CLASSES = 4, 64, 3
NETWORKS = {
    "drn_c_26": {"width": 0.125},
    "drn_d_54": {"width": 0.125},
    "vgg_16_front_end": {
        "width": 0.0625,
        "padding": "zero",
        "context": Context(7, "basic", "layer"),
    },
}
WIDE = Network(
    (
        Stage("stem", "conv", 64),
        Stage("level1", "basic", 64, stride=2),
        Stage("level2", "basic", 64, dilation=2),
    ),
    num_classes=CLASSES,
)
"""Wide enough for Winograd's convolution, which computes three of its five 3x3 ones, all of 32 x 32
cells: tiles of 2 and of 4 fill them at either dilation."""
NARROW = Network(
    (
        Stage("stem", "conv", 4),
        Stage("level1", "basic", 4),
        Stage("level2", "basic", 4, dilation=2),
    ),
    num_classes=CLASSES,
)
CASES = [("drn_c_26", "native"), *((name, "auto") for name in NETWORKS)]
NORMALISE = Preprocess((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
SGD = optim.sgd(lambda _: 0.1, momentum=0.9, weight_decay=1e-4)


def create(name, **options):
    return models.create(name, num_classes=CLASSES, **NETWORKS[name], **options)


def pooled(model):
    """Networks classify images, those with a context module every cell."""
    return isinstance(model, Network)


def batch_of(images):
    return {
        "image": jax.ShapeDtypeStruct((images, SIDE, SIDE, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((images,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((images, SIDE, SIDE), jnp.uint8),
    }


@cache
def inference(model):
    """Lowered."""
    images = jax.ShapeDtypeStruct((IMAGES, SIDE, SIDE, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def scores(variables, images):
        logits, features = model.apply(variables, images)
        return logits if pooled(model) else features["logits_2d"]

    return jax.jit(scores).lower(variables, images)


def step_and_state(model):
    task = Classification(CLASSES) if pooled(model) else Segmentation(CLASSES)
    step = steps.make_train_step(model, task, SGD, lambda batch: NORMALISE(batch["image"]))
    draw = partial(state.init, model, SGD, input_shape=(SIDE, SIDE, 3))
    return step, jax.eval_shape(draw, jax.random.key(0))


@cache
def training(model):
    """The lowered train step."""
    step, start = step_and_state(model)
    return jax.jit(step, donate_argnums=0).lower(start, batch_of(IMAGES))


@cache
def text_of(lowered):
    return lowered.as_text("hlo")


def multiply_adds(found):
    return sum(product.multiply_adds * product.times for product in found)


def convolutions(model):
    """Those of the network's table."""
    found, channels = [], 3
    for row in model.table:
        for block in stages.blocks(row, channels):
            found += block.path
            found += [block.shortcut] if isinstance(block.shortcut, stages.Conv) else []
        channels = channels if row.kind == "max_pool" else row.outputs
    return found


def work(model):
    """The multiply-adds of every row for a batch."""
    rows = cost.of(model.table, SIDE, SIDE, pooled=pooled(model))
    return {row.name: IMAGES * row.multiply_adds for row in rows}


# Products


@pytest.mark.parametrize(("name", "method"), CASES)
def test_inference_computes_each_convolution_of_the_table_once_and_no_other_product(name, method):
    model = create(name, convolution=method)
    found = products.of_program(text_of(inference(model)))
    matrices = [c for c in convolutions(model) if c.kernel == 1 and method == "auto"]
    kinds = [product.kind for product in found for _ in range(product.times)]
    assert len(kinds) == len(convolutions(model))
    assert kinds.count("dot") == len(matrices)
    assert multiply_adds(found) == sum(work(model).values())


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_train_step_computes_three_times_as_much_but_no_gradient_by_the_images(name, method):
    model = create(name, convolution=method)
    found = products.of_program(text_of(training(model)))
    first = next(iter(work(model).values()))
    assert sum(product.times for product in found) == 3 * len(convolutions(model)) - 1
    assert multiply_adds(found) == 3 * sum(work(model).values()) - first


def test_what_is_recomputed_is_counted():
    """The inside of every level once more: all but the classifier."""
    model = NARROW.clone(remat="level")
    found = products.of_program(text_of(training(model)))
    rows = work(model)
    assert sum(product.times for product in found) == 4 * len(convolutions(model)) - 2
    assert multiply_adds(found) == 4 * sum(rows.values()) - rows["stem"] - rows["head"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_train_step_takes_no_more_than_three_inferences_and_a_tenth(name):
    """In FLOPs, those of batch norm, loss and update among them."""
    model = create(name)
    flops = [step(model).cost_analysis()["flops"] for step in (training, inference)]
    assert 2.8 < flops[0] / flops[1] < 3.1


@pytest.mark.parametrize(("tile", "share"), [(2, 4 / 9), (4, 1 / 4)])
def test_winograds_products_are_as_many_and_as_few_as_promised(tile, share):
    native = WIDE.clone(convolution="native")
    model = WIDE.clone(convolution=f"winograd{tile}")
    chosen = [c for c in convolutions(model) if c.kernel == 3 and c.inputs == 64 and c.stride == 1]
    direct = len(chosen) * IMAGES * 32 * 32 * 9 * 64 * 64
    first = next(iter(work(model).values()))
    for step, passes, transforms, less in ((inference, 1, 3, 0), (training, 3, 9, first)):
        found = products.of_program(text_of(step(model)))
        plain = products.of_program(text_of(step(native)))
        assert multiply_adds(plain) == passes * sum(work(model).values()) - less
        batched = [product for product in found if len(product.result.shape) == 3]
        assert len(batched) == passes * len(chosen)
        assert multiply_adds(batched) == pytest.approx(passes * share * direct)
        assert len(found) == len(plain) + transforms * len(chosen)


def test_automatic_programs_multiply_less_than_the_table_says_at_full_width():
    """On CPUs, where wide 3x3 convolutions go to Winograd's program."""
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    model = models.create("drn_d_22", CLASSES)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    lowered = jax.jit(lambda v, x: model.apply(v, x)[0]).lower(variables, images)
    found = products.of_program(text_of(lowered))
    table = cost.of(model.table, 224, 224, pooled=True)
    assert multiply_adds(found) < 0.6 * sum(row.multiply_adds for row in table)


# Types


@pytest.mark.parametrize(("step", "passes"), [(inference, 1), (training, 3)])
@pytest.mark.parametrize("name", NETWORKS)
def test_in_bfloat16_the_classifiers_alone_multiply_float32(name, step, passes):
    model = create(name, dtype=jnp.bfloat16)
    found = products.of_program(text_of(step(model)))
    exact = [p for p in found if {array.dtype for array in (*p.operands, p.result)} != {"bf16"}]
    assert {array.dtype for p in exact for array in p.operands} == {"f32"}
    classifiers = [work(model).get(row, 0) for row in ("head", "ctx_final")]
    assert multiply_adds(exact) == passes * sum(classifiers)


@pytest.mark.parametrize("model", [create("vgg_16_front_end"), WIDE], ids=["vgg", "wide"])
def test_in_float32_nothing_multiplies_float64_even_where_there_is_any(model):
    step, start = step_and_state(model)
    with jax.enable_x64(True):
        lowered = jax.jit(step).lower(start, batch_of(IMAGES))
    found = products.of_program(text_of(lowered))
    assert {array.dtype for p in found for array in (*p.operands, p.result)} == {"f32"}


# Order, passes, memory


@pytest.mark.parametrize("step", [inference, training])
@pytest.mark.parametrize(
    "model",
    [create(name, convolution=method) for name, method in CASES],
    ids=list(map(" ".join, CASES)),
)
def test_no_map_is_transposed(model, step):
    """But gradients of kernels may be; and Winograd's tiles are, which no narrow network has."""
    kernels = [{conv.inputs, conv.outputs} for conv in convolutions(model)]
    for array in products.reordered(text_of(step(model))):
        assert len(array.shape) == 2
        assert set(array.shape) in kernels


def passes(program, model):
    """How many instructions of a compiled program read or write a map: what is neither a parameter
    nor its gradient, nor a vector of one number a channel."""
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    parameters = {tuple(sorted(leaf.shape)) for leaf in jax.tree.leaves(variables)}

    def is_map(array):
        many = array.elements >= IMAGES * (SIDE // 8) ** 2
        return len(array.shape) > 2 and many and tuple(sorted(array.shape)) not in parameters

    free = ("parameter", "tuple", "get-tuple-element", "bitcast")
    return sum(
        instruction.times
        for instruction in hlo.instructions(program.as_text())
        if not (instruction.fused or instruction.opcode in free)
        and any(map(is_map, (*instruction.results, *sum(instruction.operands, ()))))
    )


def test_inference_passes_over_a_map_twice_a_convolution_at_most():
    """To convolve, and for all that follows up to the next convolution."""
    model = create("drn_c_26")
    lowered, count = inference(model), len(convolutions(model))
    assert passes(lowered.compile(), model) <= 2 * count
    unfused = lowered.compile({"xla_disable_hlo_passes": "fusion"})
    assert passes(unfused, model) > 4 * count


@cache
def compiled_training(model):
    return training(model).compile()


def test_a_train_step_passes_over_a_map_eighteen_times_a_convolution_at_most():
    model = create("drn_c_26", convolution="native")
    assert passes(compiled_training(model), model) <= 18 * len(convolutions(model))


def maps_held(model):
    """The memory of a train step but for a gradient, over that of what its convolutions give."""
    images = jax.ShapeDtypeStruct((IMAGES, SIDE, SIDE, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    apply = partial(
        model.apply,
        capture_intermediates=lambda module, _: isinstance(module, DilatedConv),
        mutable=["intermediates"],
    )
    _, maps = jax.eval_shape(apply, variables, images)
    maps, gradient = (
        sum(4 * leaf.size for leaf in jax.tree.leaves(tree)) for tree in (maps, variables["params"])
    )
    held = compiled_training(model).memory_analysis().temp_size_in_bytes
    return (held - gradient) / maps


MAPS_HELD = 3.5
"""Of every convolution what batch norm makes its gradient of, and the next one its own; and what is
under way."""


def test_a_train_step_holds_three_and_a_half_maps_a_convolution_at_most():
    assert maps_held(create("drn_c_26", convolution="native")) < MAPS_HELD


class Hoarder(Network):
    """Holds one map more a convolution: the tangent's gradient, and the exponential's."""

    def __call__(self, *args, **kwargs):
        def more(convolve, args, kwargs, context):
            y = convolve(*args, **kwargs)
            return jnp.exp(jnp.tanh(y)) if isinstance(context.module, DilatedConv) else y

        with nn.intercept_methods(more):
            return super().__call__(*args, **kwargs)


def test_one_map_more_a_convolution_is_noticed():
    assert maps_held(NARROW) < MAPS_HELD < maps_held(Hoarder(NARROW.stages, CLASSES))


# Devices


def test_devices_that_share_a_batch_send_gradients_and_statistics_and_nothing_else():
    """No map, no parameter, and no gradient twice; batch norm sums at most four times a channel
    besides: twice as many numbers as it averages over the run."""
    mesh = sharding.make_mesh()
    whole, split = (NamedSharding(mesh, spec) for spec in (P(), P("data")))
    step, start = step_and_state(NARROW)
    step = jax.jit(step, in_shardings=(whole, split), out_shardings=whole)
    program = step.lower(start, batch_of(mesh.size)).compile()
    found = collectives.of_program(program.as_text())
    gradient, statistics, scalars = (
        sum(4 * leaf.size for leaf in jax.tree.leaves(tree))
        for tree in (start.params, start.batch_stats, [start.step] * 4)
    )
    assert {collective.kind for collective in found} == {"all-reduce"}
    sent = sum(collective.times * collective.bytes for collective in found)
    assert gradient + statistics <= sent <= gradient + 2 * statistics + scalars
