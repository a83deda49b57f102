"""What each part of the Gaussian process is worth on splits that do not leak and on random ones, and what it costs.

python benchmarks/gaussian_process.py --data $AIDD_REAL_DATA/pdbbind --work FOLDER [--folds 5]
python benchmarks/gaussian_process.py --data $AIDD_REAL_DATA/pdbbind --work FOLDER --cost 2429 20000

Takes the codes of index/cleansplit_train.txt. In each of the folds, of clusters and of complexes at random, the process
is fitted to all other folds; predictions of the folds are joined. Differences are paired, less the process as it is.
With --cost the complexes are repeated with noise of 0.3 Å until there are enough.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.pretrained import RECIPE, clean_index  # noqa: E402
from config import CONFIG  # noqa: E402
from src.data.batching import in_order  # noqa: E402
from src.data.dataset import (  # noqa: E402
    Dataset,
    Example,
    load_dataset,
    measured_pk,
)
from src.evaluation.metrics import compare, metrics_with_intervals, results_table  # noqa: E402
from src.gaussian_process import process as gaussian_process  # noqa: E402
from src.gaussian_process import profiles as contact_profiles  # noqa: E402
from src.gaussian_process.process import Likenesses, fit_gaussian_process  # noqa: E402
from src.hardware.inference import predict_batches  # noqa: E402
from src.settings import Settings, read_settings  # noqa: E402
from src.similarity.comparison import Similarity  # noqa: E402
from src.similarity.splits import compare_complexes, split_dataset  # noqa: E402

AS_IT_IS = "as it is"
BATCH = 32
CPU = torch.device("cpu")


def _kernel(part: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> dict[str, object]:
    """A process whose likeness is made of contacts, ligands and residues in another way."""

    return {"Likenesses.kernel": property(lambda likenesses: part(*likenesses))}


# What of src/gaussian_process/process.py or src/gaussian_process/profiles.py is replaced
VARIANTS: dict[str, dict[str, object]] = {
    AS_IT_IS: {},
    "no line through the contacts": {"line_through": lambda count, label: (label.mean().item(), 0.0)},
    "likeness of contacts alone": _kernel(lambda contacts, ligands, residues: contacts),
    "likeness of ligands alone": _kernel(lambda contacts, ligands, residues: ligands),
    "contacts and ligands": _kernel(lambda contacts, ligands, residues: contacts + ligands),
    "ligands in like residues": _kernel(lambda contacts, ligands, residues: ligands * (1 + residues)),
    "one shell": {"SHELL_BOUNDARIES": ()},
    "four shells": {"SHELL_BOUNDARIES": (3.3, 4.0, 5.0)},
    "noise 0.1": {"NOISE": 0.1},
    "noise 1": {"NOISE": 1.0},
}


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    settings = _settings(options)
    dataset = load_dataset(settings.data, settings.graph, settings.processing)
    if options.cost:
        for count in options.cost:
            _print_cost(dataset.examples, count, settings.graph.interaction_cutoff)
        return
    similarity = compare_complexes(dataset, settings.processing)
    for kind in ("cluster", "random"):
        folds = list(_folds(dataset, settings, similarity, kind, options.folds))
        measured = np.concatenate([measured_pk(test) for _, test in folds])
        codes = [example.graph.code for _, test in folds for example in test]
        found = {name: _predict(folds, changes, settings) for name, changes in VARIANTS.items()}
        print(f"\n{kind}, {options.folds} folds, {len(codes)} complexes")
        rows = {name: metrics_with_intervals(each, measured, clusters=codes) for name, each in found.items()}
        print(results_table(rows))
        print("\nless the process as it is:")
        for name, predicted in found.items():
            if name != AS_IT_IS:
                change = compare(predicted, found[AS_IT_IS], measured, clusters=codes)
                print(f"{name}: RMSE {change['rmse']}, R {change['pearson']}", flush=True)


def _folds(
    dataset: Dataset, settings: Settings, similarity: Similarity, kind: str, count: int
) -> Iterator[tuple[list[Example], list[Example]]]:
    for fold in range(count):
        data = replace(settings.data, split=kind, split_folds=count, split_fold=fold)
        codes = split_dataset(dataset, data, settings.training.seed, similarity)
        yield dataset.judged([*codes["train"], *codes["validation"]]), dataset.judged(codes["test"])


def _predict(
    folds: list[tuple[list[Example], list[Example]]], changes: dict[str, object], settings: Settings
) -> np.ndarray:
    predicted = []
    with _changed(changes):
        for train, test in folds:
            process = fit_gaussian_process(in_order(train, BATCH), settings.graph.interaction_cutoff)
            predicted.append(predict_batches(process, in_order(test, BATCH), CPU)[0])
    return np.concatenate(predicted)


@contextlib.contextmanager
def _changed(changes: dict[str, object]) -> Iterator[None]:
    kept = []
    for name, value in changes.items():
        owner = Likenesses if name.startswith("Likenesses.") else gaussian_process
        name = name.rpartition(".")[2]
        owner = owner if hasattr(owner, name) else contact_profiles
        kept.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


def _print_cost(examples: list[Example], count: int, cutoff: float) -> None:
    draw = torch.Generator().manual_seed(0)

    def shaken(example: Example) -> Example:
        pos = example.graph.pos
        return replace(example, graph=replace(example.graph, pos=pos + 0.3 * torch.randn(pos.shape, generator=draw)))

    many = [*examples[:count], *(shaken(examples[n % len(examples)]) for n in range(len(examples), count))]
    started = time.monotonic()
    process = fit_gaussian_process(in_order(many, BATCH), cutoff)
    seconds = time.monotonic() - started
    stored = process.state_facts().values()
    size = sum(value.nbytes for value in stored if isinstance(value, torch.Tensor))
    asked = examples[:256]
    batches = list(in_order(asked, 8))
    started = time.process_time()
    predict_batches(process, batches, CPU)
    each = (time.process_time() - started) / len(asked)
    references = len(process.weights)
    print(
        f"{count:,} complexes: fitted in {seconds:.1f} s, {references:,} references, {size / 1e6:.1f} MB, "
        f"{each * 1e3:.2f} ms processor a pose",
        flush=True,
    )


def _settings(options: argparse.Namespace) -> Settings:
    changes = {
        **RECIPE,
        "dataset_path": str(options.data),
        "index_file": str(clean_index(options.data, options.work)),
        "processed_data_dir": str(options.work / "processed_data"),
    }
    return read_settings({**CONFIG, **changes}, root=ROOT)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="PDBbind folder with index/cleansplit_train.txt")
    parser.add_argument("--work", type=Path, required=True, help="where graphs are kept")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--cost", type=int, nargs="+", metavar="N", help="only time a fit to N complexes, for each N")
    return parser.parse_args()


if __name__ == "__main__":
    main()
