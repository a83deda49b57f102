"""Ctrl+C and SIGTERM -> a flag that a loop reads when it is safe to stop."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType

log = logging.getLogger(__name__)

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopSignals:
    """While this context is open, SIGINT and SIGTERM set `received` instead of ending the process.

    A second signal ends the process at once with KeyboardInterrupt, unless a file is being saved; then it is
    answered with a line and the third one counts. A signal mask would not do: with NumPy's and torch's threads
    another thread takes the signal.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._saving = False
        self._warned = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        for one in EXIT_CODES:
            self._previous[one] = signal.signal(one, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for one, previous in self._previous.items():
            signal.signal(one, previous)  # type: ignore[arg-type]

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
            self.received = signal.Signals(number)
            log.warning("%s received: saving after this optimizer step", self.received.name)
        elif self._saving and not self._warned:
            self._warned = True
            log.warning("saving, please wait; once more to stop without the file")
        else:
            raise KeyboardInterrupt
