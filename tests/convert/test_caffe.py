"""Caffe's nets come in by layer name, every array of them, and compute what they computed."""

import jax
import numpy as np
import pytest

from drn_jax import models
from drn_jax.convert import caffe
from drn_jax.convert.names import CAFFE
from drn_jax.convert.rules import num_classes
from drn_jax.errors import UserError

NARROW = 1 / 64
"""Width of VGG: 1, 2, 4, 8, 8 channels, and 64 in fc6 and fc7."""

VGG = (
    *(("conv1_1", 3, 1), ("conv1_2", 1, 1), ("conv2_1", 1, 2), ("conv2_2", 2, 2)),
    *(("conv3_1", 2, 4), ("conv3_2", 4, 4), ("conv3_3", 4, 4)),
    *(("conv4_1", 4, 8), ("conv4_2", 8, 8), ("conv4_3", 8, 8)),
    *(("conv5_1", 8, 8), ("conv5_2", 8, 8), ("conv5_3", 8, 8)),
)
"""Layer, inputs, outputs of the narrow VGG."""

CONTEXT = ("conv1_1", "conv1_2", "conv2_1", "conv3_1", "conv4_1", "conv5_1", "conv6_1", "conv7_1")

LARGE = (2, 2, 4, 8, 16, 32, 32, 1)
"""Channels of the large context module over those of its input."""

NETS = {
    "vgg_16": ("fc8", 10, "", 0),
    "vgg_16_front_end": ("final", 5, "", 0),
    "dilation8_pascal_voc": ("fc-final", 21, "ct", 8),
    "dilation8_camvid": ("final", 11, "ctx", 8),
    "dilation7_kitti": ("final", 11, "ctx", 7),
    "dilation10_cityscapes": ("final", 19, "ctx", 10),
    "context8_pascal_voc": ("", 21, "ct", 8),
    "context8_camvid": ("", 11, "ctx", 8),
    "context7_kitti": ("", 11, "ctx", 7),
    "context10_cityscapes": ("", 19, "ctx", 10),
}
"""Classifier, classes, prefix and depth of the context module."""


def shapes(name):
    """Shape of every array of a net as Caffe has it, by layer."""
    head, classes, prefix, depth = NETS[name]
    layers = []
    if head:
        layers += [(layer, inputs, outputs, 3) for layer, inputs, outputs in VGG]
        layers += [("fc6", 8, 64, 7), ("fc7", 64, 64, 1), (head, 64, classes, 1)]
    if depth:
        names = [*CONTEXT[: depth - 2], "fc1", "final"]
        factors = LARGE if name.endswith("pascal_voc") else (1,) * depth
        inputs = classes
        for layer, factor in zip(names, factors, strict=True):
            kernel = 1 if layer == "final" else 3
            layers.append((f"{prefix}_{layer}", inputs, factor * classes, kernel))
            inputs = factor * classes
    found = {}
    for layer, inputs, outputs, kernel in layers:
        found[f"{layer}.weight"] = (outputs, inputs, kernel, kernel)
        found[f"{layer}.bias"] = (outputs,)
    if name == "dilation10_cityscapes":
        found["ctx_upsample.weight"] = (classes, 1, 16, 16)
    return found


def drawn(name, seed=0):
    """A narrow net of random numbers, of a size that keeps the activations'."""
    rng = np.random.default_rng(seed)
    return {
        key: (rng.normal(size=shape) * np.sqrt(2 / max(1, np.prod(shape[1:])))).astype(np.float32)
        for key, shape in shapes(name).items()
    }


def nhwc(array):
    return array.transpose(0, 2, 3, 1)


def relative(ours, theirs):
    """The largest difference, relative to the largest value."""
    assert np.ptp(theirs) > 0.01 * np.abs(theirs).max()  # A dead network agrees with any other.
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def same(first, second):
    return jax.tree.structure(first) == jax.tree.structure(second) and jax.tree.all(
        jax.tree.map(np.array_equal, first, second)
    )


def golden_input(golden, procedural):
    shape = tuple(golden.facts["input"])
    scale = np.float32(golden.facts["input_scale"])
    return nhwc(procedural.image(f"caffe/{golden.name}", shape) * scale)


