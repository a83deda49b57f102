"""Seconds that saving takes from training, for each hardware block of config.py, on this machine and its disk.

python benchmarks/checkpoint_cost.py [--blocks CPU GPU_6GB GPU_16GB] [--repeats 7] [--complexes 19000]
                                     [--folder FOLDER] [--threads 2] [--clock wall]

A repeat is a training step and a save of each kind, one after the other; printed are the medians. Graphs are those of
$AIDD_REAL_DATA/pdbbind, else drawn ones. A checkpoint names the complexes of its split, here as many as PDBbind has,
describes the ligands and proteins of its training set and the errors on its validation set, and has a history of fifty
epochs. The file is written to a temporary folder in --folder (that of the system), whose disk counts. Where other
programs run too take --threads 1 --clock cpu: the time of this process alone, without its waiting for the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import config  # noqa: E402
import src.checkpoint  # noqa: E402
from benchmarks.measuring import machine  # noqa: E402
from benchmarks.workload import pocket_graphs  # noqa: E402
from src.checkpoint import BEST, LATEST  # noqa: E402
from src.data.batching import collate  # noqa: E402
from src.data.dataset import Example  # noqa: E402
from src.evaluation.calibration import calibrate  # noqa: E402
from src.graph import RESIDUE_TYPES, Batch  # noqa: E402
from src.model import build_model  # noqa: E402
from src.run.run_record import run_facts  # noqa: E402
from src.settings import Settings, read_settings  # noqa: E402
from src.similarity.applicability import read_domain  # noqa: E402
from src.system.stop_signals import StopSignals  # noqa: E402
from src.training import Trainer  # noqa: E402

Clock = Callable[[], float]
EPOCHS = 50
PROMISE = 0.01  # of the time of training
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

# What a save consists of, as places where its time is taken; what is left over checks the file and its content.
PARTS = {
    "write": (torch, "save"),
    "fsync": (os, "fsync"),
    "previous": (src.checkpoint, "_keep_as_previous"),
}


class Cost(NamedTuple):
    """Medians, in seconds."""

    weights: int
    size: int  # bytes of the file
    step: float
    latest: float  # with the previous one checked and kept
    best: float
    parts: dict[str, float]  # of `latest`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", nargs="+", default=["CPU", "GPU_6GB", "GPU_16GB"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--complexes", type=int, default=19_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    every = config.CONFIG["checkpoint_every_batches"]
    load = os.getloadavg()[0]
    print(f"{machine()}, {options.threads} threads, {options.clock} time, load {load:.1f}\n")
    parts = " | ".join(PARTS)
    print(
        f"| block | weights | file MB | step s | latest ms | {parts} | rest | best ms | one in {every} batches "
        f"| an epoch of {every} batches | {PROMISE:.0%} at a step of ms |\n|{'---|' * (len(PARTS) + 10)}"
    )
    for block in options.blocks:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(_row(block, _measure(block, Path(folder), options), every), flush=True)


def _measure(block: str, folder: Path, options: argparse.Namespace) -> Cost:
    settings = _settings(block, folder)
    trainer = _trainer(settings, options.complexes)
    batches = _batches(settings, options.repeats + 1)
    trainer._train_window(batches[:1])  # the optimizer has a state, and the caches of torch are warm
    trainer.progress.history = [_history_row(epoch) for epoch in range(EPOCHS)]
    stop, clock = StopSignals(), CLOCKS[options.clock]
    trainer.saver.save(LATEST, stop)  # there is a previous one
    steps, latest, best = [], [], []
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    for batch in batches[1:]:
        steps.append(_seconds(clock, trainer._train_window, [batch]))
        with _timed(clock) as spent:
            latest.append(_seconds(clock, trainer.saver.save, LATEST, stop))
        for name in PARTS:
            parts[name].append(spent[name])
        best.append(_seconds(clock, trainer.saver.save, BEST, stop))
    return Cost(
        weights=sum(parameter.numel() for parameter in trainer.model.parameters()),
        size=(folder / LATEST).stat().st_size,
        step=median(steps),
        latest=median(latest),
        best=median(best),
        parts={name: median(values) for name, values in parts.items()},
    )


def _row(block: str, cost: Cost, every: int) -> str:
    rest = cost.latest - sum(cost.parts.values())
    parts = " | ".join(f"{1000 * seconds:.0f}" for seconds in [*cost.parts.values(), rest])
    training = every * cost.step
    return (
        f"| {block} | {cost.weights:,} | {cost.size / 1e6:.1f} | {cost.step:.2f} | {1000 * cost.latest:.0f} | {parts} "
        f"| {1000 * cost.best:.0f} | {cost.latest / training:.2%} | {(cost.latest + cost.best) / training:.2%} "
        f"| {1000 * cost.latest / (PROMISE * every):.0f} |"
    )


def _settings(block: str, folder: Path) -> Settings:
    changes = {**getattr(config, block), "device": "cpu", "precision": "fp32", "message_passing": "fast"}
    return read_settings({**config.CONFIG, **changes, "checkpoint_dir": str(folder)}, root=ROOT)


def _trainer(settings: Settings, num_complexes: int) -> Trainer:
    """What main.py trains with, for a data set of so many complexes."""
    torch.manual_seed(0)
    codes = [f"{number:04x}" for number in range(num_complexes)]
    first, second = int(0.8 * num_complexes), int(0.9 * num_complexes)
    split = {"train": codes[:first], "validation": codes[first:second], "test": codes[second:]}
    model = build_model(settings.model)
    model.representation.message_passing = settings.training.message_passing
    facts = run_facts(settings, split, dataset_fingerprint="0" * 16, synthetic=False)
    trainer = Trainer(
        model,
        settings.training,
        settings.output,
        device=torch.device("cpu"),
        num_batches=[max(1, first // settings.training.batch_size)] * settings.training.epochs,
        facts={**facts, "domain": _domain()},
    )
    errors = np.random.default_rng(0).normal(size=len(split["validation"]))
    trainer.calibration = calibrate(errors).state_dict()
    return trainer


def _domain() -> dict[str, Any]:
    """Facts about a training set as src/similarity/applicability.py has them."""
    facts = {
        "elements": [6, 7, 8, 9, 15, 16, 17, 35, 53],
        "pocket_elements": [6, 7, 8, 12, 16, 20, 30],
        "residues": list(RESIDUE_TYPES),
        "ligand_size": [6, 80],
        "pK": [2.0, 12.0],
    }
    assert read_domain({"domain": facts}) is not None
    return facts


def _batches(settings: Settings, count: int) -> list[Batch]:
    size = settings.training.batch_size
    where, graphs = pocket_graphs(count * size, settings.graph)
    assert len(graphs) == count * size, f"only {len(graphs)} {where}"
    examples = [Example(graph, 6.0) for graph in graphs]
    return [collate(examples[start : start + size]) for start in range(0, count * size, size)]


def _history_row(epoch: int) -> dict[str, float]:
    names = ("train_rmse", "validation_rmse", "validation_mae", "validation_pearson", "validation_spearman")
    return {"epoch": epoch + 1, "step": 0, "learning_rate": 1e-3, **dict.fromkeys(names, 1.5), "seconds": 1.0}


@contextlib.contextmanager
def _timed(clock: Clock) -> Iterator[dict[str, float]]:
    """Seconds that the parts of a save take while this is open."""
    spent = dict.fromkeys(PARTS, 0.0)

    def timed(name: str, real: Callable) -> Callable:
        def call(*arguments: object, **options: object) -> object:
            start = clock()
            try:
                return real(*arguments, **options)
            finally:
                spent[name] += clock() - start

        return call

    real = {name: getattr(owner, function) for name, (owner, function) in PARTS.items()}
    for name, (owner, function) in PARTS.items():
        setattr(owner, function, timed(name, real[name]))
    try:
        yield spent
    finally:
        for name, (owner, function) in PARTS.items():
            setattr(owner, function, real[name])


def _seconds(clock: Clock, action: Callable, *arguments: object) -> float:
    start = clock()
    action(*arguments)
    return clock() - start


if __name__ == "__main__":
    main()
