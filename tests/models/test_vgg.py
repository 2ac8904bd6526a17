"""VGG-16 and the dilated front end that is cut from it: geometry, parameters, what a cell sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.models import create, table
from drn_jax.models.network import Network
from drn_jax.models.stages import cells

KEY = jax.random.key(0)


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def class_map(name, height, width, **options):
    model = create(name, width=1 / 64, **options)
    (_, features), _ = jax.eval_shape(model.init_with_output, KEY, struct(1, height, width, 3))
    return features["logits_2d"].shape[1:3]


def shapes(name, size, **options):
    variables = jax.eval_shape(create(name, **options).init, KEY, struct(1, size, size, 3))
    return jax.tree.map(lambda leaf: leaf.shape, variables["params"])


def test_vgg_16_is_the_published_table():
    """Configuration D of Simonyan & Zisserman: 13 convolutions, 5 poolings, 3 dense layers."""
    model = create("vgg_16")
    rows = [(row.channels, row.kernel, row.stride, row.dilation) for row in model.table]
    levels = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    expected = []
    for channels, count in levels:
        expected += [(channels, 3, 1, 1)] * count + [(channels, 2, 2, 1)]
    assert rows == [*expected, (4096, 7, 1, 1), (4096, 1, 1, 1), (1000, 1, 1, 1)]
    assert [row.relu for row in model.table if row.kind == "plain"] == [True] * 15 + [False]


@pytest.mark.parametrize(
    ("size", "maps"), [(224, 1), (193, 1), (225, 2), (256, 2), (257, 3), (384, 6)]
)
def test_vgg_16_leaves_one_cell_of_224_pixels_and_one_more_for_every_32_begun(size, maps):
    assert class_map("vgg_16", size, 224) == (maps, 1)
    assert cells(table("vgg_16"), size) == maps


def test_poolings_of_vgg_16_at_224_are_those_of_the_paper():
    model = create("vgg_16", width=1 / 64)
    (logits, features), _ = jax.eval_shape(model.init_with_output, KEY, struct(1, 224, 224, 3))
    sizes = [features[f"pool{level}"].shape[1] for level in range(1, 6)]
    assert sizes == [112, 56, 28, 14, 7]
    assert logits.shape == (1, 1000)


def test_front_end_loses_two_poolings_and_dilates_behind_each():
    """Its convolutions are those of VGG-16, in their order."""
    vgg, front = table("vgg_16"), table("vgg_16_front_end")
    assert [row.name for row in front] == [r.name for r in vgg if r.name not in ("pool4", "pool5")]
    dilated = {row.name: row.dilation for row in front if row.kernel > 1 and row.dilation > 1}
    assert dilated == {"conv5_1": 2, "conv5_2": 2, "conv5_3": 2, "fc6": 4}


@pytest.mark.parametrize("padding", ["none", "zero"])
def test_front_end_has_the_parameters_of_vgg_16_but_for_the_classifier(padding):
    vgg, front = shapes("vgg_16", 224), shapes("vgg_16_front_end", 373, padding=padding)
    assert vgg.pop("head") == {"kernel": (1, 1, 4096, 1000), "bias": (1000,)}
    assert front.pop("head") == {"kernel": (1, 1, 4096, 21), "bias": (21,)}
    assert front == vgg


@pytest.mark.parametrize(
    ("height", "width", "maps"),
    [
        (500, 628, (16, 32)),
        (900, 900, (66, 66)),
        (900, 1100, (66, 91)),
        (852, 1640, (60, 159)),
        (1396, 1396, (128, 128)),
    ],
)
def test_front_end_leaves_the_cells_of_the_published_nets(height, width, maps):
    """Of a KITTI image 159 across: a pooling that rounds down would leave 158."""
    rows = table("vgg_16_front_end")
    assert class_map("vgg_16_front_end", height, width) == maps
    assert (cells(rows, height), cells(rows, width)) == maps


@pytest.mark.parametrize("height", [1, 7, 8, 9, 31, 33])
def test_both_paddings_give_a_cell_for_every_8_pixels_begun(height):
    """The front end without padding has its margin around the image."""
    expected = (-(-height // 8), 3)
    assert class_map("vgg_16_front_end", height + 372, 24 + 372) == expected
    assert class_map("vgg_16_front_end", height, 24, padding="zero") == expected


def test_paddings_agree_wherever_a_cell_sees_the_image_alone(variables_of):
    """Six rows and columns of zeros before the image put the poolings of the padded net on the grid
    of the other, whose cell k begins at pixel 186 + 8k: its cells are 24 and up. They see pixels
    8k to 8k + 379 of the image, all of which are there, so that no zero is among them."""
    bare, padded = (
        create("vgg_16_front_end", num_classes=3, width=1 / 64, padding=padding)
        for padding in ("none", "zero")
    )
    images = np.random.default_rng(0).normal(size=(1, 388, 380, 3)).astype(np.float32)
    variables = variables_of(bare, images)
    shifted = np.pad(images, ((0, 0), (6, 0), (6, 0), (0, 0)))
    _, expected = jax.jit(bare.apply)(variables, images)
    _, features = jax.jit(padded.apply)(variables, shifted)
    expected = np.asarray(expected["logits_2d"])
    assert expected.shape == (1, 2, 1, 3)
    assert np.abs(expected[:, 0] - expected[:, 1]).max() > 1e-3 * np.abs(expected).max()
    actual = np.asarray(features["logits_2d"])[:, 24:26, 24:25]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    border = np.asarray(features["logits_2d"])[:, 22:24, 24:25]
    assert np.abs(border - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["vgg_16", "vgg_16_front_end", "dilation8_camvid"])
def test_dropout_follows_fc6_and_fc7_alone_with_the_share_asked_for(name):
    for options, share in (({}, 0.5), ({"dropout": 0.25}, 0.25), ({"dropout": 0.0}, 0.0)):
        rows = create(name, **options).table
        shares = {row.name: row.dropout for row in rows if row.dropout}
        assert shares == ({"fc6": share, "fc7": share} if share else {})


def test_training_of_the_front_end_draws_dropout_from_its_key():
    model = create("vgg_16_front_end", num_classes=3, width=1 / 64, padding="zero")
    images = np.random.default_rng(0).uniform(size=(1, 9, 17, 3)).astype(np.float32)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: np.abs(rng.normal(0, 1 / np.sqrt(np.prod(leaf.shape[:-1])), leaf.shape)),
        jax.eval_shape(model.init, KEY, images),
    )

    @jax.jit
    def train(key):
        return model.apply(params, images, train=True, rngs={"dropout": key})[1]["fc6"]

    first, again, other = (np.asarray(train(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    assert abs((first == 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(first.size)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_front_end_has_no_batch_statistics_and_is_a_plain_network(dtype):
    model = create("vgg_16_front_end", width=1 / 64, dtype=dtype)
    assert isinstance(model, Network)
    variables = jax.eval_shape(model.init, KEY, struct(1, 373, 373, 3))
    assert set(variables) == {"params"}


@pytest.mark.parametrize("name", ["vgg_16", "vgg_16_front_end", "dilation8_camvid"])
def test_fc_channels_are_those_of_fc6_and_fc7_and_of_nothing_else(name):
    """Before `width`, which multiplies them as all others."""
    channels = {row.name: row.channels for row in table(name, 0.5, fc_channels=512)}
    assert channels.pop("fc6") == channels.pop("fc7") == 256
    published = {row.name: row.channels for row in table(name)}
    assert channels == {row: published[row] // 2 for row in published if not row.startswith("fc")}
