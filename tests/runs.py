"""Whole runs of main.py and predict.py on a small data set, in this process or in one of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import main as training_program
from src.checkpoint import load_checkpoint, newest_checkpoint
from tests.complexes import small_config

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = ("metrics.json", "test_predictions.csv")
CODES = [f"1a{number:02}" for number in range(16)]


@dataclass(frozen=True)
class Run:
    """A folder with a data set, and a way to train there in this process or in one of its own."""

    folder: Path

    def options(self, *more: str, **changes: object) -> list[str]:
        values = {**small_config(self.folder), **changes}
        return [*more, *(part for key, value in values.items() for part in ("--set", f"{key}={value}"))]

    def train(self, *more: str, **changes: object) -> int:
        return training_program.main(self.options(*more, **changes))

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def weights(self) -> dict[str, torch.Tensor]:
        return load_checkpoint(self.checkpoints / "checkpoint.pth.tar")["model"]

    def history(self) -> list[dict]:
        lines = (self.results / "history.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def fingerprints(run: Run) -> dict[str, str]:
    """SHA-256 of all that a run which was stopped must share with one that was not: everything but time."""
    _, state = newest_checkpoint(run.checkpoints)  # model_best.pth.tar, after a kill between the last two files
    progress = {name: value for name, value in state["progress"].items() if name not in ("history", "seconds")}
    parts = {name: state[name] for name in ("model", "ema", "optimizer", "scheduler", "scaler")}
    # Python's and NumPy's own generators are seeded anew by each process, and nothing draws from them.
    parts |= {"rng": [state["rng"]["torch"], state["rng"]["cuda"]], "progress": progress, "history": run.history()}
    parts |= {path.name: path.read_bytes() for path in run.results.glob("*.*") if path.name in ANSWERS}
    return {name: hashlib.sha256(_as_bytes(part)).hexdigest() for name, part in parts.items()}


def score_options(run: Run, code: str) -> list[str]:
    folder = run.folder / "data" / code
    return [
        *("--protein_path", str(folder / f"{code}_pocket.pdb")),
        *("--ligand_path", str(folder / f"{code}_ligand.sdf")),
        *("--checkpoint", str(run.checkpoints / "model_best.pth.tar")),
    ]


def start(script: str, options: Sequence[str], *, cwd: Path = ROOT, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *options],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="backslashreplace",
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out, err


def printed_command(text: str) -> list[str]:
    """The options of the command that main.py printed for the user to copy."""
    (line,) = re.findall(r"^ *python \S*predict\.py .*$", text, re.MULTILINE)
    return shlex.split(line)[2:]


def _as_bytes(part: object) -> bytes:
    if isinstance(part, torch.Tensor):
        return (
            str((part.dtype, tuple(part.shape))).encode()
            + part.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    if isinstance(part, dict):
        return b"".join(_as_bytes(one) for key in sorted(part, key=str) for one in (str(key), part[key]))
    if isinstance(part, list | tuple):
        return b"".join(map(_as_bytes, part))
    return part if isinstance(part, bytes) else f"{part!r};".encode()
