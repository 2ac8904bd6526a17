"""RGB bytes become what each network was trained on: space, mean and margin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax import models
from drn_jax.errors import UserError
from drn_jax.models.inputs import Preprocess

BGR_MEANS = {
    "dilation8_pascal_voc": (102.93, 111.36, 116.52),
    "dilation8_camvid": (110.703, 108.778, 105.412),
    "dilation7_kitti": (96.194, 95.551, 91.347),
    "dilation10_cityscapes": (72.39, 82.91, 73.16),
}
"""As published, 0 to 255."""


def photographs(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def mirrored(images, margin):
    return np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), "reflect")


def assert_close(actual, expected, scale):
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * scale)


def test_rgb_is_scaled_to_1_and_normalised():
    images, mean, std = photographs(2, 5, 4, 3), (0.2, 0.4, 0.6), (0.1, 0.2, 0.4)
    x = Preprocess(mean, std)(jnp.asarray(images))
    assert_close(x, (images / 255 - np.array([[[mean]]])) / np.array([[[std]]]), 10)


def test_bgr_has_blue_first_0_to_255_less_the_mean_and_no_deviation():
    images, mean = photographs(2, 5, 4, 3), (0.2, 0.4, 0.6)
    x = Preprocess(mean, (9.0, 9.0, 9.0), "bgr")(jnp.asarray(images))
    red, green, blue = np.moveaxis(images.astype(float), -1, 0)
    expected = np.stack([blue - 153, green - 102, red - 51], axis=-1)
    assert_close(x, expected, 255)


@pytest.mark.parametrize("space", ["rgb", "bgr"])
@pytest.mark.parametrize("size", [(9, 7), (5, 6), (2, 3), (1, 2), (1, 1)])
def test_margin_is_mirrored_without_the_edge_as_numpy_does_it_also_past_the_far_edge(size, space):
    images = photographs(1, *size, 3)
    plain = Preprocess((0.5, 0.4, 0.3), (0.2, 0.2, 0.2), space)
    wide = Preprocess(plain.mean, plain.std, space, margin=7)
    np.testing.assert_array_equal(
        wide(jnp.asarray(images)), plain(jnp.asarray(mirrored(images, 7)))
    )


def test_images_that_bring_their_surroundings_get_no_margin():
    images = jnp.asarray(photographs(1, 6, 5, 3))
    step = Preprocess((0.5, 0.4, 0.3), (0.2, 0.2, 0.2), margin=3)
    assert step(images).shape == (1, 12, 11, 3)
    bare = Preprocess(step.mean, step.std)
    np.testing.assert_array_equal(step(images, surrounded=True), bare(images))


def test_preprocess_is_the_same_under_jit():
    images = jnp.asarray(photographs(1, 6, 5, 3))
    step = Preprocess((0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "bgr", 4)
    assert_close(jax.jit(step)(images), np.asarray(step(images)), 255)


@pytest.mark.parametrize("name", BGR_MEANS)
def test_published_net_gets_its_own_mean_in_bgr_and_186_pixels_around(name):
    images = photographs(1, 190, 201, 3)
    expected = mirrored(images, 186)[..., ::-1] - np.array([[[BGR_MEANS[name]]]])
    x = models.preprocess(name, jnp.asarray(images))
    assert x.shape == (1, 562, 573, 3)
    assert_close(x, expected, 255)


def test_zero_padded_front_end_needs_no_margin():
    images = photographs(1, 9, 12, 3)
    x = models.preprocess("dilation8_camvid", jnp.asarray(images), padding="zero")
    assert_close(x, images[..., ::-1] - np.array([[[BGR_MEANS["dilation8_camvid"]]]]), 255)


@pytest.mark.parametrize("name", ["drn_c_26", "drn_a_18", "resnet_50"])
def test_residual_network_gets_rgb_normalised_as_imagenet(name):
    images = photographs(1, 5, 6, 3)
    mean, std = np.array([[[0.485, 0.456, 0.406]]]), np.array([[[0.229, 0.224, 0.225]]])
    x = models.preprocess(name, jnp.asarray(images))
    assert_close(x, (images / 255 - mean) / std, 10)


@pytest.mark.parametrize(("name", "margin"), [("vgg_16", 0), ("vgg_16_front_end", 186)])
def test_vgg_gets_bgr_less_the_mean_of_imagenet(name, margin):
    images = photographs(1, 190, 201, 3)
    mean = 255 * np.array([[[0.406, 0.456, 0.485]]])
    x = models.preprocess(name, jnp.asarray(images))
    assert_close(x, mirrored(images, margin)[..., ::-1] - mean, 255)


def test_an_unknown_space_is_refused():
    with pytest.raises(UserError, match="unknown space 'hsv': known: bgr, rgb"):
        models.preprocessing("drn_c_26", space="hsv")


def test_mean_deviation_and_space_can_be_replaced():
    images = photographs(1, 5, 6, 3)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    x = models.preprocess("drn_c_26", jnp.asarray(images), mean=mean, std=std)
    assert_close(x, (images / 255 - np.array([[[mean]]])) / np.array([[[std]]]), 10)
    x = models.preprocess("dilation7_kitti", jnp.asarray(images), mean=mean, padding="zero")
    assert_close(x, images[..., ::-1] - 255 * np.array([[[mean[::-1]]]]), 255)
    options = {"mean": mean, "std": std, "space": "rgb", "padding": "zero"}
    x = models.preprocess("dilation7_kitti", jnp.asarray(images), **options)
    assert_close(x, (images / 255 - np.array([[[mean]]])) / np.array([[[std]]]), 10)


def test_front_end_takes_its_preprocessed_images_whole():
    """A cell for every 8 pixels begun of the image before its margin."""
    model = models.create("vgg_16_front_end", width=1 / 64)

    def run(images):
        x = models.preprocess("vgg_16_front_end", images)
        return model.init_with_output(jax.random.key(0), x)[0][1]["logits_2d"]

    images = jax.ShapeDtypeStruct((2, 33, 40, 3), jnp.uint8)
    assert jax.eval_shape(run, images).shape == (2, 5, 5, 21)


@pytest.mark.parametrize("name", [name for name in models.MODELS if name.startswith("context")])
def test_context_module_alone_takes_no_images(name):
    with pytest.raises(UserError, match=f"{name} takes the class maps of a front end, not images"):
        models.preprocess(name, jnp.zeros((1, 5, 5, 3), jnp.uint8))


def test_options_of_preprocess_are_refused_as_by_create():
    images = jnp.zeros((1, 5, 5, 3), jnp.uint8)
    with pytest.raises(UserError, match="unknown model 'drn_c_27'"):
        models.preprocess("drn_c_27", images)
    with pytest.raises(UserError, match="drn_c_26 has no option 'padding'"):
        models.preprocess("drn_c_26", images, padding="zero")
