"""Log lines and results -> a terminal, whatever it can show, and without letting a text steer it."""

from __future__ import annotations

import logging
import sys


def prepare_terminal(least: int = logging.INFO) -> None:
    """Log lines go to standard error, results to standard output, and no character ends the program."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal without Å or Δ must not end a run
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(_Printable("%(message)s"))
    shown.setLevel(least)
    logging.basicConfig(level=logging.INFO, handlers=[shown])


def printable(text: str) -> str:
    """The text with control and other invisible characters as escapes: file and molecule names are anybody's.

    An escape sequence in a name could clear the screen or change what stands there.
    """
    return "".join(char if char.isprintable() or char in "\n\t" else _escaped(char) for char in text)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
