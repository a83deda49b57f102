"""Train the models of checkpoints/pretrained/ or checkpoints/cleansplit/ and publish them there.

python benchmarks/pretrained.py --ensemble cleansplit --data $AIDD_REAL_DATA --work FOLDER [--members 2] [--jobs 2]

'pretrained' learns from every usable complex of the data. 'cleansplit' learns by the same recipe from the codes of
index/cleansplit_train.txt alone (PDBbind CleanSplit, doi 10.1038/s42256-025-01124-5: no near-duplicate of CASF-2016),
so that the recipe can be judged on what it has not seen. Each member has another seed, and so another cluster split
into 90 % training and 10 % validation. Each takes one thread, and `--jobs` of them are trained at a time. The same
command goes on where it was stopped. Last it prints how the members do on their validation sets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.checkpoint import publish_checkpoint  # noqa: E402
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


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    index = clean_index(options.data, options.work) if options.ensemble == "cleansplit" else find_index(options.data)
    seeds = range(1, options.members + 1)
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda seed: _train(options, index, seed), seeds))
    for seed in seeds:
        best = options.work / options.ensemble / f"seed_{seed}" / "checkpoints" / "model_best.pth.tar"
        published = ROOT / "checkpoints" / options.ensemble
        published.mkdir(parents=True, exist_ok=True)
        publish_checkpoint(best, published / f"seed_{seed}.pth.tar")
        metrics = json.loads(
            (options.work / options.ensemble / f"seed_{seed}" / "results" / "metrics.json").read_text()
        )
        rmse, pearson = (metrics["this model"][name]["value"] for name in ("rmse", "pearson"))
        print(f"seed {seed}: {metrics['part']} RMSE {rmse:.3f}, R {pearson:.3f}, {metrics['complexes']} complexes")


def _train(options: argparse.Namespace, index: Path, seed: int) -> None:
    folder = options.work / options.ensemble / f"seed_{seed}"
    settings = {
        **RECIPE,
        **SPLIT,
        "seed": seed,
        "dataset_path": options.data,
        "index_file": index,
        "processed_data_dir": options.work / "processed_data",
        "checkpoint_dir": folder / "checkpoints",
        "results_dir": folder / "results",
    }
    assignments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, ROOT / "main.py", *assignments], check=True, env=environment)


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
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
