"""The parser of the scripts: whole names alone, and for a misspelt one the name that was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    def __init__(self, description: str, **how: Any) -> None:
        """
        Args:
            description: as it stands, with its lines.
        """
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, description=description, formatter_class=form, **how)

    def error(self, message: str) -> NoReturn:
        """End with code 2 and the message."""
        found = re.match(r"unrecognized arguments: (.*)", message)
        names = [name for name in self._option_string_actions if name.startswith("--")]
        for word in found[1].split() if found else ():
            nearest = difflib.get_close_matches(word.partition("=")[0], names, n=1)
            if word.startswith("-") and nearest:
                message += f"; did you mean {nearest[0]} instead of {word}?"
        super().error(message)