@pytest.mark.parametrize("from_file", [False, True])
def test_context_module_is_the_published(golden, goldens, procedural, from_file):
    published = golden("context8_camvid")
    source = goldens / "context8_camvid.caffemodel" if from_file else published.state
    variables = caffe.load("context8_camvid", source)
    model = models.create("context8_camvid", num_classes(variables))
    _, features = jax.jit(model.apply)(variables, golden_input(published, procedural))
    assert relative(features["context"], nhwc(published.figures["ctx_final"])) < 1e-5


@pytest.fixture(scope="module")
def street_scenes(golden):
    """Goldens of the two whole nets; they share the front end, drawn once, of 134 M numbers."""
    camvid = golden("dilation8_camvid")
    kitti = golden("dilation7_kitti", camvid.state)
    return {net.name: net for net in (camvid, kitti)}


@pytest.mark.long
@pytest.mark.parametrize("name", ["dilation8_camvid", "dilation7_kitti"])
def test_whole_nets_are_the_published(street_scenes, procedural, name):
    published = street_scenes[name]
    variables = caffe.load(name, published.state)
    model = models.create(name, num_classes(variables))
    _, features = jax.jit(model.apply)(variables, golden_input(published, procedural))
    assert relative(features["front_end"], nhwc(published.figures["final"])) < 1e-5
    # From scores up to 240 to refined ones up to 16, so rounding is 15 times as large beside them.
    assert relative(features["context"], nhwc(published.figures["ctx_final"])) < 1e-4


@pytest.mark.parametrize("name", CAFFE)
def test_every_array_of_every_net_is_taken_and_every_one_of_ours_filled(name):
    state = drawn(name)
    variables = caffe.load(name, state, NARROW)
    classes = NETS[name][1]
    assert num_classes(variables) == classes
    model = models.create(name, classes, NARROW)
    maps = name.startswith("context")
    image = np.zeros((1, 400, 400, classes if maps else 3), np.float32)
    wanted = jax.eval_shape(model.init, jax.random.key(0), image)
    assert jax.tree.map(lambda a: a.shape, variables) == jax.tree.map(lambda a: a.shape, wanted)
    taken = np.sort(np.concatenate([a.ravel() for a in jax.tree.leaves(variables)]))
    given = np.sort(np.concatenate([a.ravel() for a in state.values()]))
    np.testing.assert_array_equal(taken, given)


def test_every_layer_lands_under_its_own_name():
    params = caffe.load("dilation8_pascal_voc", drawn("dilation8_pascal_voc"), NARROW)["params"]
    state = drawn("dilation8_pascal_voc")
    for scope, ours, theirs in (
        ("front_end", "conv4_2", "conv4_2"),
        ("front_end", "fc7", "fc7"),
        ("front_end", "head", "fc-final"),
        ("context", "ctx_conv5_1", "ct_conv5_1"),
        ("context", "ctx_final", "ct_final"),
    ):
        found = params[scope][ours]
        np.testing.assert_array_equal(found["bias"], state[f"{theirs}.bias"])
        kernel = state[f"{theirs}.weight"]
        np.testing.assert_array_equal(found["kernel"], np.einsum("oihw->hwio", kernel))


def test_the_front_ends_classifier_has_either_name():
    state = drawn("vgg_16_front_end")
    other = {key.replace("final", "fc-final"): value for key, value in state.items()}
    assert other.keys() != state.keys()
    load = caffe.load
    assert same(load("vgg_16_front_end", other, NARROW), load("vgg_16_front_end", state, NARROW))


