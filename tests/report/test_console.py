"""The course of a run in words: short on a line, as much as fits beside a bar, or nothing."""

import io
import math
import sys

import pytest
from rich.console import Console

from drn_jax.analysis import cost, receptive_field
from drn_jax.report import console
from drn_jax.report.console import RunProgress

ROW = {
    "train_loss": 2.1234,
    "grad_norm": 1.0,
    "learning_rate": 0.1,
    "images_per_s": 912.3,
    "step_s": 0.0702,
    "input_s": 0.011,
    "compute_s": 0.0592,
    "tflops_per_s": 33.0,
    "peak_share": 0.412,
    "memory_gb": 8.24,
}


@pytest.fixture
def terminal(monkeypatch):
    """`terminal(width)`: a terminal; `terminal()`: a file. Returns what is printed, as a file."""

    def terminal(width=None):
        printed = io.StringIO()
        there = Console(
            file=printed,
            force_terminal=width is not None,
            width=width or 80,
            color_system=None,
            highlight=False,
            soft_wrap=True,
        )
        monkeypatch.setattr(console, "_console", there)
        return printed

    return terminal


def line(printed, row, step=20):
    with RunProgress(0, 720) as progress:
        progress.line(step, step / 72, row, 64)
    (text,) = printed.getvalue().splitlines()
    return text


def without(*names):
    return {name: value for name, value in ROW.items() if name not in names}


def test_a_line_tells_speed_wait_share_and_memory(terminal):
    assert line(terminal(), ROW) == (
        "step 20/720  epoch 0.28  loss 2.1234  912 images/s  70 ms (16% input)  41% of peak  "
        "8.2 GB  0:49 left"
    )


def test_little_waiting_is_not_worth_a_word(terminal):
    assert "  70 ms  " in line(terminal(), {**ROW, "input_s": 0.0035})


def test_a_short_step_has_a_decimal(terminal):
    assert "  9.3 ms  " in line(terminal(), {**ROW, "step_s": 0.00931, "input_s": 0.0})


def test_what_is_unknown_is_left_out(terminal):
    first = {**without("step_s", "input_s", "compute_s", "peak_share"), "images_per_s": math.nan}
    assert line(terminal(), first) == "step 20/720  epoch 0.28  loss 2.1234  8.2 GB"
    old = {name: ROW[name] for name in ("train_loss", "images_per_s")}
    text = "step 20/720  epoch 0.28  loss 2.1234  912 images/s  0:49 left"
    assert line(terminal(), old) == text


def bar(terminal, width):
    """The words of the bar a step after a row was told, and whether all is drawn."""
    printed = terminal(width)
    with RunProgress(0, 720) as progress:
        progress.advance(20, 0.28, 2.1, 912.3)
        progress.line(20, 0.28, ROW, 64)
        progress.advance(21, 0.29, 2.0, 912.3)
        progress._bar.refresh()
    return printed.getvalue()


def test_a_wide_bar_tells_what_the_line_tells(terminal):
    drawn = bar(terminal, 140)
    words = "epoch 0.3  loss 2.000  912 images/s  70 ms (16% input)  41% of peak  8.2 GB"
    assert words in drawn


@pytest.mark.parametrize("width", [80, 90, 100, 110, 120])
def test_a_narrow_bar_tells_less_and_cuts_no_word(terminal, width):
    drawn = bar(terminal, width)
    assert "step 21/720" in drawn
    assert "epoch 0.3  loss 2.000  912 images/s" in drawn
    assert "…" not in drawn


@pytest.mark.parametrize("width", [None, 100])
def test_a_silenced_console_prints_nothing(terminal, width, capfd):
    printed = terminal(width)
    console.silence()
    console.say("a line")
    console.table(("a",), {"b": ()})
    console.model_table("net", (), ())
    assert list(console.progress([1, 2], 2, "items")) == [1, 2]
    with RunProgress(0, 720) as progress:
        progress.advance(20, 0.28, 2.1, 912.3)
        progress.line(20, 0.28, ROW, 64)
    assert printed.getvalue() == ""
    assert capfd.readouterr() == ("", "")


def test_a_silenced_console_leaves_standard_error_alone(terminal, capfd):
    """A live bar would take it over."""
    terminal(100)
    console.silence()
    with RunProgress(0, 720):
        print("error: no", file=sys.stderr)
    assert capfd.readouterr().err == "error: no\n"


@pytest.mark.parametrize("name", ["drn_c_42", "dilation10_cityscapes"])
def test_the_table_of_a_large_model_fits_a_narrow_terminal(terminal, name):
    printed = terminal(80)
    costs = cost.of(name, 1396, 1396, pooled=False)
    fields = receptive_field.of_stages(name)
    console.model_table(name, costs, fields)
    text = printed.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    sees = fields[-1].size
    [last] = [line for line in text.splitlines() if f" {costs[-1].name} " in line]
    assert f" {sees} " in last
    total = cost.total(costs)
    [sums] = [line for line in text.splitlines() if f"{total.parameters:,}" in line]
    assert f"{total.multiply_adds / 1e6:,.1f}" in sums
    assert f"{total.activation_bytes / 1e6:,.1f}" in sums
