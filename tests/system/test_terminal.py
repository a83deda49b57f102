"""What reaches a terminal: readable letters, no control characters, and never an error because of either."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from src.system.terminal import prepare_terminal, printable


@pytest.mark.fault("I14")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jevil", r"\x1b[2Jevil"),
        ("a\rb", r"a\rb"),
        ("\x9b31m", r"\x9b31m"),  # the same as ESC [ in eight bits
        ("left \u202eto right", r"left \u202eto right"),
        ("\udcff", r"\udcff"),
        ("5 Å, 3 µM, ΔG\n\ttab", "5 Å, 3 µM, ΔG\n\ttab"),
    ],
)
def test_invisible_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.fault("I14")
def test_a_log_line_cannot_steer_a_terminal_and_always_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    written, root = io.BytesIO(), logging.getLogger()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    monkeypatch.setattr(root, "handlers", [])  # as they are when a program starts
    monkeypatch.setattr(root, "level", logging.WARNING)
    prepare_terminal()
    logging.getLogger("anybody").info("%s: no protein atom within 6 Å", "\x1b[2Jname")
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logging.getLogger("anybody").exception("failed")
    lines = written.getvalue().decode("ascii").splitlines()
    assert lines[0] == r"\x1b[2Jname: no protein atom within 6 \xc5"
    assert lines[-1] == r"ValueError: \x1b[2J"
