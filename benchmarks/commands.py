"""Seconds of the commands a user types: the main job on the demo set, and one prediction.

python benchmarks/commands.py [--repeats 3]

Everything is written to a temporary folder, so nothing of an earlier run helps.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trained = [_train(Path(folder) / str(number)) for number in range(options.repeats)]
        _print("python main.py, demo set", trained)
        demo = Path(folder) / "0" / "processed_data" / "demo_set" / "d001"
        command = ["predict.py", "--protein_path", demo / "d001_protein.pdb", "--ligand_path", demo / "d001_ligand.sdf"]
        checkpoint = Path(folder) / "0" / "checkpoints" / "model_best.pth.tar"
        _print("python predict.py, one complex", [_seconds(*command, "--checkpoint", checkpoint) for _ in trained])
        _print("python predict.py --help", [_seconds("predict.py", "--help") for _ in trained])


def _train(folder: Path) -> float:
    keys = {
        "processed_data_dir": "processed_data",
        "checkpoint_dir": "checkpoints",
        "results_dir": "results",
        "manual_save_trigger_file": "SAVE_NOW.flag",
    }
    changes = [part for key, name in keys.items() for part in ("--set", f"{key}={folder / name}")]
    return _seconds("main.py", *changes)


def _seconds(*command: str | Path) -> float:
    start = time.monotonic()
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - start


def _print(name: str, seconds: list[float]) -> None:
    each = ", ".join(f"{value:.1f}" for value in seconds)
    print(f"{name:<34}{statistics.median(seconds):7.1f} s   ({each})", flush=True)


if __name__ == "__main__":
    main()
