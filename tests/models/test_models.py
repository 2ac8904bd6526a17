"""The networks by name: what they hold, what they return, and what each cell sees."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.models import CLASSES, MODELS, create, table
from drn_jax.models.context import Context, ContextModule
from drn_jax.models.dilation import PUBLISHED, ContextNetwork
from drn_jax.models.network import Network
from drn_jax.models.stages import Conv, Stage, blocks, least_size, output_stride, surroundings

PARAMETERS = {
    "resnet_18": 11_689_512,
    "resnet_34": 21_797_672,
    "resnet_50": 25_557_032,
    "resnet_101": 44_549_160,
    "resnet_152": 60_192_808,
    "drn_a_18": 11_689_512,
    "drn_a_34": 21_797_672,
    "drn_a_50": 25_557_032,
    "drn_b_26": 21_126_584,
    "drn_c_26": 21_126_584,
    "drn_c_42": 31_234_744,
    # The published checkpoint has 1,049,600 more: a projection that is computed and never added.
    "drn_c_58": 40_542_008,
    "drn_d_22": 16_393_752,
    "drn_d_24": 21_114_392,
    "drn_d_38": 26_501_912,
    "drn_d_40": 31_222_552,
    "drn_d_54": 35_809_176,
    "drn_d_56": 40_529_816,
    "drn_d_105": 54_801_304,
    "drn_d_107": 59_521_944,
    "vgg_16": 138_357_544,
    "vgg_16_front_end": 134_346_581,
    "context": 28_392,
    "dilation8_pascal_voc": 134_346_581 + 6_803_139,
    "dilation8_camvid": 134_305_611 + 64 * 11**2 + 8 * 11,
    "dilation7_kitti": 134_305_611 + 55 * 11**2 + 7 * 11,
    "dilation10_cityscapes": 134_338_387 + 82 * 19**2 + 10 * 19 + 16 * 16 * 19,
    "context8_pascal_voc": 6_803_139,
    "context8_camvid": 64 * 11**2 + 8 * 11,
    "context7_kitti": 55 * 11**2 + 7 * 11,
    "context10_cityscapes": 82 * 19**2 + 10 * 19,
}

PUBLISHED_CLASSES = {
    "vgg_16_front_end": 21,
    "context": 21,
    "dilation8_pascal_voc": 21,
    "dilation8_camvid": 11,
    "dilation7_kitti": 11,
    "dilation10_cityscapes": 19,
    "context8_pascal_voc": 21,
    "context8_camvid": 11,
    "context7_kitti": 11,
    "context10_cityscapes": 19,
}
"""Of the data sets; all others are for ImageNet's 1000."""


def example(name, height, width, examples=1):
    """What a network takes for images of height x width: their margin around them. For a context
    module alone a map of that size."""
    if not table(name):
        return jax.ShapeDtypeStruct((examples, height, width, CLASSES[name]), jnp.float32)
    around = 2 * surroundings(table(name))
    return jax.ShapeDtypeStruct((examples, height + around, width + around, 3), jnp.float32)


@cache
def variable_shapes(name):
    return jax.eval_shape(create(name).init, jax.random.key(0), example(name, 8, 8))


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def test_every_model_is_in_the_table_of_parameter_counts():
    assert set(MODELS) == set(PARAMETERS)


@pytest.mark.parametrize("name", MODELS)
def test_model_has_its_exact_published_number_of_parameters(name):
    leaves = jax.tree.leaves(variable_shapes(name)["params"])
    assert sum(leaf.size for leaf in leaves) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("classes", "parameters"), [(21, 134_346_581), (19, 134_338_387), (11, 134_305_611)]
)
def test_front_end_has_its_exact_number_of_parameters_for_every_data_set(classes, parameters):
    model = create("vgg_16_front_end", num_classes=classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0), example("vgg_16_front_end", 8, 8))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_table_under_its_names(name):
    expected, model = {}, create(name)
    channels = 3 if table(name) else CLASSES[name]
    for stage in model.table:
        part = ""
        if isinstance(model, ContextNetwork):
            part = "context/" if stage.name.startswith("ctx_") else "front_end/"
        for block in blocks(stage, channels):
            convs = [*block.path]
            if isinstance(block.shortcut, Conv):
                convs.append(block.shortcut)
            for conv in convs:
                kernel = (conv.kernel, conv.kernel, conv.inputs, conv.outputs)
                if stage.kind == "plain":
                    expected[f"{part}{stage.name}/kernel"] = kernel
                    expected[f"{part}{stage.name}/bias"] = (conv.outputs,)
                    continue
                at = f"{part}{stage.name}/{block.name}"
                expected[f"{at}/{conv.name}/kernel"] = kernel
                expected[f"{at}/{conv.norm}/scale"] = (conv.outputs,)
                expected[f"{at}/{conv.norm}/bias"] = (conv.outputs,)
        channels = stage.outputs
    if name == "dilation10_cityscapes":
        expected["ctx_upsample/kernel"] = (16, 16, 1, 19)
    assert {k: v.shape for k, v in by_path(variable_shapes(name)["params"]).items()} == expected


