"""Train the models of checkpoints/pretrained/ or checkpoints/cleansplit/ and publish them there.

python benchmarks/pretrained.py --ensemble cleansplit --data $AIDD_REAL_DATA --work FOLDER [--members 3]

'pretrained' learns from every usable complex of the data. 'cleansplit' learns by the same recipe from the codes of
index/cleansplit_train.txt alone (PDBbind CleanSplit, doi 10.1038/s42256-025-01124-5: no near-duplicate of CASF-2016),
so that the recipe can be judged on what it has not seen. One call of main.py with `members`: each has another seed,
and so another cluster split into 90 % training and 10 % validation. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.checkpoint import BEST, ENDING, publish_checkpoint  # noqa: E402
from src.pdbbind.index import find_index  # noqa: E402

ENSEMBLES = ("pretrained", "cleansplit")
RECIPE = {
    "pocket_radius": 6.5,
    "visnet_cutoff": 4.0,
    "visnet_num_layers": 2,
    "batch_size": 16,
    "learning_rate": 1.5e-3,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "ema_decay": 0.99,
    "ranking_weight": 0.5,
    "epochs": 10,
}
SPLIT = {"split": "cluster", "train_split": 0.9, "validation_split": 0.1}
TESTED = {"train_split": 0.8, "validation_split": 0.1}  # where the recipe is judged on a test set of its own


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    index = clean_index(options.data, options.work) if options.ensemble == "cleansplit" else find_index(options.data)
    folder = options.work / options.ensemble
    settings = {
        **RECIPE,
        **SPLIT,
        "members": options.members,
        "seed": 1,
        "dataset_path": options.data,
        "index_file": index,
        "processed_data_dir": options.work / "processed_data",
        "checkpoint_dir": folder / "checkpoints",
        "results_dir": folder / "results",
        "cpu_processes": options.processes,
    }
    train(settings)
    published = ROOT / "checkpoints" / options.ensemble
    published.mkdir(parents=True, exist_ok=True)
    for best in sorted((folder / "checkpoints").glob(f"seed_*/{BEST}")):
        publish_checkpoint(best, published / f"{best.parent.name}{ENDING}")


def train(settings: Mapping[str, object]) -> None:
    """Run main.py with these settings."""
    assignments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    subprocess.run([sys.executable, ROOT / "main.py", *assignments], check=True)


def settings_of_run(options: argparse.Namespace, index: Path, folder: Path, seed: int) -> dict[str, object]:
    """The recipe on a data set that keeps a test set, all but its `split`; it leaves what it finds in the folder."""
    return {
        **RECIPE,
        **TESTED,
        "seed": seed,
        "dataset_path": str(options.data),
        "index_file": str(index),
        "processed_data_dir": str(options.work / "processed_data"),
        "checkpoint_dir": str(folder / "checkpoints"),
        "results_dir": str(folder / "results"),
        "cpu_processes": options.threads,
    }


def clean_index(data: Path, work: Path) -> Path:
    """The lines of the index whose codes CleanSplit keeps."""
    clean = set((data / "index" / "cleansplit_train.txt").read_text().split())
    source = find_index(data)
    lines = source.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    path = work / source.name
    kept = [line for line in lines if line.startswith("#") or set(line.split()[:1]) & clean]
    path.write_text("".join(kept), encoding="utf-8")
    return path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ensemble", choices=ENSEMBLES, required=True)
    parser.add_argument("--data", type=Path, required=True, help="PDBbind folder with index/cleansplit_train.txt")
    parser.add_argument("--work", type=Path, required=True, help="where checkpoints and graphs are kept meanwhile")
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--processes", default=1, help="that share each batch; 1 as for the shipped models")
    return parser.parse_args()


if __name__ == "__main__":
    main()
