"""Segmentation counts every labelled pixel once, exactly, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.metrics import confusion_matrix

from drn_jax.analysis.collectives import of_program
from drn_jax.data.dataset import IGNORED
from drn_jax.tasks.segmentation import PUBLISHED_DILATION, Grid, Segmentation, class_iou, confusion
from drn_jax.tasks.upsampling import upsample

CLASSES = 4
TASK = Segmentation(CLASSES)
HEIGHT, WIDTH = 13, 20


def examples(count=3, seed=0):
    """Class maps of 2 x 3 cells and masks of 13 x 20 pixels, a tenth of them ignored."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(0, 2, (count, 2, 3, CLASSES)).astype(np.float32)
    mask = rng.integers(0, CLASSES, (count, HEIGHT, WIDTH)).astype(np.uint8)
    mask[rng.uniform(size=mask.shape) < 0.1] = IGNORED
    return cells, mask


def batch_of(mask, valid=None):
    return {"mask": mask} if valid is None else {"mask": mask, "valid": valid}


def loss(cells, mask, valid=None):
    return jax.jit(TASK.loss)(None, {"logits_2d": cells}, batch_of(mask, valid))[0]


def sums(cells, mask, valid=None):
    return jax.device_get(jax.jit(TASK.sums)(None, {"logits_2d": cells}, batch_of(mask, valid)))


def pixels(cells):
    full = jax.jit(upsample, static_argnums=1)(cells, 8)
    return np.asarray(full, np.float64)[:, :HEIGHT, :WIDTH]


def slow_losses(cells, mask):
    """-log softmax of every pixel in float64; 0 where the mask is ignored."""
    full = pixels(cells)
    losses = np.zeros(mask.shape)
    for at in np.ndindex(*mask.shape):
        if mask[at] != IGNORED:
            losses[at] = np.log(np.exp(full[at] - full[at][mask[at]]).sum())
    return losses


@pytest.mark.parametrize(("height", "width"), [(16, 24), (13, 20), (9, 17)])
def test_pixel_scores_are_the_upsampled_map_cropped_to_the_image(height, width):
    cells, _ = examples()
    for border in ("clamp", "zero"):
        task = Segmentation(CLASSES, grid=Grid(border=border))
        cropped = jax.jit(task.pixel_scores, static_argnums=(1, 2))(
            {"logits_2d": cells}, height, width
        )
        assert cropped.shape == (3, height, width, CLASSES)
        full = jax.jit(upsample, static_argnums=(1, 2))(cells, 8, border)
        np.testing.assert_array_equal(cropped, np.asarray(full)[:, :height, :width])


def test_output_stride_is_the_factor_of_upsampling():
    cells, _ = examples()
    task = Segmentation(CLASSES, output_stride=4)
    full = jax.eval_shape(lambda f: task.pixel_scores(f, 99, 99), {"logits_2d": cells})
    assert full.shape == (3, 8, 12, CLASSES)


def test_loss_is_the_mean_over_pixels_that_are_labelled_and_valid():
    cells, mask = examples()
    losses = slow_losses(cells, mask)
    labelled = mask != IGNORED
    np.testing.assert_allclose(loss(cells, mask), losses.sum() / labelled.sum(), rtol=1e-5)
    valid = np.array([True, False, True])
    expected = losses[valid].sum() / labelled[valid].sum()
    np.testing.assert_allclose(loss(cells, mask, valid), expected, rtol=1e-5)


def test_loss_tells_over_how_many_pixels_or_cells_it_is_the_mean():
    cells, mask = examples()
    valid = np.array([True, False, True])
    _, count = TASK.loss(None, {"logits_2d": cells}, batch_of(mask, valid))
    assert count.dtype == np.int32
    assert count == (mask[valid] != IGNORED).sum()
    at_cells = Segmentation(CLASSES, grid=Grid(alignment="corner", loss_at="cells"))
    _, count = at_cells.loss(None, {"logits_2d": cells}, batch_of(mask, valid))
    assert count.dtype == np.int32
    assert count == (mask[valid][:, ::8, ::8] != IGNORED).sum()


def test_gradient_is_0_at_cells_that_only_ignored_pixels_see():
    cells, mask = examples(2)
    mask[0] = IGNORED
    gradient = np.asarray(jax.grad(loss)(cells, mask))
    np.testing.assert_array_equal(gradient[0], 0)
    assert (gradient[1] != 0).all()


def test_batch_of_ignored_pixels_has_loss_0_and_gradient_0():
    cells, mask = examples(2)
    for masked, valid in ((np.full_like(mask, IGNORED), None), (mask, np.zeros(2, bool))):
        value, gradient = jax.value_and_grad(loss)(cells, masked, valid)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)


