"""Some steps are traced, no validation, and which they were is said."""

import jax
import pytest

from drn_jax.training.profile import AFTER, STEPS, Trace


@pytest.fixture
def traced(monkeypatch, tmp_path):
    """`traced(steps, pauses, start)`: the calls of the profiler after which step; what was said."""

    def traced(steps, pauses=(), start=0, folder=tmp_path):
        calls, said, now = [], [], start
        monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: calls.append(now))
        monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append(now))
        with Trace(folder, start, said.append) as trace:
            for step in range(start + 1, start + steps + 1):
                now, before = step, len(calls)
                assert trace.after(step, pausing=step in pauses) == (len(calls) > before)
        return calls, said

    return traced


@pytest.mark.parametrize("start", [0, 100])
def test_the_steps_after_the_first_few_are_traced_once(traced, tmp_path, start):
    first, last = start + AFTER, start + AFTER + STEPS
    calls, said = traced(50, start=start)
    assert calls == [first, last]
    assert said == [f"trace of steps {first + 1} to {last} in {tmp_path}"]


def test_a_validation_is_in_no_trace(traced):
    assert traced(50, pauses=[AFTER + 3])[0] == [AFTER, AFTER + 3]
    assert traced(50, pauses=[AFTER])[0] == [AFTER + 1, AFTER + 1 + STEPS]


def test_a_run_that_ends_early_tells_what_it_traced(traced, tmp_path):
    calls, said = traced(AFTER + 2)
    assert calls == [AFTER, AFTER + 2]
    assert said == [f"trace of steps {AFTER + 1} to {AFTER + 2} in {tmp_path}"]
    calls, said = traced(AFTER - 1)
    assert calls == []
    assert said == [f"no step was traced: a trace begins {AFTER} steps after a start"]


def test_without_a_folder_nothing_is_traced_or_said(traced):
    assert traced(50, folder=None) == ([], [])
