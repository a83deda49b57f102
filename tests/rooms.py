"""The files of the program, and the rooms of src/ in the order in which imports may point."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = [*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")]

# From the ground up: a file uses rooms of lower lines and other files of its own room, never a room beside its own.
LINES = """
graph system
settings
checkpoint
chemistry pdbbind visnet
data_processing model evaluation
data gaussian_process
similarity hardware
optimization scoring
training explanation
run
main predict
"""
LEVEL = {room: number for number, line in enumerate(LINES.strip().split("\n")) for room in line.split()}