def test_confusion_equals_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 5, (2, 3, 11, 17))
    matrix = confusion(truth, prediction, 5)
    assert matrix.dtype == jnp.int32
    expected = confusion_matrix(truth.ravel(), prediction.ravel(), labels=range(5))
    np.testing.assert_array_equal(matrix, expected)


def test_confusion_leaves_out_truth_that_is_no_class():
    truth = np.array([[[-1, 0, 1, 2, 255]]])
    matrix = confusion(truth, np.array([[[0, 1, 1, 0, 1]]]), 2)
    np.testing.assert_array_equal(matrix, [[0, 1], [0, 1]])


def test_confusion_is_exact_beyond_the_integers_of_float32():
    """4097 x 4097 = 2^24 + 8193 is odd, and float32 holds only even numbers there."""
    same = jnp.zeros((1, 4097, 4097), jnp.int8)
    np.testing.assert_array_equal(confusion(same, same, 1), [[4097 * 4097]])


def test_sums_of_a_batch_are_its_losses_and_its_confusion_matrix():
    cells, mask = examples()
    counted = sums(cells, mask)
    prediction, labelled = pixels(cells).argmax(-1), mask != IGNORED
    expected = confusion_matrix(mask[labelled], prediction[labelled], labels=range(CLASSES))
    np.testing.assert_array_equal(counted["confusion"], expected)
    np.testing.assert_allclose(counted["loss"], slow_losses(cells, mask).sum(), rtol=1e-5)
    assert counted["count"] == labelled.sum()
    assert counted["count"].dtype == np.int32


@pytest.mark.parametrize("size", [1, 2, 4])
def test_sums_do_not_depend_on_how_examples_are_split_and_padded(size):
    """The padding holds labelled pixels and NaN, neither of which may count."""
    cells, mask = examples(5)
    whole = sums(cells, mask)
    total = dict.fromkeys(whole, 0)
    for start in range(0, 5, size):
        count = min(size, 5 - start)
        part = np.full((size, *cells.shape[1:]), np.nan, np.float32)
        masks = np.ones((size, *mask.shape[1:]), np.uint8)
        part[:count] = cells[start : start + count]
        masks[:count] = mask[start : start + count]
        for key, value in sums(part, masks, np.arange(size) < count).items():
            total[key] = total[key] + value
    for key in ("count", "confusion"):
        np.testing.assert_array_equal(total[key], whole[key])
    np.testing.assert_allclose(total["loss"], whole["loss"], rtol=1e-5)


def slow_iou(truth, prediction, classes):
    """Intersection over union of the sets of pixels; NaN where both are empty."""
    scores = []
    for c in range(classes):
        true = {at for at in np.ndindex(*truth.shape) if truth[at] == c}
        said = {at for at in np.ndindex(*truth.shape) if prediction[at] == c}
        scores.append(len(true & said) / len(true | said) if true | said else np.nan)
    return scores


def test_iou_and_its_mean_equal_those_of_the_sets_of_pixels():
    """Class 3 is in neither, class 4 in truth alone, class 5 in prediction alone."""
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, 4], (2, 6, 7))
    other = rng.choice([0, 1, 2, 5], truth.shape)
    prediction = np.where(rng.uniform(size=truth.shape) < 0.5, truth % 4, other)
    matrix = np.asarray(confusion(truth, prediction, 6))
    expected = slow_iou(truth, prediction, 6)
    assert np.isnan(expected[3])
    assert expected[4] == expected[5] == 0
    np.testing.assert_allclose(class_iou(matrix), expected, rtol=1e-12)
    # The loss may be taken at other places than the matrix: 21 cells.
    sums = {"loss": np.float32(42), "count": np.int32(21), "confusion": matrix}
    scores = Segmentation(6).scores(sums)
    assert scores == pytest.approx(
        {
            "loss": 2,
            "miou": np.mean([x for x in expected if not np.isnan(x)]),
            "pixel_accuracy": (truth == prediction).mean(),
        }
    )
    assert Segmentation.primary in scores


def test_scores_without_a_single_pixel_are_0():
    cells, mask = examples(1)
    scores = TASK.scores(sums(cells, np.full_like(mask, IGNORED)))
    assert set(scores.values()) == {0.0}


def test_predicted_mask_is_the_likeliest_class_of_every_pixel():
    cells, _ = examples()
    predicted = TASK.predict(None, {"logits_2d": cells}, (HEIGHT, WIDTH))["mask"]
    assert predicted.dtype == jnp.int32
    np.testing.assert_array_equal(predicted, pixels(cells).argmax(-1))


