"""What requirements.txt asks for, against what is installed: a one-line message instead of a traceback.

Imported before torch, and written so that older Pythons can read it too.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

OLDEST_PYTHON = (3, 11)
# CVE-2026-24747 (GHSA-63cw-57p8-fm3p): up to 2.9.1 a crafted checkpoint corrupts memory even with weights_only=True.
OLDEST_SAFE_TORCH = (2, 10)
# Without the last, only the figures of the report are missing.
FOR_TESTS = ("pytest", "pytest-xdist", "torch-geometric", "dimorphite-dl", "matplotlib")
REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"


def installation_fault() -> str:
    """What keeps the program from running here, and the command that mends it; empty when nothing does."""
    if sys.version_info < OLDEST_PYTHON:
        here = ".".join(map(str, sys.version_info[:3]))
        return "Python %s is too old: %d.%d or newer is needed" % (here, *OLDEST_PYTHON)  # noqa: UP031
    if sys.flags.ignore_environment and not sys.flags.safe_path:  # PYTHONSAFEPATH of the children of this process
        return "python -E alone lets worker processes run files of the current folder: use python -E -P"
    names = _required()
    missing = [name for name in names if _version(name) is None]
    mend = f"{sys.executable} -m pip install -r {REQUIREMENTS}"
    if missing:
        return f"not installed: {', '.join(missing)}. Install with: {mend}"
    torch = _version("torch") or ""
    if _numbers(torch) < OLDEST_SAFE_TORCH:
        oldest = ".".join(map(str, OLDEST_SAFE_TORCH))
        return f"torch {torch} is too old: a stranger's checkpoint could do harm before {oldest}. Update with: {mend}"
    return ""


def _required() -> list[str]:
    """Names of the packages that the program, and not only its tests, cannot do without."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines() if REQUIREMENTS.is_file() else []
    names = [re.split(r"[^\w.-]", line.strip())[0] for line in lines if not line.startswith("#")]
    return [name for name in names if name and name not in FOR_TESTS]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 10) of '2.10.0+cpu'; a version without numbers counts as new, since nothing is known of it."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else OLDEST_SAFE_TORCH
