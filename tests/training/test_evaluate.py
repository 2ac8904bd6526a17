"""Totals over a validation set are exact."""

import numpy as np
import pytest

from drn_jax.training.evaluate import Stopped, evaluate


def sums_of(count, loss):
    return {"count": np.array([count], np.int32), "loss": np.array(loss, np.float32)}


def total(sums, stop=lambda: False):
    """Over one batch for each of `sums`."""
    return evaluate(
        lambda _, batch: sums[batch["n"]], {}, [{"n": i} for i in range(len(sums))], dict, stop
    )


def test_counts_are_added_in_int64_and_losses_in_float64():
    found = total([sums_of(2**30, 2.0**24), sums_of(2**30, 1.0), sums_of(2**30 + 1, 1.0)])
    assert found["count"].dtype == np.int64
    assert found["count"].tolist() == [3 * 2**30 + 1]  # Beyond int32.
    assert found["loss"].dtype == np.float64
    assert found["loss"] == 2**24 + 2  # float32 would stay at 2^24.


def test_every_batch_is_counted_once_also_a_single_one():
    assert total([sums_of(5, 0.5)])["count"].tolist() == [5]
    assert total([sums_of(10**i, 0.5) for i in range(4)])["count"].tolist() == [1111]


def test_the_variables_and_the_placed_batch_reach_the_step():
    seen = []

    def eval_step(variables, batch):
        seen.append((variables, batch))
        return sums_of(1, 0.0)

    evaluate(eval_step, {"w": 1}, [{"n": 1}, {"n": 2}], lambda batch: {"n": 10 * batch["n"]})
    assert seen == [({"w": 1}, {"n": 10}), ({"w": 1}, {"n": 20})]


def test_validation_stops_before_the_next_batch_when_asked():
    asked, ran = [], []

    def stop():
        asked.append(len(ran))
        return len(ran) == 2

    def eval_step(_, batch):
        ran.append(batch["n"])
        return sums_of(1, 0.0)

    with pytest.raises(Stopped):
        evaluate(eval_step, {}, [{"n": i} for i in range(5)], dict, stop)
    assert ran == [0, 1]
    assert asked == [0, 1, 2]