@pytest.mark.parametrize("loss_at", ["pixels", "cells"])
@pytest.mark.parametrize("alignment", ["centre", "corner"])
def test_pixels_over_devices_are_never_gathered(loss_at, alignment):
    """With the height split over devices, all that is exchanged is halos and totals."""
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec(None, "rows"))
    whole = NamedSharding(mesh, PartitionSpec())
    task = Segmentation(CLASSES, grid=Grid(alignment=alignment, loss_at=loss_at))
    rng = np.random.default_rng(3)
    cells = rng.normal(size=(2, 16, 2, CLASSES)).astype(np.float32)
    mask = rng.integers(0, CLASSES, (2, 128, 16)).astype(np.uint8)
    mask[rng.uniform(size=mask.shape) < 0.1] = IGNORED

    def step(cells, mask):
        def loss(cells):
            return task.loss(None, {"logits_2d": cells}, {"mask": mask})

        sums = task.sums(None, {"logits_2d": cells}, {"mask": mask})
        return (sums, *jax.value_and_grad(loss, has_aux=True)(cells))

    program = jax.jit(step, in_shardings=(rows, rows), out_shardings=(whole, whole, rows))
    compiled = program.lower(cells, mask).compile({"xla_backend_optimization_level": 0})
    exchanges = {c.kind for c in of_program(compiled.as_text())}
    assert exchanges == {"all-reduce", "collective-permute"}
    found = compiled(*jax.device_put((cells, mask), rows))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        jax.device_get(found),
        jax.device_get(step(cells, mask)),
    )


def test_pixels_of_nan_logits_are_never_right():
    task = Segmentation(3, output_stride=1)
    features = {"logits_2d": jnp.full((1, 4, 4, 3), jnp.nan)}
    mask = (jnp.arange(16, dtype=jnp.uint8) % 3).reshape(1, 4, 4)
    matrix = np.asarray(jax.jit(task.sums)(None, features, {"mask": mask})["confusion"])
    assert np.trace(matrix) == 0
    assert matrix.sum() == 16


# Other grids than fyu/drn's

RNG = np.random.default_rng(5)
CELLS = RNG.normal(0, 2, (3, 2, 3, CLASSES)).astype(np.float32)
"""Of 16 x 24 pixels, of which images of 13 x 20 lack the last."""
ALIGNMENTS = ("centre", "corner")


def labels():
    """Masks of 13 x 20 for `CELLS`, a third of them ignored."""
    mask = np.random.default_rng(6).integers(0, 6, (3, HEIGHT, WIDTH))
    return np.where(mask < CLASSES, mask, IGNORED).astype(np.uint8)


def slow_cell_losses(cells, mask, alignment):
    """Cross-entropy of every cell that counts, with the label of the pixel under it."""
    first = {"corner": 0, "centre": 4}[alignment]
    losses = []
    for n, i, j in np.ndindex(*cells.shape[:3]):
        label = mask[n, min(8 * i + first, HEIGHT - 1), min(8 * j + first, WIDTH - 1)]
        if label != IGNORED:
            row = cells[n, i, j].astype(np.float64)
            losses.append(np.log(np.exp(row - row[label]).sum()))
    return losses


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_loss_at_cells_is_that_of_the_labels_under_the_cells(alignment):
    mask, valid = labels(), np.array([True, False, True])
    task = Segmentation(CLASSES, grid=Grid(alignment=alignment, loss_at="cells"))
    losses = slow_cell_losses(CELLS[valid], mask[valid], alignment)
    assert 0 < len(losses) < 12  # Some of the labels under cells are ignored.
    batch = {"mask": mask, "valid": valid}
    found, _ = jax.jit(task.loss)(None, {"logits_2d": CELLS}, batch)
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)
    counted = jax.device_get(jax.jit(task.sums)(None, {"logits_2d": CELLS}, batch))
    np.testing.assert_allclose(counted["loss"], np.sum(losses), rtol=1e-5)
    assert counted["count"] == len(losses)
    np.testing.assert_allclose(task.scores(counted)["loss"], np.mean(losses), rtol=1e-5)


def test_confusion_is_counted_in_pixels_wherever_the_loss_is_taken():
    mask, features = labels(), {"logits_2d": CELLS}
    at_pixels, at_cells = (
        jax.device_get(
            Segmentation(CLASSES, grid=Grid(alignment="corner", loss_at=where)).sums(
                None, features, {"mask": mask}
            )
        )
        for where in ("pixels", "cells")
    )
    np.testing.assert_array_equal(at_cells["confusion"], at_pixels["confusion"])
    assert at_cells["confusion"].sum() == at_pixels["count"] == (mask != IGNORED).sum()
    assert at_cells["count"] <= CELLS[..., 0].size


