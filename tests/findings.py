"""Findings of a made-up evaluation, for the tests of what is written from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from src.evaluation.findings import Findings, Judged, JudgedPart, Run, Split, compute_findings
from src.pdbbind.index import Skipped

SMILES = ("CCO", "c1ccccc1O", "CC(=O)Nc1ccc(O)cc1", "not a molecule", "")


def judged(count: int = 40, *, codes: Sequence[str] | None = None, **changes: Any) -> Judged:
    rng = np.random.default_rng(0)
    measured = rng.normal(6, 2, count)
    columns = {
        "codes": tuple(codes or (f"1a{number:02}" for number in range(count))),
        "measured": measured,
        "predicted": measured + rng.normal(0, 1, count),
        "heavy_atoms": rng.integers(8, 50, count),
        "kinds": tuple(rng.choice(["Kd", "Ki"], count)),
        "smiles": tuple(SMILES[number % len(SMILES)] for number in range(count)),
    }
    return Judged(**{**columns, **changes})


def history(epochs: int = 3) -> list[dict[str, float]]:
    columns = ("train_rmse", "validation_rmse", "validation_pearson", "validation_spearman")
    return [{"epoch": epoch, **dict.fromkeys(columns, 1.0 / epoch)} for epoch in range(1, epochs + 1)]


def findings(one: Judged | None = None, *, run: dict | None = None, **changes: Any) -> Findings:
    one = judged() if one is None else one
    facts = {"checkpoint": "model_best.pth.tar", "settings": {"epochs": 3}, "versions": {"torch": "2"}}
    if half_width := changes.pop("half_width", None):
        one = replace(one, half_widths=np.full(len(one.codes), half_width))
    split = changes.pop("split", Split("cluster", {"train": ["x"] * 9, "validation": ["y"], "test": list(one.codes)}))
    skipped = changes.pop("skipped", [Skipped("9xyz", "ligand", "no atoms")])
    part = JudgedPart(changes.pop("part", "test"), split, skipped, changes.pop("left_out", ()))
    where = Run(**{**facts, "history": history(), **(run or {})})
    baselines = changes.pop("baselines", {"predict the mean": np.full(len(one.codes), 6.0)})
    return compute_findings(one, baselines, part, where, **changes)
