"""A signal is a flag; the second ends the process, unless a file is being saved."""

from __future__ import annotations

import os
import signal
from signal import SIGINT, SIGTERM, Signals

import pytest

from src.stop_signals import EXIT_CODES, StopSignals


def send(number: Signals) -> None:
    os.kill(os.getpid(), number)


def test_exit_codes_are_those_of_a_shell() -> None:
    assert EXIT_CODES == {SIGINT: 128 + 2, SIGTERM: 128 + 15}


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
def test_the_first_signal_only_sets_a_flag(number: Signals, caplog: pytest.LogCaptureFixture) -> None:
    with StopSignals() as stop:
        assert stop.received is None
        send(number)
        assert stop.received == number
    assert f"{number.name} received" in caplog.text


@pytest.mark.parametrize(("first", "second"), [(SIGINT, SIGINT), (SIGINT, SIGTERM), (SIGTERM, SIGINT)])
def test_the_second_signal_stops_at_once(first: Signals, second: Signals) -> None:
    with StopSignals() as stop:
        send(first)
        with pytest.raises(KeyboardInterrupt):
            send(second)
        assert stop.received == first


def test_while_saving_the_second_is_answered_and_the_third_counts(caplog: pytest.LogCaptureFixture) -> None:
    with StopSignals() as stop, stop.protected():
        send(SIGINT)
        send(SIGINT)
        assert "saving, please wait" in caplog.text
        with pytest.raises(KeyboardInterrupt):
            send(SIGINT)


def test_after_a_save_the_second_signal_stops_again() -> None:
    with StopSignals() as stop:
        with stop.protected():
            send(SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(SIGINT)


def test_a_failed_save_is_no_longer_protected() -> None:
    with StopSignals() as stop:
        with pytest.raises(ValueError, match="disk"), stop.protected():
            raise ValueError("disk full")
        send(SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(SIGINT)


def test_the_former_answers_to_signals_come_back() -> None:
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    with pytest.raises(RuntimeError), StopSignals():
        raise RuntimeError
    assert {number: signal.getsignal(number) for number in EXIT_CODES} == before
