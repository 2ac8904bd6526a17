"""The first signal is a request, the second acts as usual."""

import signal

import pytest

from drn_jax.training import interrupt as interrupts
from drn_jax.training.interrupt import Interrupt

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def received():
    """Signals that reach the handlers that were there before."""
    seen = []
    before = {s: signal.signal(s, lambda number, _: seen.append(number)) for s in BOTH}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_noted_and_does_nothing_else(received, number, code):
    with Interrupt() as interrupt:
        assert not interrupt.asked()
        signal.raise_signal(number)
        assert interrupt.asked()
        assert interrupt.asked()
        assert interrupt.exit_code == code
    assert received == []


@pytest.mark.parametrize("second", BOTH)
def test_the_second_signal_acts_as_usual(received, second):
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(second)
        assert received == [second]
        assert interrupt.exit_code == 130


def test_leaving_restores_the_handlers_also_after_an_error(received):
    before = [signal.getsignal(s) for s in BOTH]

    def fail():
        with Interrupt():
            assert [signal.getsignal(s) for s in BOTH] != before
            raise ValueError("oops")

    with pytest.raises(ValueError, match="oops"):
        fail()
    assert [signal.getsignal(s) for s in BOTH] == before
    signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_of_several_processes_all_stages_count_on_and_a_stop_stays_one(received, monkeypatch):
    """JAX stops at the step after the last that any process named: a count begun anew would never
    come there."""
    asked = []

    def reached(step):
        asked.append(step)
        return len(asked) == 5

    monkeypatch.setattr(interrupts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(interrupts, "reached_preemption_sync_point", reached)
    with Interrupt() as first:
        assert [first.asked() for _ in range(3)] == [False] * 3
    with Interrupt() as second:
        assert [second.asked() for _ in range(4)] == [False, True, True, True]
        assert second.exit_code == 143
    assert asked == list(range(asked[0], asked[0] + 5))
