"""What to do with 50, 200 or 1,000 measured complexes of new proteins: four ways beside the given weights.

python benchmarks/fine_tuning.py --data $AIDD_REAL_DATA --work FOLDER [--jobs 2]

Clusters with 1,500 complexes are kept away from the weights that are given; these learn from all others. Of the
clusters kept away some are taken, and of their complexes 50, 200 or 1,000 to learn from (a tenth of them validate)
and half as many to judge; several draws of the small sizes. Compared are: the given weights as they are; conditioned
on the measured complexes, as `predict.py --known` does; a training from zero; a training that begins with the given
weights, all of them free or those of the readout alone, with fewer epochs. Every training is joined with a Gaussian
process of the complexes that it learns from. What has run is not run again. Beginning with given weights is no
setting of the program, because it does not pay (benchmarks/ablations.md).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import main as train_script  # noqa: E402
from benchmarks.pretrained import RECIPE  # noqa: E402
from config import CONFIG  # noqa: E402
from src.checkpoint import BEST, load_checkpoint  # noqa: E402
from src.data.batching import in_order  # noqa: E402
from src.data.dataset import Dataset, load_dataset  # noqa: E402
from src.evaluation.metrics import compare, metrics_with_intervals, results_table  # noqa: E402
from src.gaussian_process.known_ligands import condition  # noqa: E402
from src.gaussian_process.profiles import labelled_profiles  # noqa: E402
from src.model import AffinityModel  # noqa: E402
from src.run import trainer_setup  # noqa: E402
from src.scoring.ensemble import load_scorer  # noqa: E402
from src.settings import ModelSettings, read_settings  # noqa: E402
from src.similarity.splits import cluster_thresholds, compare_complexes  # noqa: E402

GIVEN = "seen"  # the split of the weights that are given
NUM_AWAY, LARGEST = 1500, 150  # complexes kept away from them; of one cluster
DRAWS = {1000: 1, 200: 2, 50: 4}  # complexes to learn from -> draws
EPOCHS = {1000: 15, 200: 40, 50: 60}  # from zero
MORE_EPOCHS = {1000: 10, 200: 20, 50: 30}  # from the given weights
LEARNING_RATE = {"zero": 1.5e-3, "all": 5e-4, "head": 1.5e-3}
NAMES = {
    "zero": "trained from zero",
    "all": "trained on from the given weights",
    "head": "the same, readout alone",
}


def main() -> None:
    options = _options()
    if options.one:
        sys.exit(_train(options, *options.one))
    options.work.mkdir(parents=True, exist_ok=True)
    settings = read_settings({**CONFIG, **_settings(options)}, root=ROOT)
    dataset = load_dataset(settings.data, settings.graph, settings.processing)
    if not (options.work / f"{GIVEN}.json").exists():
        labels = compare_complexes(dataset, settings.processing).clusters(cluster_thresholds(settings.data))
        _write_splits(options.work, np.array([one.graph.code for one in dataset.examples]), labels)
    draws = [(f"{size}_{draw}", size) for size, count in DRAWS.items() for draw in range(count)]
    _in_own_process(options, GIVEN, "zero", RECIPE["epochs"])
    runs = [(split, kind, (EPOCHS if kind == "zero" else MORE_EPOCHS)[size]) for split, size in draws for kind in NAMES]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda run: _in_own_process(options, *run), runs))
    for size in DRAWS:
        print(f"\n{size} measured complexes\n{_table(options, dataset, [one for one, of in draws if of == size])}")


def _write_splits(work: Path, codes: np.ndarray, labels: np.ndarray) -> None:
    rng, names, counts = np.random.default_rng(0), *np.unique(labels, return_counts=True)
    sizes = dict(zip(names, counts, strict=True))

    def take(clusters: list, least: int) -> list:
        taken, total = [], 0
        while total < least and clusters:
            taken.append(clusters.pop(0))
            total += sizes[taken[-1]]
        return taken

    def write(name: str, train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> None:
        parts = {"train": train, "validation": validation, "test": test}
        (work / f"{name}.json").write_text(json.dumps({part: sorted(one.tolist()) for part, one in parts.items()}))

    away = take([one for one in rng.permutation(names).tolist() if sizes[one] <= LARGEST], NUM_AWAY)
    for size, count in DRAWS.items():
        pool = rng.permutation(away).tolist()
        for draw in range(count):
            members = rng.permutation(codes[np.isin(labels, take(pool, round(1.5 * size)))])
            learned, test = members[:size], members[size:]
            write(f"{size}_{draw}", learned[size // 10 :], learned[: size // 10], test)
    seen = codes[~np.isin(labels, away)]
    small = [one for one in rng.permutation(np.unique(labels)).tolist() if one not in away and sizes[one] <= LARGEST]
    validation = codes[np.isin(labels, take(small, len(seen) // 10))]
    write(GIVEN, np.setdiff1d(seen, validation), validation, codes[np.isin(labels, away)])


def _in_own_process(options: argparse.Namespace, split: str, kind: str, epochs: int) -> None:
    folder = options.work / f"{split}-{kind}"
    if (folder / "results" / "metrics.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--data", options.data, "--work", options.work, "--one", split, kind, epochs]
    with (folder / "log").open("a", encoding="utf-8") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*map(str, command)], stdout=log, stderr=log, env=environment, check=True)


def _train(options: argparse.Namespace, split: str, kind: str, epochs: str) -> int:
    folder = options.work / f"{split}-{kind}"
    if kind != "zero":
        _begin_with(options.work / f"{GIVEN}-zero" / "checkpoints" / BEST, readout_alone=kind == "head")
    changes = {
        **_settings(options),
        "split": "file",
        "split_file": options.work / f"{split}.json",
        "epochs": epochs,
        "learning_rate": LEARNING_RATE[kind],
        "early_stopping_patience": 0,
        "cpu_processes": 1,
        "seed": 1,
        "checkpoint_dir": folder / "checkpoints",
        "results_dir": folder / "results",
    }
    return train_script.main([part for key, value in changes.items() for part in ("--set", f"{key}={value}")])


def _begin_with(checkpoint: Path, *, readout_alone: bool) -> None:
    """Let main.py begin with these weights, for the rest of this process."""
    plain = trainer_setup.build_model

    def build(settings: ModelSettings) -> AffinityModel:
        model = plain(settings)
        model.load_state_dict(load_checkpoint(checkpoint)["ema"])
        model.fit_label_scale = lambda batches: None  # it is that of the weights
        for name, parameter in model.named_parameters():
            if readout_alone and name.startswith("representation"):
                parameter.register_hook(torch.zeros_like)
        return model

    trainer_setup.build_model = build


def _settings(options: argparse.Namespace) -> dict[str, object]:
    return {**RECIPE, "dataset_path": str(options.data), "processed_data_dir": str(options.work / "processed_data")}


def _table(options: argparse.Namespace, dataset: Dataset, draws: list[str]) -> str:
    """A line for each way, on the test sets of all draws, and how it differs from conditioning."""
    scorer = load_scorer(options.work / f"{GIVEN}-zero" / "checkpoints" / BEST, "cpu")
    given = _predictions(options.work / f"{GIVEN}-zero")
    found: dict[str, list[float]] = {}
    measured, codes = [], []
    for draw in draws:
        split = json.loads((options.work / f"{draw}.json").read_text())
        known, asked = (dataset.judged([*split[a], *split[b]]) for a, b in (("train", "validation"), ("test", "test")))
        profiles, others = (
            labelled_profiles(in_order(part, 32), scorer.model.process.cutoff) for part in (known, asked)
        )
        errors = np.array([one.pk - given[one.graph.code] for one in known])
        added = condition(scorer.model.process, scorer.model.prior, profiles, errors, np.zeros(len(known), dtype=int))
        moved = added.predict(others.profiles, added.likenesses(others.profiles)).tolist()
        scores = [given[one.graph.code] for one in asked]
        ways = {
            "conditioned on them": [score + more for score, more in zip(scores, moved, strict=True)],
            "the given weights": scores,
        }
        for kind, name in NAMES.items():
            told = _predictions(options.work / f"{draw}-{kind}")
            ways[name] = [told[one.graph.code] for one in asked]
        for name, values in ways.items():
            found.setdefault(name, []).extend(values)
        measured += [one.pk for one in asked]
        codes += [one.graph.code for one in asked]
    labels = np.array(measured)
    lines = {name: metrics_with_intervals(np.array(told), labels, clusters=codes) for name, told in found.items()}
    first, differences = np.array(found["conditioned on them"]), []
    for name, told in found.items():
        if name != "conditioned on them":
            change = compare(np.array(told), first, labels, clusters=codes)
            differences.append(f"{name}: RMSE {change['rmse']}, R {change['pearson']}")
    return "\n".join([results_table(lines), "less the conditioned ones:", *differences])


def _predictions(folder: Path) -> dict[str, float]:
    with (folder / "results" / "test_predictions.csv").open(encoding="utf-8") as file:
        return {row["code"]: float(row["predicted_pK"]) for row in csv.DictReader(file)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="PDBbind folder")
    parser.add_argument("--work", type=Path, required=True, help="where runs and graphs are kept")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--one", nargs=3, metavar=("SPLIT", "KIND", "EPOCHS"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
