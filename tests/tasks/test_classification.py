"""Classification counts exactly, however the examples are batched."""

import jax
import numpy as np
import pytest

from drn_jax.tasks.classification import Classification, cross_entropy

CLASSES = 7
TASK = Classification(CLASSES)


def slow_losses(logits, label):
    """-log softmax in float64, an example at a time."""
    wide = np.asarray(logits, np.float64)
    return np.array(
        [np.log(np.exp(row - row[c]).sum()) for row, c in zip(wide, label, strict=True)]
    )


def slow_rank(row, label):
    """Place of the label when the classes are sorted: NaN first, then by logit, then by number.

    A label whose own logit is NaN is in no place at all.
    """
    if np.isnan(row[label]):
        return len(row)
    key = [(-np.inf if np.isnan(x) else -x, c) for c, x in enumerate(row)]
    return sorted(range(len(row)), key=key.__getitem__).index(label)


def examples(count, seed=0):
    """Logits on a coarse grid, so that ties abound."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 3, (count, CLASSES)).astype(np.float32)
    return logits, rng.integers(0, CLASSES, count).astype(np.int32)


def sums(logits, label, valid=None):
    batch = {"label": label} if valid is None else {"label": label, "valid": valid}
    return jax.device_get(jax.jit(TASK.sums)(logits, {}, batch))


def loss(logits, label, valid=None):
    batch = {"label": label} if valid is None else {"label": label, "valid": valid}
    return jax.jit(TASK.loss)(logits, {}, batch)[0]


def test_cross_entropy_equals_its_definition_in_float64():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 20, (6, CLASSES)).astype(np.float32)
    label = rng.integers(0, CLASSES, 6)
    losses = slow_losses(logits, label)
    np.testing.assert_allclose(cross_entropy(logits, label), losses, rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_bfloat16_logits_is_taken_in_float32():
    logits = np.array([[0, 0, 0]], jax.numpy.bfloat16)
    loss = cross_entropy(jax.numpy.asarray(logits), np.array([1]))
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)


def test_cross_entropy_of_large_logits_is_finite():
    logits = np.array([[1e30, -1e30, 0], [5e4, 5e4, 0]], np.float32)
    losses = cross_entropy(logits, np.array([0, 1]))
    np.testing.assert_allclose(losses, [0, np.log(2)], rtol=1e-6)


def test_top1_and_top5_equal_a_stable_sort_with_ties_by_class_number():
    logits, label = examples(200)
    ranks = np.array([slow_rank(row, c) for row, c in zip(logits, label, strict=True)])
    counted = sums(logits, label)
    assert counted["count"] == 200
    assert counted["class_top1"].sum() == (ranks < 1).sum()
    assert counted["top5"] == (ranks < 5).sum()
    for c in range(CLASSES):
        assert counted["class_count"][c] == (label == c).sum()
        assert counted["class_top1"][c] == ((ranks < 1) & (label == c)).sum()


def test_constant_network_is_right_at_class_0_alone():
    label = np.arange(CLASSES, dtype=np.int32)
    counted = sums(np.zeros((CLASSES, CLASSES), np.float32), label)
    np.testing.assert_array_equal(counted["class_top1"], label == 0)
    assert counted["top5"] == 5


def test_nan_logits_never_count_as_right():
    label = np.arange(CLASSES, dtype=np.int32)
    counted = sums(np.full((CLASSES, CLASSES), np.nan, np.float32), label)
    assert counted["top5"] == counted["class_top1"].sum() == 0
    own = np.where(np.eye(CLASSES, dtype=bool), np.nan, -1).astype(np.float32)
    counted = sums(own, label)
    assert counted["top5"] == counted["class_top1"].sum() == 0


def test_nan_logits_of_other_classes_come_before_the_label():
    logits, label = examples(100, seed=1)
    logits[np.random.default_rng(2).uniform(size=logits.shape) < 0.2] = np.nan
    ranks = np.array([slow_rank(row, c) for row, c in zip(logits, label, strict=True)])
    counted = sums(logits, label)
    assert counted["class_top1"].sum() == (ranks < 1).sum()
    assert counted["top5"] == (ranks < 5).sum()


@pytest.mark.parametrize("size", [1, 3, 4, 8])
def test_sums_do_not_depend_on_how_examples_are_split_and_padded(size):
    """The padding holds right answers and NaN, neither of which may count."""
    logits, label = examples(10)
    whole = sums(logits, label)
    total = dict.fromkeys(whole, 0)
    for start in range(0, 10, size):
        share = slice(start, min(start + size, 10))
        part = np.full((size, CLASSES), np.nan, np.float32)
        part[-1] = 100 * np.eye(CLASSES)[3]
        labels = np.full(size, 3, np.int32)
        count = share.stop - share.start
        part[:count], labels[:count] = logits[share], label[share]
        for key, value in sums(part, labels, np.arange(size) < count).items():
            total[key] = total[key] + value
    for key in whole.keys() - {"loss"}:
        np.testing.assert_array_equal(total[key], whole[key], err_msg=key)
        assert np.issubdtype(whole[key].dtype, np.integer), key
    np.testing.assert_allclose(total["loss"], whole["loss"], rtol=1e-6)


def test_loss_is_the_mean_over_valid_examples_only():
    logits, label = examples(5)
    losses = slow_losses(logits, label)
    valid = np.array([True, False, True, True, False])
    np.testing.assert_allclose(loss(logits, label, valid), losses[valid].mean(), rtol=1e-5)
    np.testing.assert_allclose(loss(logits, label), losses.mean(), rtol=1e-5)


def test_loss_tells_over_how_many_examples_it_is_the_mean():
    """So that means over parts of a batch, weighted by their counts, are the mean over all."""
    logits, label = examples(6)
    valid = np.array([True, False, True, True, False, False])
    parts = [
        TASK.loss(logits[part], {}, {"label": label[part], "valid": valid[part]})
        for part in (slice(0, 2), slice(2, 5), slice(5, 6))
    ]
    assert [int(count) for _, count in parts] == [1, 2, 0]
    assert {count.dtype for _, count in parts} == {np.dtype("int32")}
    weighted = sum(float(mean) * int(count) for mean, count in parts) / 3
    assert weighted == pytest.approx(float(loss(logits, label, valid)), rel=1e-6)
    assert int(TASK.loss(logits, {}, {"label": label})[1]) == 6


def test_batch_without_valid_examples_has_loss_0_and_gradient_0():
    logits, label = examples(3)
    value, gradient = jax.value_and_grad(loss)(logits, label, np.zeros(3, bool))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_gradient_is_softmax_less_one_hot_over_the_valid_count():
    logits, label = examples(4)
    valid = np.array([True, True, False, True])
    gradient = jax.grad(loss)(logits, label, valid)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = (softmax - np.eye(CLASSES)[label]) * valid[:, None] / 3
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_scores_divide_the_summed_sums_once():
    logits, label = examples(40)
    scores = TASK.scores(sums(logits, label))
    ranks = np.array([slow_rank(row, c) for row, c in zip(logits, label, strict=True)])
    assert scores == pytest.approx(
        {
            "loss": slow_losses(logits, label).mean(),
            "top1": (ranks < 1).mean(),
            "top5": (ranks < 5).mean(),
        },
        rel=1e-5,
    )
    assert TASK.primary in scores


def test_scores_of_no_examples_are_0():
    logits, label = examples(2)
    assert set(TASK.scores(sums(logits, label, np.zeros(2, bool))).values()) == {0.0}


def test_predictions_are_softmax_of_the_logits_and_of_every_cell():
    logits, _ = examples(2)
    cells = np.random.default_rng(0).normal(size=(2, 3, 4, CLASSES)).astype(np.float32)
    predicted = TASK.predict(logits, {"logits_2d": cells}, (24, 32))
    for key, values in (("probability", logits), ("class_map", cells)):
        expected = np.exp(values) / np.exp(values).sum(-1, keepdims=True)
        np.testing.assert_allclose(predicted[key], expected, rtol=1e-5)


def test_nan_logits_are_not_in_the_top_five_of_four_classes():
    task = Classification(4)
    logits = np.full((3, 4), np.nan, np.float32)
    sums = jax.jit(task.sums)(logits, {}, {"label": np.arange(3)})
    assert int(sums["top5"]) == 0
    assert int(sums["class_top1"].sum()) == 0
