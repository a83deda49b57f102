"""What more training complexes are worth: the recipe on 500, 1,000, 2,000 and all of a cluster split's training set.

python benchmarks/learning_curve.py --data $AIDD_REAL_DATA --work FOLDER [--seeds 1 2] [--figure FILE.png]
python benchmarks/learning_curve.py --data $AIDD_REAL_DATA --work FOLDER --process [--seeds 1 2 3] [--figure FILE.png]

Trains by `main.py` and the recipe of benchmarks/pretrained.py on codes of index/cleansplit_train.txt. The runs of a
seed have the same validation and test clusters, and each smaller training set, drawn by the seed, is part of the larger
ones. The run on all is that of benchmarks/peers.py, and is taken where `--work` is its folder. What has run is not run
again, and what was stopped goes on. With `--process` the Gaussian process alone, which takes seconds, learns from the
same sets, and from such of a split by years and of a random one.

The table joins the test sets of the seeds; intervals resample their clusters, the same for every size, and those of the
line through the sizes are of these resamples.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.pretrained import RECIPE, clean_index, settings_of_run, train  # noqa: E402
from config import CONFIG  # noqa: E402
from src.data.batching import in_order  # noqa: E402
from src.data.dataset import load_dataset  # noqa: E402
from src.evaluation.metrics import (  # noqa: E402
    Interval,
    interval,
    pearson,
    resampling_weights,
    rmse,
    weighted_pearson,
)
from src.gaussian_process.process import fit_to_profiles  # noqa: E402
from src.gaussian_process.profiles import LabelledProfiles, labelled_profiles  # noqa: E402
from src.settings import read_settings  # noqa: E402
from src.similarity.splits import compare_complexes, group_of_code, split_dataset  # noqa: E402

BATCH = 32
SIZES = (500, 1000, 2000)  # beside all
WHOLE_PDBBIND = 19_000  # complexes that can be used
SPLITS = {"cluster": "new clusters", "time": "newest years", "random": "relatives (random split)"}
PARTS = {
    "joined": "predicted_pK",
    "network alone": "predicted_pK_network",
    "process alone": "predicted_pK_Gaussian_process",
}
METRICS = {"RMSE": rmse, "Pearson's R": pearson}


class Run(NamedTuple):
    """One training: how many complexes it learns from, and how often it sees each."""

    folder: Path
    size: int
    epochs: int
    settings: dict[str, object]

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def is_done(self) -> bool:
        return (self.results / "metrics.json").exists()


class Curve(NamedTuple):
    """A metric by number of training complexes."""

    sizes: np.ndarray  # [sizes], mean over the seeds
    values: np.ndarray  # [sizes]
    resampled: np.ndarray  # [resamples, sizes]

    def intervals(self) -> list[Interval]:
        return [interval(value, self.resampled[:, n]) for n, value in enumerate(self.values)]

    def by_doubling(self) -> Interval:
        """How much each doubling of the training complexes changes it, by a straight line."""
        return interval(_slope(self, self.values[None])[0], _slope(self, self.resampled))

    def at(self, count: float) -> Interval:
        """Where the straight line is at so many training complexes."""
        return interval(_extended(self, self.values[None], count)[0], _extended(self, self.resampled, count))


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    index = clean_index(options.data, options.work)
    if options.process:
        curves, told = _of_process(options, index), ""
    else:
        seeds, cluster_of = planned(options, index)
        for run in (run for runs in zip(*seeds, strict=True) for run in runs):  # the smallest first
            if not run.is_done():
                train(run.settings)
        curves = {name: _of_runs(seeds, cluster_of, column) for name, column in PARTS.items()}
        told = _seconds(seeds)
    for name, of_part in curves.items():
        print(_table(name, of_part))
    print(told)
    if options.figure:
        _draw(curves, options.figure)


def planned(options: argparse.Namespace, index: Path) -> tuple[list[list[Run]], dict[str, object]]:
    """The runs of each seed, the smallest first, with their split files written; and code -> cluster."""
    data, seeds = _Data(options, index), []
    for seed in options.seeds:
        folder, split = options.work / f"cluster-{seed}", data.split("cluster", seed)
        whole = settings_of_run(options, index, folder, seed) | {"split": "cluster"}
        parts = [_run_on_part(options, index, split, seed, size) for size in options.sizes]
        seeds.append([*parts, Run(folder, len(split["train"]), RECIPE["epochs"], whole)])
    return seeds, data.cluster_of


def nested(codes: list[str], seed: int, size: int) -> list[str]:
    """So many of the codes, which are among those of every larger size."""
    order = list(codes)
    random.Random(seed).shuffle(order)
    return sorted(order[:size])


class _Data:
    """The complexes, and how the seeds part them."""

    def __init__(self, options: argparse.Namespace, index: Path) -> None:
        whole = settings_of_run(options, index, options.work, 0) | {"split": "cluster"}
        self.settings = read_settings({**CONFIG, **whole}, root=ROOT)
        self.dataset = load_dataset(self.settings.data, self.settings.graph, self.settings.processing)
        self.similarity = compare_complexes(self.dataset, self.settings.processing)
        self.cluster_of = group_of_code(self.dataset, self.settings.data, self.similarity)

    def split(self, kind: str, seed: int) -> dict[str, list[str]]:
        return split_dataset(self.dataset, replace(self.settings.data, split=kind), seed, self.similarity)


def _run_on_part(options: argparse.Namespace, index: Path, split: dict[str, list[str]], seed: int, size: int) -> Run:
    epochs = RECIPE["epochs"]
    if options.same_steps:
        epochs = round(epochs * len(split["train"]) / size)
    folder = options.work / f"cluster-{seed}-{size}-{epochs}"
    folder.mkdir(exist_ok=True)
    listed = folder / "split.json"
    listed.write_text(json.dumps(split | {"train": nested(split["train"], seed, size)}))
    settings = settings_of_run(options, index, folder, seed)
    return Run(folder, size, epochs, settings | {"split": "file", "split_file": str(listed), "epochs": epochs})


def _of_runs(seeds: list[list[Run]], cluster_of: dict[str, object], column: str) -> dict[str, Curve]:
    """Each metric of the test sets of trainings."""
    by_size = {}
    for runs in zip(*seeds, strict=True):
        rows = [row for run in runs for row in csv.DictReader((run.results / "test_predictions.csv").open())]
        by_size[np.mean([run.size for run in runs])] = np.array([float(row[column]) for row in rows])
    measured = np.array([float(row["measured_pK"]) for row in rows])  # in the same order for every size
    return _curves(by_size, measured, [cluster_of[row["code"]] for row in rows])


def _of_process(options: argparse.Namespace, index: Path) -> dict[str, dict[str, Curve]]:
    """Each metric of Gaussian processes, by kind of split."""
    data = _Data(options, index)
    cutoff = data.settings.graph.interaction_cutoff
    known = labelled_profiles(in_order(data.dataset.judged(list(data.cluster_of)), BATCH), cutoff)
    place_of = {code: place for place, code in enumerate(known.codes)}

    def of(codes: list[str]) -> LabelledProfiles:
        return known.of(torch.tensor([place_of[code] for code in codes if code in place_of]))

    curves = {}
    for kind, title in SPLITS.items():
        splits = {seed: data.split(kind, seed) for seed in options.seeds}
        tests = {seed: of(split["test"]) for seed, split in splits.items()}
        by_size = {}
        for size in (*options.sizes, None):
            told = []
            for seed, split in splits.items():
                process = fit_to_profiles(of(nested(split["train"], seed, size or len(split["train"]))), cutoff)
                profiles = tests[seed].profiles
                told.append(process.predict(profiles, process.likenesses(profiles)).numpy())
            by_size[size or len(split["train"])] = np.concatenate(told)
        measured = np.concatenate([test.pk.numpy() for test in tests.values()])
        clusters = [data.cluster_of[code] for test in tests.values() for code in test.codes]
        curves[title] = _curves(by_size, measured, clusters)
    return curves


def _curves(by_size: dict[float, np.ndarray], measured: np.ndarray, clusters: list[object]) -> dict[str, Curve]:
    weights = resampling_weights(len(measured), clusters=clusters)
    predicted, sizes = list(by_size.values()), np.array(list(by_size))
    errors = np.stack(predicted) - measured
    resampled = {
        "RMSE": np.sqrt(weights @ errors.T**2 / weights.sum(1, keepdims=True)),
        "Pearson's R": np.stack([weighted_pearson(weights, told, measured) for told in predicted], axis=1),
    }
    return {
        name: Curve(sizes, np.array([metric(told, measured) for told in predicted]), resampled[name])
        for name, metric in METRICS.items()
    }


def _table(name: str, curves: dict[str, Curve]) -> str:
    lines = [f"\n{name}"]
    columns = [curve.intervals() for curve in curves.values()]
    for size, *told in zip(curves["RMSE"].sizes, *columns, strict=True):
        text = ", ".join(f"{metric} {one}" for metric, one in zip(curves, told, strict=True))
        lines.append(f"  {size:>6,.0f} complexes: {text}")
    for metric, curve in curves.items():
        slope, there = curve.by_doubling(), curve.at(WHOLE_PDBBIND)
        lines.append(f"  {metric} by doubling: {slope}; the line at {WHOLE_PDBBIND:,}: {there}")
    return "\n".join(lines)


def _seconds(seeds: list[list[Run]]) -> str:
    """Of training, by complex and epoch, and what that makes of a run on all of PDBbind."""
    each = []
    for run in (run for runs in seeds for run in runs):
        with (run.results / "history.csv").open() as file:
            each += [float(row["seconds"]) / run.size for row in csv.DictReader(file)]
    seconds = float(np.median(each))
    hours = seconds * WHOLE_PDBBIND * RECIPE["epochs"] / 3600
    spread = f"{min(each):.3f} to {max(each):.3f}"
    return (
        f"\nseconds by complex and epoch: {seconds:.3f} ({spread}); {WHOLE_PDBBIND:,} complexes for "
        f"{RECIPE['epochs']} epochs would take {hours:.1f} h"
    )


def _slope(curve: Curve, values: np.ndarray) -> np.ndarray:
    """[B] of values [B, sizes] by the logarithm of the size to base 2."""
    at = np.log2(curve.sizes) - np.log2(curve.sizes).mean()
    return values @ at / (at @ at)


def _extended(curve: Curve, values: np.ndarray, count: float) -> np.ndarray:
    """[B] the line through values [B, sizes] at so many complexes."""
    return values.mean(1) + _slope(curve, values) * (np.log2(count) - np.log2(curve.sizes).mean())


def _draw(curves: dict[str, dict[str, Curve]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        for place, (name, of_part) in enumerate(curves.items()):
            curve, colour = of_part[metric], f"C{place}"
            ends = np.array([curve.sizes[0], WHOLE_PDBBIND])
            axes.plot(ends, [curve.at(end).value for end in ends], ":", color=colour)
            there = curve.at(WHOLE_PDBBIND)
            told = [*curve.intervals(), there]
            shifted = np.array([*curve.sizes, WHOLE_PDBBIND]) * (1 + 0.03 * place)  # beside each other
            axes.vlines(shifted, [one.low for one in told], [one.high for one in told], color=colour, alpha=0.5)
            axes.plot(curve.sizes, curve.values, "o-", color=colour, label=name)
        axes.set(xscale="log", xlabel="training complexes, thousands", ylabel=metric)
        axes.set_xticks([*curve.sizes, WHOLE_PDBBIND], [f"{size / 1000:.2g}" for size in (*curve.sizes, WHOLE_PDBBIND)])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="PDBbind folder with index/cleansplit_train.txt")
    parser.add_argument("--work", type=Path, required=True, help="where runs and graphs are kept")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="beside all")
    parser.add_argument("--process", action="store_true", help="the Gaussian process alone, without trainings")
    parser.add_argument("--same-steps", action="store_true", help="smaller training sets for as many steps as all")
    parser.add_argument("--figure", type=Path, help="PNG to draw")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
