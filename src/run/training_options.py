"""The words of a command of main.py -> its options; nothing is imported here that would let --help wait."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from pathlib import Path

from src.system.command_line import Parser


def read_options(arguments: Sequence[str] | None, description: str) -> argparse.Namespace:
    """The options of a command; exits with code 2 and a sentence where they do not go together.

    Args:
        arguments: words of the command; None for those of this process.
        description: what --help says first.
    """
    parser = Parser(description)
    parser.add_argument(
        "--check-data", action="store_true", help="build the graphs, print the audit and what splits leak, and stop"
    )
    parser.add_argument("--evaluate", action="store_true", help="write the results of the best checkpoint again")
    parser.add_argument(
        "--compare", type=Path, metavar="CSV", help="with --evaluate: predictions of another model, to compare with"
    )
    parser.add_argument("--casf", type=Path, metavar="FOLDER", help="with --evaluate: the root of CASF-2016")
    parser.add_argument("--plan", action="store_true", help="print what batches need and what fits, and stop")
    parser.add_argument("--fresh", action="store_true", help="start over; earlier checkpoints are moved, not deleted")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="KEY=VALUE",
        help="change a setting of config.py",
    )
    options = parser.parse_args(arguments)
    if (options.compare or options.casf) and not options.evaluate:
        parser.error("--compare and --casf need --evaluate")
    return options


def _assignment(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE, such as epochs=5")
    try:
        return key.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key.strip(), value  # a bare word is a text
