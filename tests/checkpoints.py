"""Checkpoints of a network that nobody trained, for the tests of what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from src.checkpoint import rng_state, save_checkpoint
from src.model import build_model
from src.run.run_record import run_facts
from src.settings import Settings
from tests.synthetic import scattered

CODES = ("1aaa", "1bbb", "1ccc")  # what it says it was trained on


def make_checkpoint(path: Path, settings: Settings, **changes: Any) -> Path:
    torch.manual_seed(0)
    model = scattered(build_model(settings.model))
    model.set_label_scale(6.0, 1.5)
    state = {
        **run_facts(settings, {"train": list(CODES)}, dataset_fingerprint="0", synthetic=False),
        "model": model.state_dict(),
        "ema": None,
        "optimizer": {},
        "scheduler": {},
        "scaler": {},
        "rng": rng_state(),
        "progress": {"epoch": 0, "next_batch": 0},
    }
    save_checkpoint(path, {**state, **changes})
    return path