@pytest.mark.parametrize("name", MODELS)
def test_no_parameter_is_named_by_automatic_numbering(name):
    """Automatic names begin with a class, and so with a capital."""
    paths = by_path(variable_shapes(name))
    assert not [path for path in paths if path != path.lower()]


@pytest.mark.parametrize("name", MODELS)
def test_class_map_has_a_cell_for_every_output_stride_begun(name):
    model, images = create(name), example(name, 45, 40, examples=2)
    logits, features = jax.eval_shape(model.apply, variable_shapes(name), images)
    classes, stride = PUBLISHED_CLASSES.get(name, 1000), output_stride(table(name))
    assert logits.shape == (2, classes)
    cells = (-(-45 // stride), -(-40 // stride))
    assert features["logits_2d"].shape == (2, *cells, classes)
    expected = {"logits_2d", *(stage.name for stage in model.table)} - {"head"}
    if not isinstance(model, Network):
        expected |= {"front_end", "context"}
        assert features["front_end"].shape == features["context"].shape == (2, *cells, classes)
    if name == "dilation10_cityscapes":
        expected.add("pixel_logits")
        assert features["pixel_logits"].shape == (2, 8 * cells[0], 8 * cells[1], classes)
    assert set(features) == expected
    assert {leaf.dtype for leaf in (logits, *features.values())} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 8), (9, 16), (17, 25)])
def test_class_map_is_rounded_up_at_every_size(height, width):
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    shapes = variable_shapes("drn_d_22")
    _, features = jax.eval_shape(create("drn_d_22").apply, shapes, images)
    assert features["logits_2d"].shape == (1, -(-height // 8), -(-width // 8), 1000)


@pytest.fixture(scope="module")
def small():
    return create("drn_d_22", num_classes=5, width=1 / 16)


IMAGES = np.random.default_rng(1).normal(size=(2, 33, 20, 3)).astype(np.float32)


def test_logits_are_the_mean_of_the_class_map(small, variables_of):
    logits, features = jax.jit(small.apply)(variables_of(small, IMAGES), IMAGES)
    assert features["logits_2d"].shape == (2, 5, 3, 5)
    mean = np.asarray(features["logits_2d"]).mean((1, 2))
    np.testing.assert_allclose(logits, mean, rtol=1e-5, atol=1e-5 * np.abs(mean).max())


def test_training_moves_every_batch_statistic_and_no_parameter(small, variables_of):
    variables = variables_of(small, IMAGES)

    @jax.jit
    def train(variables):
        _, updates = small.apply(variables, IMAGES, train=True, mutable=True)
        return updates

    after = jax.device_get(train(variables))
    assert set(after) == {"params", "batch_stats"}
    jax.tree.map(np.testing.assert_array_equal, after["params"], variables["params"])
    old, new = by_path(variables["batch_stats"]), by_path(after["batch_stats"])
    assert set(old) == set(new)
    assert not [path for path in old if np.array_equal(old[path], new[path])]


def test_running_variance_option_reaches_every_norm(variables_of):
    """At 2 images of 1 pixel an unbiased variance is twice the biased one, at every layer."""
    images = np.random.default_rng(2).normal(size=(2, 1, 1, 3)).astype(np.float32)
    stages = (Stage("stem", "conv", 4), Stage("level1", "bottleneck", 2))
    increments = {}
    for kind in ("biased", "unbiased"):
        model = Network(stages, num_classes=2, running_variance=kind)
        variables = variables_of(model, images)
        run = partial(model.apply, train=True, mutable=["batch_stats"])
        after = by_path(jax.jit(run)(variables, images)[1]["batch_stats"])
        before = by_path(variables["batch_stats"])
        increments[kind] = [after[k] - 0.9 * before[k] for k in after if k.endswith("/var")]
    assert len(increments["biased"]) == 5
    for biased, unbiased in zip(*increments.values(), strict=True):
        np.testing.assert_allclose(unbiased, 2 * biased, rtol=1e-4, atol=1e-6)
        assert biased.max() > 1e-3


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("drn_c_26", {"logits_2d"}),
        ("vgg_16_front_end", {"logits_2d"}),
        ("context7_kitti", {"front_end", "context", "logits_2d", "ctx_final"}),
        (
            "dilation10_cityscapes",
            {"front_end", "context", "logits_2d", "ctx_final", "pixel_logits"},
        ),
    ],
)
def test_bfloat16_model_computes_in_bfloat16_and_stores_and_classifies_in_float32(name, exact):
    model = create(name, width=1 / 16, dtype=jnp.bfloat16)
    (logits, features), variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), example(name, 16, 16)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert {features.pop(name).dtype for name in exact} == {jnp.dtype("float32")}
    assert {f.dtype for f in features.values()} == {jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32


def test_class_map_costs_nothing_where_it_is_not_used():
    """The compiled program that returns it does the head's work at each of 8 x 8 cells more."""
    stages = (Stage("stem", "conv", 4), Stage("level1", "basic", 8, stride=2))
    model = Network(stages, num_classes=100)
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(images.shape))

    def flops(returned):
        program = jax.jit(lambda v, x: returned(*model.apply(v, x)))
        return program.lower(variables, images).compile().cost_analysis()["flops"]

    dense = flops(lambda logits, features: (logits, features["logits_2d"]))
    pooled = flops(lambda logits, features: logits)
    work = 8 * 8 * 100 * (2 * 8 + 1)
    assert dense - pooled == pytest.approx(work, rel=0.05)


