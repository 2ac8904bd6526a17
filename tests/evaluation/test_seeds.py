"""Runs are summarised as statistics say, and only together with their like."""

import math

import numpy as np
import pytest
from scipy import stats

from drn_jax.errors import UserError
from drn_jax.evaluation import seeds

PROTOCOL = {"name": "segmentation", "scales": [1.0], "crops": {"count": 1}}


def results(values, data="cityscapes", model="drn_d_22", **changes):
    return [
        {
            "model": model,
            "data": {"name": data},
            "protocol": PROTOCOL | changes,
            "scores": {"miou": v, "class": {"road": 1 - v}},
            "checkpoint": {"sha256": f"{v:.6f}"},
            "seconds": 1 / v,
        }
        for v in values
    ]


def error_of(*args):
    with pytest.raises(UserError) as caught:
        seeds.summarise(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mean_spread_and_interval_are_those_of_a_t_test():
    values = [0.61, 0.66, 0.64, 0.6]
    found = seeds.summarise(results(values))
    assert list(found) == ["miou", "class.road"]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    summary = found["miou"]
    assert summary.runs == 4
    assert summary.mean == pytest.approx(sum(values) / 4)
    assert summary.std == pytest.approx(
        math.sqrt(sum((v - sum(values) / 4) ** 2 for v in values) / 3)
    )
    assert summary.interval == pytest.approx((expected.low, expected.high))
    assert found["class.road"].mean == pytest.approx(1 - summary.mean)


def test_the_interval_holds_the_truth_in_19_of_20_draws():
    draws = np.random.default_rng(0).normal(0.7, 0.02, (2000, 3))
    intervals = [seeds.of(row.tolist()).interval for row in draws]
    share = np.mean([i is not None and i[0] <= 0.7 <= i[1] for i in intervals])
    assert share == pytest.approx(0.95, abs=0.015)


def test_two_runs_have_no_interval_and_say_so_and_one_is_refused():
    summary = seeds.summarise(results([0.5, 0.6]))["miou"]
    assert summary.interval is None
    assert summary.words(percent=True) == "55.00 ± 7.07 over 2 runs, too few for an interval"
    assert "1 results can't be put together" in error_of(results([0.5]))


def test_words_tell_the_interval():
    summary = seeds.summarise(results([0.6, 0.6 + 1e-6, 0.6 - 1e-6]))["miou"]
    assert summary.words() == "0.6000 ± 0.0000 over 3 runs, 95% interval 0.6000 to 0.6000"
    assert summary.as_json()["interval"] == pytest.approx((0.6, 0.6), abs=1e-5)


def test_runs_of_other_data_network_or_protocol_are_refused_by_field():
    said = error_of(results([0.5, 0.6]) + results([0.5], data="camvid"), ["a", "b", "c"])
    assert "data.name is camvid in c and cityscapes in a" in said
    assert "model is drn_c_26 in run 2" in error_of(
        results([0.5]) + results([0.6], model="drn_c_26")
    )
    said = error_of(results([0.5]) + results([0.6], crops={"count": 10}))
    assert "protocol.crops.count is 10 in run 2 and 1 in run 1" in said
    assert "protocol.flip is True in run 2 and nothing" in error_of(
        results([0.5]) + results([0.6], flip=True)
    )


def test_scores_must_be_the_same_ones_and_those_that_are_missing_are_left_out():
    broken = results([0.5, 0.6, 0.7])
    del broken[1]["scores"]["miou"]
    assert "run 2: has no score miou" in error_of(broken)
    broken[1]["scores"]["miou"] = math.nan
    broken[2]["scores"]["class"]["road"] = None
    assert seeds.summarise(broken) == {}


def test_the_same_weights_do_not_count_twice():
    said = error_of(results([0.5, 0.6, 0.5]), ["a", "b", "c"])
    assert "c and a are of the same weights" in said