class TestInnerProducts:
    """fc6, fc7 and fc8 of Caffe's classifier are matrices."""

    @pytest.mark.parametrize("before", [(), (1, 1)])
    def test_matrices_are_read_as_convolutions(self, before):
        state = drawn("vgg_16")
        stored = {
            key: value.reshape(*before, len(value), -1)
            if key.startswith("fc") and value.ndim == 4
            else value.reshape(*before, *before[:1], -1)
            if value.ndim == 1
            else value
            for key, value in state.items()
        }
        assert stored["fc6.weight"].shape == (*before, 64, 8 * 49)
        variables = caffe.load("vgg_16", stored, NARROW)
        assert same(variables, caffe.load("vgg_16", state, NARROW))

    def test_they_multiply_the_map_flattened_as_caffe_does(self):
        state = drawn("vgg_16")
        for layer in ("fc6", "fc7", "fc8"):
            state[f"{layer}.weight"] = state[f"{layer}.weight"].reshape(
                state[f"{layer}.weight"].shape[0], -1
            )
        variables = caffe.load("vgg_16", state, NARROW)
        images = np.random.default_rng(1).normal(size=(2, 224, 224, 3)).astype(np.float32)
        logits, features = jax.jit(models.create("vgg_16", 10, NARROW).apply)(variables, images)
        x = np.asarray(features["pool5"]).transpose(0, 3, 1, 2).reshape(2, -1)
        for layer in ("fc6", "fc7", "fc8"):
            x = x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"][None, :]
            x = x if layer == "fc8" else np.maximum(x, 0)
        assert relative(logits, x) < 1e-5

    def test_other_layers_have_exactly_their_shape(self):
        state = drawn("vgg_16")
        state["conv1_2.weight"] = state["conv1_2.weight"].reshape(1, 9)
        with pytest.raises(UserError, match=r"- conv1_2\.weight \(1, 9\), \+ conv1_2\.weight \(1,"):
            caffe.load("vgg_16", state, NARROW)


def run_caffe(torch, state, layers, x):
    """A chain of layers by PyTorch: "pool", which rounds up, or (name, padding, dilation, relu)."""
    functional = torch.nn.functional
    for layer in layers:
        if layer == "pool":
            x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
            continue
        name, padding, dilation, relu = layer
        weight, bias = (torch.from_numpy(state[f"{name}.{part}"]) for part in ("weight", "bias"))
        x = functional.conv2d(x, weight, bias, padding=padding, dilation=dilation)
        x = torch.relu(x) if relu else x
    return x


def test_the_front_end_pools_like_caffe_where_sizes_are_odd(torch):
    state = drawn("vgg_16_front_end")
    names = [layer for layer, _, _ in VGG]
    layers = []
    for name in names:
        layers.append((name, 0, 2 if name.startswith("conv5") else 1, True))
        if name in ("conv1_2", "conv2_2", "conv3_3"):
            layers.append("pool")
    layers += [("fc6", 0, 4, True), ("fc7", 0, 1, True), ("final", 0, 1, False)]
    images = np.random.default_rng(1).normal(size=(1, 3, 391, 406)).astype(np.float32)
    expected = nhwc(run_caffe(torch, state, layers, torch.from_numpy(images)).numpy())
    assert expected.shape == (1, 3, 5, 5)  # Rounding down leaves 2 x 4.
    variables = caffe.load("vgg_16_front_end", state, NARROW)
    _, features = models.create("vgg_16_front_end", 5, NARROW).apply(variables, nhwc(images))
    assert relative(features["logits_2d"], expected) < 1e-5


def test_upsampling_of_dilation10_is_a_grouped_transposed_convolution(torch):
    state = drawn("dilation10_cityscapes")
    variables = caffe.load("dilation10_cityscapes", state, NARROW)
    images = np.random.default_rng(1).normal(size=(1, 420, 404, 3)).astype(np.float32)
    _, features = models.create("dilation10_cityscapes", 19, NARROW).apply(variables, images)
    scores = np.array(features["context"]).transpose(0, 3, 1, 2)
    expected = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(scores),
        torch.from_numpy(state["ctx_upsample.weight"]),
        stride=8,
        padding=4,
        groups=19,
    )
    assert features["pixel_logits"].shape == (1, 48, 32, 19)
    assert relative(features["pixel_logits"], nhwc(expected.numpy())) < 1e-5


