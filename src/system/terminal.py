"""Log lines and results -> a terminal, whatever it can show, and without letting a text steer it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence


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


def listed(names: Sequence[object], most: int = 16) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def show(text: str) -> None:
    """Write to standard output; a reader that has gone (`| head`) takes nothing from a run, whose files are written."""
    from tqdm import tqdm

    with contextlib.suppress(BrokenPipeError), tqdm.external_write_mode():  # a bar makes room
        print(printable(text), flush=True)


def let_go_of_output() -> None:
    """Drop what nobody reads any more, or Python would fail on it at its end and change the exit code to 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
