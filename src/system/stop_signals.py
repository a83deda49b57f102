"""Ctrl+C, SIGTERM and SIGHUP -> a flag that a loop reads when it is safe to stop; SIGUSR1 -> a flag to save now."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from signal import Signals
from types import FrameType

# Windows has neither a hang-up of a terminal nor a signal that a job queue sends ahead of the end.
EXIT_CODES = {
    Signals[name]: 128 + Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in Signals.__members__
}
SAVE_SIGNALS = {Signals[name] for name in ("SIGUSR1",) if name in Signals.__members__}


class Stopped(KeyboardInterrupt):
    """A signal ends the program now; what is half done is lost, what was saved is not."""

    def __init__(self, number: int):
        super().__init__()
        self.signal = Signals(number)


def exit_code(interrupt: KeyboardInterrupt) -> int:
    return EXIT_CODES[interrupt.signal if isinstance(interrupt, Stopped) else signal.SIGINT]


class StopSignals:
    """While this context is open, signals set `received` or `save_asked` instead of ending the process.

    A second signal to stop ends the process at once with Stopped, unless a file is being saved; then it is
    answered with a line and the third one counts. A signal mask would not do: with NumPy's and torch's threads
    another thread takes the signal.
    """

    def __init__(self) -> None:
        self.received: Signals | None = None
        self.save_asked = False
        self._saving = self._warned = False
        self._open = contextlib.ExitStack()

    def __enter__(self) -> StopSignals:
        self._open.enter_context(_answered(EXIT_CODES, self._receive))
        self._open.enter_context(_answered(SAVE_SIGNALS, self._ask))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @contextlib.contextmanager
    def protected(self) -> Iterator[None]:
        """While a file is written."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received = Signals(number)
            _say(f"{self.received.name} received: saving after this optimizer step")
        elif self._saving and not self._warned:
            self._warned = True
            _say("saving, please wait; once more to stop without the file")
        else:
            raise Stopped(number)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.save_asked = True


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """While this is open Ctrl+C, SIGTERM and SIGHUP raise Stopped, so that what is half built is written.

    A signal that asks for a save ends nothing: outside the training loop there is nothing to save.
    """
    with _answered(EXIT_CODES, _interrupt), _answered(SAVE_SIGNALS, _let_pass):
        yield


def leave_signals_to_parent(_worker: int) -> None:
    """Take a child process out of the group that Ctrl+C, `timeout` and a closing terminal send signals to.

    Only the main process decides what they mean: it finishes its step with the batches that its children still make,
    and ends them itself.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    for number in (signal.SIGINT, *SAVE_SIGNALS):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _answered(numbers: Iterable[int], answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """While this is open `answer` is called at these signals."""
    # nohup lets a program ignore SIGHUP, so that it outlives its terminal.
    ignored = {number for number in numbers if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN}
    previous = {number: signal.signal(number, answer) for number in set(numbers) - ignored}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


def _let_pass(_number: int, _frame: FrameType | None) -> None:
    pass


def _say(line: str) -> None:
    # Not by the log: a signal can arrive in the middle of a write to standard error, and a second write into the same
    # buffer from there is an error ("reentrant call").
    with contextlib.suppress(OSError):  # the terminal is gone
        os.write(2, f"{line}\n".encode())
