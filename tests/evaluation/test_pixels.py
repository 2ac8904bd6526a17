"""The answer at every pixel is what plain NumPy and Pillow make of the whole image's maps."""

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax

from drn_jax.errors import UserError
from drn_jax.evaluation.dense import ClassMaps
from drn_jax.evaluation.pixels import PUBLISHED, PixelScores, Scales, resized
from drn_jax.models.context import Context, ContextModule
from drn_jax.models.dilation import UPSAMPLING, ContextNetwork
from drn_jax.models.inputs import Preprocess
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage
from drn_jax.tasks.segmentation import PUBLISHED_DILATION, Grid, Segmentation

QUICK = {"xla_backend_optimization_level": 0}
"""To compile."""

CLASSES, STRIDE, SIDES = 4, 4, (24, 56)
PREPROCESS = Preprocess((0.5, 0.4, 0.3), (0.3, 0.2, 0.25))
MODEL = Network(
    (Stage("stem", "conv", 6, kernel=3, stride=2), Stage("level1", "basic", 6, stride=2)), CLASSES
)
UPSAMPLED = ContextNetwork(MODEL, ContextModule(CLASSES, Context(4)), upsampling=STRIDE)
FEW = (1.0, 0.6, 1.75)


def image_of(height, width, seed=0):
    """Smooth, so that sizes agree on it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def matrix(pixels, cells, grid):
    """Weights [pixels, cells] by which cells are interpolated: tents around where they lie."""
    first = (STRIDE - 1) / 2 if grid.alignment == "centre" else 0
    place = (np.arange(pixels)[:, None] - first) / STRIDE
    if grid.border == "clamp":
        place = place.clip(0, cells - 1)
    return np.maximum(0, 1 - np.abs(place - np.arange(cells)[None]))


def upsampled(cells, size, grid):
    """Log-probabilities [*size, classes] of a map, as the grid says."""
    rows, columns = (matrix(n, m, grid) for n, m in zip(size, cells.shape[:2], strict=True))
    values = softmax(cells, -1) if grid.interpolate == "probabilities" else cells
    full = np.einsum("hy,yxc,wx->hwc", rows, values.astype(np.float64), columns)
    if grid.interpolate == "probabilities":
        full = np.log(full)
    return log_softmax(full, -1)


def of_one_view(class_maps, image, grid):
    """Log-probabilities [H, W, classes] of one image, computed whole."""
    model = class_maps.model

    def apply(variables, images):
        return model.apply(variables, PREPROCESS(images))[1]

    features = jax.jit(apply, compiler_options=QUICK)(class_maps.variables, image[None])
    if model is UPSAMPLED:
        full = np.asarray(features["pixel_logits"])[0, : image.shape[0], : image.shape[1]]
        return log_softmax(full.astype(np.float64), -1)
    return upsampled(np.asarray(features["logits_2d"])[0], image.shape[:2], grid)


def probabilities(class_maps, image, grid, scales):
    """The published evaluation, step by step, [H, W, classes] float64; with the mirror image."""
    height, width = image.shape[:2]
    found = []
    for scale in scales.scales:
        size = int(width * scale), int(height * scale)
        seen = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        for flip in (False, True)[: 1 + scales.flip]:
            shown = np.ascontiguousarray(seen[:, ::-1]) if flip else seen
            scores = of_one_view(class_maps, shown, grid)
            if scales.combine == "probabilities":
                scores = np.exp(scores)
            channels = [
                Image.fromarray(scores[..., c].astype(np.float32)).resize(
                    (width, height), Image.Resampling.BILINEAR
                )
                for c in range(CLASSES)
            ]
            back = np.stack([np.asarray(channel) for channel in channels], -1)
            found.append(back[:, ::-1] if flip else back)
    mean = np.mean(found, 0, dtype=np.float64)
    return mean if scales.combine == "probabilities" else softmax(mean, -1)


@pytest.fixture(scope="module")
def class_maps(variables_of):
    """Of the network, and of that which upsamples by itself, its kernel no longer bilinear."""
    made = {}
    for model in (MODEL, UPSAMPLED):
        variables = variables_of(model, (1, 40, 40, 3))
        if model is UPSAMPLED:
            kernel = variables["params"][UPSAMPLING]["kernel"]
            tent = np.random.default_rng(1).uniform(0, 1, kernel.shape).astype(np.float32)
            variables["params"][UPSAMPLING]["kernel"] = tent
        made[model] = ClassMaps(model, PREPROCESS, variables, SIDES)
    return made


ZERO = Grid(border="zero")
CASES = {
    "one scale": (MODEL, Grid(), Scales()),
    "mirrored": (MODEL, Grid(), Scales(flip=True)),
    "fading": (MODEL, ZERO, Scales((0.6, 1.0))),
    "fyu/dilation": (MODEL, PUBLISHED_DILATION, Scales((1.0, 0.6))),
    "fading probabilities": (MODEL, Grid("corner", "zero", "probabilities"), Scales((0.6,))),
    "several scales, mirrored": (MODEL, Grid(), Scales(FEW, flip=True)),
    "probabilities": (MODEL, ZERO, Scales(FEW, flip=True, combine="probabilities")),
    "own upsampling": (UPSAMPLED, Grid(), Scales((1.0, 0.6), flip=True)),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_numpy_and_pillow_on_the_whole_image(case, class_maps):
    """A size that no stride, block or scale divides, in blocks that do not divide it."""
    model, grid, scales = CASES[case]
    image = image_of(43, 71)
    scorer = PixelScores(class_maps[model], Segmentation(CLASSES, STRIDE, grid), scales, block=32)
    found = scorer.scores(image)
    expected = probabilities(class_maps[model], image, grid, scales)
    assert found.shape == (43, 71, CLASSES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found), expected, rtol=0, atol=1e-4)
    # Nothing that a constant would pass.
    assert expected.std((0, 1)).max() > 0.01


def test_masks_are_the_likeliest_class_and_how_likely(class_maps):
    task, image = Segmentation(CLASSES, STRIDE), image_of(50, 33, seed=1)
    scorer = PixelScores(class_maps[MODEL], task, Scales((1.0, 0.6)), block=32)
    scores = scorer.scores(image)
    mask, probability = scorer.answer(image)
    assert (mask.dtype, probability.dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(mask, scores.argmax(-1))
    np.testing.assert_array_equal(scorer.mask(image), mask)
    np.testing.assert_allclose(probability, np.exp(scores.max(-1)), rtol=1e-5)
    np.testing.assert_allclose(np.exp(scores).sum(-1), 1, rtol=1e-5)


def test_images_of_all_sizes_need_a_fixed_number_of_programs(variables_of):
    """One a window, one for scores, one for masks."""
    maps = ClassMaps(MODEL, PREPROCESS, variables_of(MODEL, (1, 40, 40, 3)), SIDES)
    scales = Scales((1.0, 0.6), flip=True)
    scorer = PixelScores(maps, Segmentation(CLASSES, STRIDE), scales, block=32)
    rng = np.random.default_rng(2)
    for number in range(20):
        height, width = (int(n) for n in rng.integers(1, 90, 2))
        image = image_of(height, width, seed=number)
        shape = scorer.mask(image).shape if number % 2 else scorer.scores(image).shape[:2]
        assert shape == (height, width)
    assert scorer.compiled == len(SIDES) + 2


def test_blocks_make_no_difference(class_maps):
    task, image = Segmentation(CLASSES, STRIDE, ZERO), image_of(61, 90)
    scales = Scales((0.6, 1.75), flip=True)
    small, large = (
        PixelScores(class_maps[MODEL], task, scales, block=block).scores(image)
        for block in (32, 100)
    )
    np.testing.assert_allclose(small, large, rtol=0, atol=2e-5)


def test_the_mirror_image_has_the_mirrored_answer(class_maps):
    task, image = Segmentation(CLASSES, STRIDE), image_of(40, 53)
    scorer = PixelScores(class_maps[MODEL], task, Scales((1.0,), flip=True), block=32)
    mirrored = scorer.scores(np.ascontiguousarray(image[:, ::-1]))
    np.testing.assert_allclose(mirrored[:, ::-1], scorer.scores(image), rtol=0, atol=1e-5)
    once = PixelScores(class_maps[MODEL], task, block=32)
    assert np.abs(once.scores(image) - scorer.scores(image)).max() > 1e-3


def test_published_scales_are_those_of_the_code_without_mirroring():
    assert sorted(PUBLISHED.scales) == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert (PUBLISHED.flip, PUBLISHED.combine) == (False, "log_probabilities")


def test_sizes_are_rounded_down_but_a_pixel_is_left():
    image = image_of(5, 9)
    assert resized(image, 0.5).shape == (2, 4, 3)
    assert resized(image, 0.1).shape == (1, 1, 3)
    assert resized(image, 1) is image


def test_what_cannot_be_computed_is_refused(class_maps):
    task, maps = Segmentation(CLASSES, STRIDE), class_maps[MODEL]
    for scales in ((), (1.0, 0.0), (-1.0,), (float("nan"),), (float("inf"),)):
        with pytest.raises(UserError, match="give one or more numbers above 0"):
            PixelScores(maps, task, Scales(scales))
    with pytest.raises(ValueError, match="task of stride 8, class maps of 4"):
        PixelScores(maps, Segmentation(CLASSES, 8))
