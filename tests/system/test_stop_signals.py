"""A signal is a flag; the second ends the process, unless a file is being saved."""

from __future__ import annotations

import io
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
from signal import SIG_IGN, SIGHUP, SIGINT, SIGTERM, SIGUSR1, Signals

import pytest

from src.system.stop_signals import (
    EXIT_CODES,
    Stopped,
    StopSignals,
    exit_code,
    leave_signals_to_parent,
    signals_interrupt,
)


def send(number: Signals) -> None:
    os.kill(os.getpid(), number)


def test_exit_codes_are_those_of_a_shell() -> None:
    assert EXIT_CODES == {SIGINT: 128 + 2, SIGTERM: 128 + 15, SIGHUP: 128 + 1}
    assert [exit_code(one) for one in (KeyboardInterrupt(), Stopped(SIGTERM), Stopped(SIGHUP))] == [130, 143, 129]


@pytest.mark.parametrize("number", [SIGINT, SIGTERM, SIGHUP])
def test_the_first_signal_only_sets_a_flag(number: Signals, capfd: pytest.CaptureFixture) -> None:
    with StopSignals() as stop:
        assert stop.received is None
        send(number)
        assert stop.received == number
    assert f"{number.name} received" in capfd.readouterr().err
    assert not stop.save_asked


@pytest.mark.parametrize(("first", "second"), [(SIGINT, SIGINT), (SIGINT, SIGTERM), (SIGTERM, SIGINT)])
def test_the_second_signal_stops_at_once(first: Signals, second: Signals) -> None:
    with StopSignals() as stop:
        send(first)
        with pytest.raises(KeyboardInterrupt):
            send(second)
        assert stop.received == first


@pytest.mark.fault("A4")
def test_while_saving_the_second_is_answered_and_the_third_counts(capfd: pytest.CaptureFixture) -> None:
    with StopSignals() as stop, stop.protected():
        send(SIGINT)
        send(SIGINT)
        assert "saving, please wait" in capfd.readouterr().err
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


def test_a_job_queue_asks_for_a_save_as_often_as_it_likes() -> None:
    with StopSignals() as stop:
        for _ in range(3):
            send(SIGUSR1)
        assert (stop.save_asked, stop.received) == (True, None)


@pytest.mark.fault("A8")
def test_nohup_is_respected() -> None:
    before = signal.signal(SIGHUP, SIG_IGN)
    try:
        with signals_interrupt(), StopSignals() as stop:
            send(SIGHUP)
        assert stop.received is None
        assert signal.getsignal(SIGHUP) == SIG_IGN
    finally:
        signal.signal(SIGHUP, before)


class SlowTerminal(io.RawIOBase):
    """Ctrl+C comes while it writes."""

    written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        if not self.written:
            send(SIGINT)
        self.written += bytes(data)
        return len(data)


@pytest.mark.fault("A3")
def test_a_signal_in_the_middle_of_a_line_of_the_log(capfd: pytest.CaptureFixture) -> None:
    """A second write into the buffer that is being written is a RuntimeError, which nobody would expect there."""
    terminal = SlowTerminal()
    log = logging.Logger("of this test")
    log.addHandler(logging.StreamHandler(io.TextIOWrapper(io.BufferedWriter(terminal), line_buffering=True)))
    with pytest.MonkeyPatch.context() as patch, StopSignals() as stop:
        patch.setattr("src.system.stop_signals.log", log, raising=False)
        log.warning("epoch 1")
        assert stop.received == SIGINT
    assert terminal.written == b"epoch 1\n"
    err = capfd.readouterr().err
    assert "SIGINT received" in err
    assert "reentrant" not in err


@pytest.mark.parametrize("number", [SIGINT, SIGTERM, SIGHUP])
def test_outside_a_loop_they_interrupt(number: Signals) -> None:
    before = signal.getsignal(number)
    with signals_interrupt():
        send(SIGUSR1)  # there is nothing to save
        with pytest.raises(KeyboardInterrupt) as interrupt:
            send(number)
    assert exit_code(interrupt.value) == 128 + number
    assert signal.getsignal(number) == before


@pytest.mark.fault("A7")
def test_a_child_hears_nothing_that_is_sent_to_the_group() -> None:
    near, far = multiprocessing.Pipe()
    with StopSignals():
        child = multiprocessing.get_context("fork").Process(target=_answer, args=(far,))
        child.start()
        far.close()  # or the end of the child would not show
        assert near.recv() != os.getpgrp()
        for number in (SIGINT, SIGUSR1):  # sent to it alone
            os.kill(child.pid, number)
        near.send("are you there?")
        assert near.recv() == "yes"
        child.terminate()  # as a data loader ends a worker that hangs
        child.join(10)
    assert child.exitcode == -SIGTERM


def _answer(connection: multiprocessing.connection.Connection) -> None:
    for number in (SIGTERM, SIGINT, SIGUSR1):  # as torch does the first in the workers of its data loader
        signal.signal(number, signal.SIG_DFL)  # the others have no handler in a process that is not forked
    leave_signals_to_parent(0)
    connection.send(os.getpgrp())
    connection.recv()
    connection.send("yes")
    connection.recv()
