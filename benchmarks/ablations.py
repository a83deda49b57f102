"""Ideas for accuracy, each beside the plain recipe, trained and tested by `main.py` on splits that do not leak.

python benchmarks/ablations.py --data $AIDD_REAL_DATA/pdbbind --work FOLDER [--rows ...] [--splits cluster time]
    [--seeds 1 2 3] [--jobs 2]

Trains on the codes of index/cleansplit_train.txt, one thread a run, `--jobs` runs at a time. A seed is another cluster
split and other starting weights; a time split is the same for every seed. What has run is not run again, and what was
stopped goes on. The table joins the test sets of the seeds; its intervals resample complexes, paired with the plain
recipe. Ideas that are no setting stand in benchmarks/ablation_ideas.py and are put in for one process.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import main as train_script  # noqa: E402
from benchmarks import ablation_ideas  # noqa: E402
from benchmarks.pretrained import RECIPE, clean_index  # noqa: E402
from src.evaluation.metrics import Interval, compare, metrics_with_intervals, results_table  # noqa: E402
from src.pdbbind.index import find_index  # noqa: E402

PLAIN = "plain"
SPLITS = {"cluster": {"train_split": 0.8, "validation_split": 0.1}, "time": {"train_split": 0.8}}
# The recipe at a third of its cost, on which ideas were tried first
SMALL = {
    "pocket_radius": 5.5,
    "interaction_cutoff": 5.0,
    "visnet_cutoff": 1.0,  # protein atoms send messages along bonds alone
    "visnet_hidden_channels": 48,
    "visnet_num_layers": 3,
    "ranking_weight": 0.0,
    "epochs": 9,
}


class Row(NamedTuple):
    """What of the recipe is changed."""

    settings: dict[str, object]
    idea: str | None = None  # a function of ablation_ideas


ROWS = {
    PLAIN: Row({}),
    "no ranking loss": Row({"ranking_weight": 0.0}),
    "3 layers": Row({"visnet_num_layers": 3}),
    "protein messages along bonds alone": Row({"visnet_cutoff": 1.0}),
    "contacts to 5 Å": Row({"interaction_cutoff": 5.0, "pocket_radius": 5.5}),
    "small": Row(SMALL),
    "small, no noise": Row(SMALL | {"coordinate_noise": 0.0}),
    "small, no decoys": Row(SMALL | {"decoy_fraction": 0.0}),
    "small, no weight average": Row(SMALL | {"ema_decay": 0.0}),
    "small, dropout 0.3": Row(SMALL | {"dropout_rate": 0.3}),
    "small, lmax 2": Row(SMALL | {"visnet_lmax": 2}),
    "small, clusters weigh alike": Row(SMALL, "balanced_clusters"),
    "small, residues hidden": Row(SMALL, "hidden_residues"),
    "small, contacts to 6 Å": Row(SMALL | {"interaction_cutoff": 6.0, "pocket_radius": 6.5}),
    "small, 64 channels, 2 layers": Row(SMALL | {"visnet_hidden_channels": 64, "visnet_num_layers": 2}),
    "small, ranking loss": Row(SMALL | {"ranking_weight": 0.5}),
    "small, ranking loss of weight 2": Row(SMALL | {"ranking_weight": 2.0}),
    "small, physical channels": Row(SMALL, "physical_channels"),
    "small, no residues": Row(SMALL, "no_residues"),
}


PARTS = {"network alone": "predicted_pK_network", "Gaussian process alone": "predicted_pK_Gaussian_process"}


class Tested(NamedTuple):
    """The test sets of the seeds of one row, joined."""

    predicted: np.ndarray
    measured: np.ndarray
    codes: list[str]


def main() -> None:
    options = _options()
    if options.one:
        row, split, seed = options.one
        sys.exit(_train(options, row, split, int(seed)))
    options.work.mkdir(parents=True, exist_ok=True)
    clean_index(options.data, options.work)
    all_ended = True
    runs = [(row, split, seed) for seed in options.seeds for split in options.splits for row in options.rows]
    with ThreadPoolExecutor(options.jobs) as pool:
        for run, failed in zip(runs, pool.map(lambda run: _in_own_process(options, *run), runs), strict=True):
            if failed:
                all_ended = False
                print(f"did not end well: {' '.join(map(str, run))}; see {_folder(options.work, *run) / 'log'}")
    for split in options.splits:
        print(f"\n{split} split\n{_table(options, split)}")
    if not all_ended:
        sys.exit(1)


def _table(options: argparse.Namespace, split: str) -> str:
    """A line for each row: metrics with intervals, then how its RMSE differs from that of the plain recipe."""
    plain = _tested(options, PLAIN, split, "predicted_pK")
    lines: dict[str, dict[str, Interval]] = {}
    differences = []
    for row in options.rows:
        for name, column in {row: "predicted_pK", **{f"{row}: {part}": PARTS[part] for part in PARTS}}.items():
            tested = _tested(options, row, split, column)
            if tested is None:
                continue
            lines[name] = metrics_with_intervals(tested.predicted, tested.measured, clusters=tested.codes)
            if name != PLAIN and plain is not None and plain.codes == tested.codes:
                change = compare(tested.predicted, plain.predicted, plain.measured, clusters=plain.codes)
                differences.append(f"{name}: RMSE {change['rmse']}, R {change['pearson']}")
    return "\n".join([results_table(lines), "", "less the plain recipe:", *differences])


def _tested(options: argparse.Namespace, row: str, split: str, column: str) -> Tested | None:
    """None until every seed has been tested, and where there is no such column of predictions."""
    predicted, measured, codes = [], [], []
    for seed in options.seeds:
        results = _folder(options.work, row, split, seed) / "results"
        if not (results / "metrics.json").exists():
            return None
        for line in csv.DictReader((results / "test_predictions.csv").open(encoding="utf-8")):
            if column not in line:
                return None
            predicted.append(float(line[column]))
            measured.append(float(line["measured_pK"]))
            codes.append(line["code"])
    return Tested(np.array(predicted), np.array(measured), codes)


def _in_own_process(options: argparse.Namespace, row: str, split: str, seed: int) -> int:
    folder = _folder(options.work, row, split, seed)
    if (folder / "results" / "metrics.json").exists():
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--data", options.data, "--work", options.work, "--one", row, split, seed]
    with (folder / "log").open("a", encoding="utf-8") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([*map(str, command)], stdout=log, stderr=log, env=environment).returncode


def _train(options: argparse.Namespace, row: str, split: str, seed: int) -> int:
    folder, change = _folder(options.work, row, split, seed), ROWS[row]
    if change.idea:
        getattr(ablation_ideas, change.idea)()
    settings = {
        **RECIPE,
        **change.settings,
        **SPLITS[split],
        "split": split,
        "seed": seed,
        "dataset_path": options.data,
        "index_file": options.work / find_index(options.data).name,
        "processed_data_dir": options.work / "processed_data",
        "checkpoint_dir": folder / "checkpoints",
        "results_dir": folder / "results",
    }
    return train_script.main([part for key, value in settings.items() for part in ("--set", f"{key}={value}")])


def _folder(work: Path, row: str, split: str, seed: int) -> Path:
    name = row.replace(",", "").replace(" ", "_").replace("Å", "A")
    return work / f"{name}-{split}-{seed}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="PDBbind folder with index/cleansplit_train.txt")
    parser.add_argument("--work", type=Path, required=True, help="where runs and graphs are kept")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--one", nargs=3, metavar=("ROW", "SPLIT", "SEED"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