def test_batch_of_ignored_cells_has_loss_0_and_gradient_0():
    task = Segmentation(CLASSES, grid=PUBLISHED_DILATION)
    mask = labels()
    mask[:, ::8, ::8] = IGNORED  # All that cells see, and not all there is.
    assert (mask != IGNORED).any()

    def loss(cells):
        return task.loss(None, {"logits_2d": cells}, {"mask": mask})[0]

    value, gradient = jax.value_and_grad(loss)(CELLS)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def softmax(x):
    wide = np.exp(x.astype(np.float64))
    return wide / wide.sum(-1, keepdims=True)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_probabilities_are_interpolated_behind_the_softmax_and_logits_before(alignment):
    grids = [Grid(alignment=alignment, interpolate=what) for what in ("logits", "probabilities")]
    scores = [
        Segmentation(CLASSES, grid=grid).pixel_scores({"logits_2d": CELLS}, HEIGHT, WIDTH)
        for grid in grids
    ]

    def enlarged(values):
        full = upsample(values.astype(np.float32), 8, alignment=alignment)
        return np.asarray(full, np.float64)[:, :HEIGHT, :WIDTH]

    np.testing.assert_allclose(scores[0], enlarged(CELLS), atol=1e-6)
    probabilities = enlarged(softmax(CELLS))
    np.testing.assert_allclose(np.exp(scores[1]), probabilities, rtol=1e-5)
    np.testing.assert_allclose(np.exp(scores[1]).sum(-1), 1, rtol=1e-5)
    # Neither the same numbers nor always the same winner.
    assert np.abs(softmax(np.asarray(scores[0])) - probabilities).max() > 0.05
    assert (np.asarray(scores[0]).argmax(-1) != probabilities.argmax(-1)).any()


def test_probability_0_of_the_true_class_is_a_finite_loss_with_a_finite_gradient():
    task = Segmentation(2, 1, Grid(interpolate="probabilities"))
    features = {"logits_2d": jnp.array([[[[300.0, -300.0]]]])}
    batch = {"mask": np.ones((1, 1, 1), np.uint8)}
    value, gradient = jax.value_and_grad(lambda f: task.loss(None, f, batch)[0])(features)
    assert 80 < value < 600
    assert np.isfinite(gradient["logits_2d"]).all()


def test_network_that_upsamples_by_itself_is_taken_as_it_is():
    pixel_logits = RNG.normal(0, 2, (3, 16, 24, CLASSES)).astype(np.float32)
    features, mask = {"logits_2d": CELLS, "pixel_logits": pixel_logits}, labels()
    own = pixel_logits[:, :HEIGHT, :WIDTH]
    for grid in (Grid(), Grid(interpolate="probabilities", alignment="corner")):
        task = Segmentation(CLASSES, grid=grid)
        np.testing.assert_array_equal(task.pixel_scores(features, HEIGHT, WIDTH), own)
        labelled = mask != IGNORED
        losses = [
            np.log(np.exp(row - row[c]).sum())
            for row, c in zip(own[labelled], mask[labelled], strict=True)
        ]
        found, _ = task.loss(None, features, {"mask": mask})
        np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)
        predicted = task.predict(None, features, (HEIGHT, WIDTH))["mask"]
        np.testing.assert_array_equal(predicted, own.argmax(-1))
    at_cells = Segmentation(CLASSES, grid=Grid(loss_at="cells"))
    found, _ = at_cells.loss(None, features, {"mask": mask})
    np.testing.assert_allclose(found, np.mean(slow_cell_losses(CELLS, mask, "centre")), rtol=1e-5)


def test_mask_before_the_context_module_is_predicted_beside_the_one_behind_it():
    task = Segmentation(CLASSES, grid=PUBLISHED_DILATION)
    before = CELLS[:, ::-1]
    found = task.predict(None, {"logits_2d": CELLS, "front_end": before}, (HEIGHT, WIDTH))
    for name, cells in (("mask", CELLS), ("front_end_mask", before)):
        expected = task.predict(None, {"logits_2d": cells}, (HEIGHT, WIDTH))
        assert set(expected) == {"mask"}
        np.testing.assert_array_equal(found[name], expected["mask"])
    assert (found["mask"] != found["front_end_mask"]).any()
