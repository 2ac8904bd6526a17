"""The table of docs/analysis.md is the runs' numbers, put together."""

import importlib.util
from pathlib import Path

import pytest

from drn_jax.errors import UserError

PLACE = Path(__file__).parents[1] / "docs/gridding_table.py"


@pytest.fixture(scope="module")
def gridding_table():
    spec = importlib.util.spec_from_file_location("gridding_table", PLACE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, network, levels, top1=0.5, width=0.25):
    """`levels`: (column, dilation, period, mean, deviation)."""
    keys = ("column", "dilation", "period", "mean", "deviation")
    return {
        "run": name,
        "network": network,
        "top1": top1,
        "settings": {"model": {"width": width}},
        "levels": [dict(zip(keys, level, strict=True)) for level in levels],
    }


def test_seeds_are_put_together_and_levels_stand_beside_those_that_correspond(gridding_table):
    runs = [
        run("a0", "drn_a_18", [(6, 4, 2, 0.01, 0.002)], top1=0.3),
        run("a1", "drn_a_18", [(6, 4, 2, 0.03, 0.004)], top1=0.4),
        run("c0", "drn_c_26", [(6, 4, 2, 0.02, None), (8, 1, 2, 0.0, None)], top1=None),
    ]
    assert list(gridding_table.table(runs)) == [
        "| level | period | `drn_a_18` | `drn_c_26` |",
        "|---|---:|---:|---:|",
        "| 6 | 2 | d = 4: 2.00 ± 1.41 [0.30] | d = 4: 2.00 |",
        "| 8 | 2 |  | d = 1: 0.00 |",
        "| top-1 accuracy (%) | | 35.0 ± 7.1 |  |",
    ]


def test_runs_of_different_recipes_are_no_seeds(gridding_table):
    levels = [(6, 4, 2, 0.01, 0.002)]
    runs = [run("a0", "drn_a_18", levels), run("a1", "drn_a_18", levels, width=0.5)]
    with pytest.raises(UserError, match="a1 differs from a0"):
        list(gridding_table.table(runs))
