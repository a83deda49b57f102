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
from src.evaluation import Interval, compare, metrics_with_intervals, results_table  # noqa: E402

PLAIN = "plain"
SPLITS = {"cluster": {"train_split": 0.8, "validation_split": 0.1}, "time": {"train_split": 0.8}}
# Row -> the settings that differ from the recipe, or the function of ablation_ideas that does
ROWS: dict[str, dict[str, object] | str] = {
    PLAIN: {},
    "48 channels, 3 layers": {"visnet_hidden_channels": 48, "visnet_num_layers": 3},
    "3 layers": {"visnet_num_layers": 3},
    "lmax 2": {"visnet_lmax": 2},
    "protein pairs to 4 Å": {"visnet_cutoff": 4.0},
    "contacts to 6 Å": {"interaction_cutoff": 6.0, "pocket_radius": 6.5},
    "no ranking loss": {"ranking_weight": 0.0},
    "ranking loss, weight 2": {"ranking_weight": 2.0},
    "physical channels": "physical_channels",
    "residues hidden": "hidden_residues",
    "no residues": "no_residues",
    "no decoys": {"decoy_fraction": 0.0},
    "no noise": {"coordinate_noise": 0.0},
    "noise 0.1 Å": {"coordinate_noise": 0.1},
    "dropout 0.3": {"dropout_rate": 0.3},
    "clusters weigh alike": "balanced_clusters",
    "no weight average": {"ema_decay": 0.0},
}


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
    runs = [(row, split, seed) for seed in options.seeds for split in options.splits for row in options.rows]
    with ThreadPoolExecutor(options.jobs) as pool:
        for run, failed in zip(runs, pool.map(lambda run: _in_own_process(options, *run), runs), strict=True):
            if failed:
                print(f"did not end well: {' '.join(map(str, run))}; see {_folder(options.work, *run) / 'log'}")
    for split in options.splits:
        print(f"\n{split} split\n{_table(options, split)}")


def _table(options: argparse.Namespace, split: str) -> str:
    """A line for each row: metrics with intervals, then how its RMSE differs from that of the plain recipe."""
    plain = _tested(options, PLAIN, split)
    lines: dict[str, dict[str, Interval]] = {}
    differences = []
    for row in options.rows:
        tested = _tested(options, row, split)
        if tested is None:
            continue
        lines[row] = metrics_with_intervals(tested.predicted, tested.measured, clusters=tested.codes)
        if row != PLAIN and plain is not None and len(plain.measured) == len(tested.measured):
            change = compare(tested.predicted, plain.predicted, plain.measured, clusters=plain.codes)
            differences.append(f"{row}: RMSE {change['rmse']}, R {change['pearson']}")
    return "\n".join([results_table(lines), "", "less the plain recipe:", *differences])


def _tested(options: argparse.Namespace, row: str, split: str) -> Tested | None:
    """None until every seed has been tested."""
    predicted, measured, codes = [], [], []
    for seed in options.seeds:
        results = _folder(options.work, row, split, seed) / "results"
        if not (results / "metrics.json").exists():
            return None
        for line in csv.DictReader((results / "test_predictions.csv").open(encoding="utf-8")):
            predicted.append(float(line["predicted_pK"]))
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
    settings = {**RECIPE, **SPLITS[split], "split": split, "seed": seed}
    if isinstance(change, str):
        getattr(ablation_ideas, change)()
    else:
        settings |= change
    settings |= {
        "dataset_path": options.data,
        "index_file": clean_index(options.data, options.work),
        "processed_data_dir": options.work / "processed_data",
        "checkpoint_dir": folder / "checkpoints",
        "results_dir": folder / "results",
    }
    return train_script.main([part for key, value in settings.items() for part in ("--set", f"{key}={value}")])


def _folder(work: Path, row: str, split: str, seed: int) -> Path:
    return work / f"{row.replace(' ', '_').replace('Å', 'A')}-{split}-{seed}"


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