def test_unknown_model_is_refused_with_the_nearest_names():
    with pytest.raises(UserError, match=r"unknown model 'drn_c_27': did you mean .*drn_c_26"):
        create("drn_c_27")


def test_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"no option 'running_varience'.*running_variance\?"):
        create("drn_c_26", running_varience="biased")
    with pytest.raises(UserError, match="no option 'stages'"):
        create("drn_c_26", stages=())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("drn_c_26", {"dropout": 0.5}, "drn_c_26 has no option 'dropout'"),
        ("drn_c_26", {"padding": "none"}, "drn_c_26 has no option 'padding'"),
        ("vgg_16", {"padding": "none"}, "vgg_16 has no option 'padding'"),
        ("vgg_16_front_end", {"padding": "mirror"}, "no padding 'mirror': use 'none' or 'zero'"),
        ("dilation8_camvid", {"padding": "zeros"}, "no padding 'zeros': use 'none' or 'zero'"),
        ("context8_camvid", {"dropout": 0.5}, "context8_camvid has no option 'dropout'"),
        ("context7_kitti", {"context": Context(8)}, "context7_kitti has 7 context layers, not 8"),
        (
            "dilation10_cityscapes",
            {"context": Context(8)},
            "dilation10_cityscapes has 10 context layers, not 8: .* vgg_16_front_end",
        ),
    ],
)
def test_option_that_the_network_has_not_is_refused(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        create(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["drn_d_22", "vgg_16_front_end", "context", "dilation8_camvid"])
@pytest.mark.parametrize(
    ("context", "message"),
    [
        (Context(padding="zero"), "context padding 'zero': known: layer, mirror, none, once"),
        (Context(size="small"), "context size 'small': known: basic, large"),
        (Context(init="random"), "context init 'random': known: filler, he, identity"),
        (Context(epsilon=-0.1), "context epsilon -0.1: a deviation is 0 or more"),
    ],
)
def test_context_module_that_does_not_exist_is_refused_by_create(name, context, message):
    with pytest.raises(UserError, match=message):
        create(name, width=1 / 64, context=context)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg_16", {"dropout": 1.0}, "dropout 1.0 must be at least 0 and below 1"),
        ("drn_c_26", {"num_classes": 0}, "drn_c_26: 0 classes; there must be 1 or more"),
    ],
)
def test_values_out_of_range_are_refused_by_create(name, options, message):
    with pytest.raises(UserError, match=message):
        create(name, **options)