def test_the_large_module_pads_its_input_once(torch):
    state = drawn("context8_pascal_voc")
    dilations = {"conv3_1": 4, "conv2_1": 2, "conv4_1": 8, "conv5_1": 16}
    names = (*CONTEXT[:6], "fc1", "final")
    layers = [
        (f"ct_{name}", 33 if name == "conv1_1" else 0, dilations.get(name, 1), name != "final")
        for name in names
    ]
    maps = np.random.default_rng(1).normal(size=(1, 21, 5, 4)).astype(np.float32)
    expected = nhwc(run_caffe(torch, state, layers, torch.from_numpy(maps)).numpy())
    variables = caffe.load("context8_pascal_voc", state)
    _, features = models.create("context8_pascal_voc").apply(variables, nhwc(maps))
    assert relative(features["context"], expected) < 1e-5


def refusal(name, source, width=NARROW):
    with pytest.raises(UserError) as caught:
        caffe.load(name, source, width)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_of_another_net_are_refused_with_the_names_that_differ(goldens):
    path = goldens / "context8_camvid.caffemodel"
    said = refusal("context7_kitti", path)
    assert said.startswith(f"{path} does not fit context7_kitti: - ctx_conv5_1.bias (11,), ")
    said = refusal("dilation8_camvid", drawn("vgg_16_front_end"))
    assert "the mapping does not fit dilation8_camvid: " in said
    assert "+ ctx_conv1_1.bias (11,)" in refusal("context8_camvid", {})


def test_a_layer_too_many_or_too_few_is_refused():
    state = drawn("vgg_16_front_end")
    extra = state | {"fc8.weight": np.zeros((3, 2), np.float32)}
    assert "- fc8.weight (3, 2) (- given" in refusal("vgg_16_front_end", extra)
    del state["conv3_3.bias"]
    assert "+ conv3_3.bias (4,) (- given" in refusal("vgg_16_front_end", state)


def test_both_names_of_the_front_ends_classifier_at_once_are_refused():
    state = drawn("vgg_16_front_end")
    state |= {key.replace("final", "fc-final"): value for key, value in state.items()}
    assert "- fc-final.bias (5,), - fc-final.weight" in refusal("vgg_16_front_end", state)


def test_another_number_of_classes_is_taken_from_the_source():
    state = drawn("context8_camvid")
    cut = {key: value[:4, :4] if value.ndim == 4 else value[:4] for key, value in state.items()}
    variables = caffe.load("context8_camvid", cut)
    assert num_classes(variables) == 4


def test_a_network_that_caffe_does_not_have_is_refused():
    assert "no Caffe weights of drn_c_26 were published, only of vgg_16, " in refusal(
        "drn_c_26", {}
    )
    assert "did you mean dilation8_camvid" in refusal("dilation8_camvit", {})


def test_a_cut_file_that_still_parses_is_refused_for_the_layers_it_lacks(goldens, tmp_path):
    whole = (goldens / "context8_camvid.caffemodel").read_bytes()
    path = tmp_path / "cut.caffemodel"
    path.write_bytes(whole[: whole.rindex(b"ctx_fc1") - 6])
    said = refusal("context8_camvid", path)
    assert "does not fit context8_camvid: + ctx_fc1.bias (11,), " in said


def test_the_fixed_upsampling_may_be_left_out_and_is_bilinear_then():
    state = drawn("dilation10_cityscapes")
    del state["ctx_upsample.weight"]
    kernel = caffe.load("dilation10_cityscapes", state, NARROW)["params"]["ctx_upsample"]["kernel"]
    tent = 1 - np.abs((np.arange(16) + 0.5) / 8 - 1)
    np.testing.assert_allclose(kernel[:, :, 0, 3], np.outer(tent, tent), atol=1e-7)


def test_the_context_module_alone_carries_the_upsampling_along_unused():
    state = drawn("context10_cityscapes")
    plain = caffe.load("context10_cityscapes", state)
    state["ctx_upsample.weight"] = np.ones((19, 1, 16, 16), np.float32)
    carried = caffe.load("context10_cityscapes", state)
    assert same(carried["params"], plain["params"])
    assert "unused" not in plain
    assert carried["unused"]["ctx_upsample"]["kernel"].shape == (16, 16, 1, 19)
