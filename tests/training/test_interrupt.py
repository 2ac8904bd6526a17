"""The first signal is a request, the second acts as usual."""

import signal

import pytest

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