def test_equal_options_make_equal_networks():
    for name in ("vgg_16_front_end", "dilation8_camvid", "drn_c_26"):
        assert create(name) == create(name)
        assert create(name, head_std=0.5) == create(name, head_std=0.5) != create(name)


def test_context_of_a_published_net_may_change_but_for_its_layers():
    context = Context(8, "large", "mirror", "filler", 0.25)
    for name in ("dilation8_camvid", "context8_camvid"):
        model = create(name, context=context)
        module = model.context if isinstance(model, ContextNetwork) else model
        assert module == ContextModule(11, context)


@pytest.mark.parametrize("name", MODELS)
def test_classes_are_the_published_ones_or_those_asked_for(name):
    for asked, classes in ((None, PUBLISHED_CLASSES.get(name, 1000)), (7, 7)):
        model = create(name, asked)
        parts = [model]
        if isinstance(model, ContextNetwork):
            parts = [model.front_end, model.context]
        counts = {p.channels if isinstance(p, ContextModule) else p.num_classes for p in parts}
        assert counts == {classes}


@pytest.mark.parametrize("name", MODELS)
def test_kind_of_network_is_that_of_the_name(name):
    model = create(name)
    if name.startswith("dilation"):
        assert isinstance(model, ContextNetwork)
        assert model.upsampling == (8 if name == "dilation10_cityscapes" else 0)
        assert model.context.context == PUBLISHED[name].context
    elif name.startswith("context"):
        assert isinstance(model, ContextModule)
    else:
        assert isinstance(model, Network)
        refined = create(name, context=Context())
        assert isinstance(refined, ContextNetwork)
        assert refined.stages == refined.front_end.stages == model.stages
        assert refined.context == ContextModule(model.num_classes, Context())
        assert refined.upsampling == 0


def test_new_classifier_of_a_dilated_net_is_drawn_small_and_the_rest_by_fan_in():
    """Deviation 0.001, as published, and He et al.'s."""
    model = create("dilation8_camvid", num_classes=5, width=1 / 64, padding="zero")
    key = jax.random.key(0, impl="unsafe_rbg")
    params = jax.device_get(jax.jit(model.init)(key, jnp.zeros((1, 8, 8, 3))))["params"]
    for stage, weights in params["front_end"].items():
        kernel = weights["kernel"]
        deviation = 0.001 if stage == "head" else np.sqrt(2 / np.prod(kernel.shape[:-1]))
        assert abs(kernel.std() / deviation - 1) < 4 / np.sqrt(2 * kernel.size), stage
        np.testing.assert_array_equal(weights["bias"], 0)


@pytest.mark.parametrize(
    ("name", "least"), [("vgg_16_front_end", 373), ("dilation7_kitti", 373), ("vgg_16", 193)]
)
@pytest.mark.parametrize("wide", [0, 100])
def test_images_too_small_for_a_cell_are_refused_with_the_least_that_does(name, least, wide):
    model = create(name)
    shapes = variable_shapes(name)

    def apply(height, width):
        images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
        return jax.eval_shape(model.apply, shapes, images)[1]["logits_2d"].shape

    assert least_size(model.front_end.stages if "7" in name else model.stages) == least
    assert apply(least, least)[1:3] == (1, 1)
    message = f"{least - 1}x{least + wide} are too small .* {least} pixels a side, its margin"
    with pytest.raises(UserError, match=message) as caught:
        apply(least - 1, least + wide)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"{least + wide}x{least - 1} are too small"):
        apply(least + wide, least - 1)


def test_class_map_too_small_for_a_context_module_without_padding_is_refused():
    model = create("drn_d_22", 3, 1 / 16, context=Context(padding="none"))
    for cells in (66, 67):
        images = jax.ShapeDtypeStruct((1, 8 * cells, 8 * 67, 3), jnp.float32)
        if cells == 67:
            (_, features), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
            assert features["context"].shape == (1, 1, 1, 3)
            assert features["front_end"].shape == (1, 67, 67, 3)
            continue
        with pytest.raises(UserError, match=r"66x67 is too small .* 67x67 .* 'none'"):
            jax.eval_shape(model.init, jax.random.key(0), images)


@pytest.mark.parametrize("width", [0, -0.5, float("nan"), float("inf")])
def test_width_that_is_no_positive_number_is_refused(width):
    with pytest.raises(UserError, match="width"):
        create("drn_c_26", width=width)
