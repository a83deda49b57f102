"""Whole runs of main.py and predict.py on a small data set, and the training loop alone with a model of two layers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import main as training_program
from config import CONFIG
from src.checkpoint import load_checkpoint, newest_checkpoint
from src.graph import Batch
from src.settings import read_settings
from src.system.distributed import ALONE, World
from src.training import Trainer
from tests.complexes import small_config
from tests.synthetic import random_batch

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = ("metrics.json", "test_predictions.csv")
CODES = [f"1a{number:02}" for number in range(16)]
EPOCHS, NUM_BATCHES = 3, 5


@dataclass(frozen=True)
class Run:
    """A folder with a data set, and a way to train there in this process or in one of its own."""

    folder: Path
    draws_figures: bool = False  # which takes longer than all the rest of a run

    def options(self, *more: str, **changes: object) -> list[str]:
        values = {**small_config(self.folder), **changes}
        return [*more, *(part for key, value in values.items() for part in ("--set", f"{key}={value}"))]

    def train(self, *more: str, **changes: object) -> int:
        with pytest.MonkeyPatch.context() as patch:
            if not self.draws_figures:
                patch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
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
    parts |= {"rng": state["rng"], "progress": progress, "history": run.history()}
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


def finish(process: subprocess.Popen, timeout_s: float = 120) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout_s)
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


# The training loop alone


class TinyModel(nn.Module):
    """Enough of a model for the loop: dropout to use random numbers, two layers, one number per complex."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 8)
        self.last = nn.Linear(8, 1)
        self.dropout = 0.2
        self.spoil: Callable[[Batch, torch.Tensor], torch.Tensor] | None = None

    def forward(self, batch: Batch) -> torch.Tensor:
        per_atom = nn.functional.dropout(torch.relu(self.hidden(batch.pos)), self.dropout, self.training)
        summed = torch.zeros(batch.num_graphs, 8, dtype=per_atom.dtype).index_add(0, batch.graph_of_atom, per_atom)
        predicted = self.last(summed).squeeze(-1)
        return self.spoil(batch, predicted) if self.spoil and self.training else predicted


def make_batches(epoch: int) -> list[Batch]:
    """Five batches of 2, 2, 2, 2 and 1 complexes."""
    sizes = [2, 2, 2, 2, 1]
    return [
        replace(
            random_batch(size, seed=10 * epoch + number, num_ligand_atoms=3, num_pocket_atoms=6),
            codes=tuple(f"e{epoch}b{number}c{i}" for i in range(size)),
        )
        for number, size in enumerate(sizes)
    ]


def train_batches(epoch: int, first_batch: int) -> Iterable[Batch]:
    return make_batches(epoch)[first_batch:]


VALIDATION = [random_batch(4, seed=99, num_ligand_atoms=3, num_pocket_atoms=6)]


def make_trainer(
    folder: Path,
    *,
    model: nn.Module | None = None,
    device: str = "cpu",
    num_batches: int = NUM_BATCHES,
    world: World = ALONE,
    **changes: object,
) -> Trainer:
    values = {
        "epochs": EPOCHS,
        "learning_rate": 1e-2,
        "ema_decay": 0.9,
        "checkpoint_dir": str(folder / "checkpoints"),
        "results_dir": str(folder / "results"),
        "manual_save_trigger_file": str(folder / "SAVE_NOW.flag"),
        "precision": "fp32",
    }
    settings = read_settings({**CONFIG, **values, **changes}, root=folder)
    Path(settings.output.checkpoint_dir).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    dictionaries = ("versions", "config", "model_settings", "graph_settings", "split", "dataset")
    facts = {"data_version": "1", "kernels": "plain", **{name: {} for name in dictionaries}}
    return Trainer(
        model or TinyModel(),
        settings.training,
        settings.output,
        device=torch.device(device),
        num_batches=[num_batches] * settings.training.epochs,
        facts=facts,
        world=world,
    )


def fingerprint(trainer: Trainer) -> dict:
    """All that must be equal after an interrupted and an uninterrupted run; seconds are nobody's promise."""
    state = trainer.state_dict()
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in state["progress"].pop("history")]
    state["progress"].pop("seconds")
    return {**state, "history": history}


def assert_same(one: object, other: object) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other or (one != one and other != other)


def signal_once(is_due: Callable[[], bool]) -> Callable[[Batch, torch.Tensor], torch.Tensor]:
    """A change of the model's output that leaves it as it is, and sends one SIGINT when it is due."""
    sent = []

    def forward(batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
        if is_due() and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return predicted

    return forward
