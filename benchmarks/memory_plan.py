"""Peak bytes of a training step: what the memory plan predicts, and what is measured.

python benchmarks/memory_plan.py [--hidden 128] [--layers 6] [--lmax 1] [--precision fp32] [--batches 1 4 16 64]

Real complexes where $AIDD_REAL_DATA is set (every one with a pocket and a ligand), else the built-in demo set, with the
graph settings of config.py. A batch is drawn at random; `largest` is made of the largest complexes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import machine  # noqa: E402
from config import CONFIG  # noqa: E402
from src.data.batching import collate  # noqa: E402
from src.data.dataset import Example, load_dataset  # noqa: E402
from src.data.demo import write_demo  # noqa: E402
from src.hardware.device import choose_precision  # noqa: E402
from src.hardware.memory_plan import MODES_BY_SPEED, usable_of_card  # noqa: E402
from src.hardware.step_memory import complex_sizes, measure_step_memory, model_to_measure, phase_peaks  # noqa: E402
from src.settings import Settings, read_settings  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--lmax", type=int, choices=(1, 2), default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    options = parser.parse_args()
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        settings, examples = _examples(Path(folder), options)
    device = torch.device("cpu")
    precision = choose_precision(options.precision, device)
    memory = measure_step_memory(settings.model, examples, MODES_BY_SPEED, device, precision)
    model = model_to_measure(settings.model, device)
    order = np.random.default_rng(0).permutation(len(examples))
    batches = {f"{size} at random": [examples[n] for n in order[:size]] for size in options.batches}
    by_size = sorted(examples, key=lambda example: -example.graph.num_edges)
    batches[f"{options.batches[-1]} largest"] = by_size[: options.batches[-1]]
    print("| mode | complexes | edges | predicted GB | measured GB | error |\n|---|---|---|---|---|---|")
    for mode in MODES_BY_SPEED:
        model.representation.message_passing = mode
        for name, batch in batches.items():
            size = complex_sizes(batch).sum(0)
            predicted = memory[mode].need(size)
            measured = memory[mode].weights + phase_peaks(model, collate(batch), device, precision).max()
            error = predicted / measured - 1
            print(f"| {mode} | {name} | {size[1]:,} | {predicted / 1e9:.2f} | {measured / 1e9:.2f} | {error:+.1%} |")
    print(f"\nA 6 GB card has {usable_of_card(6 * 2**30) / 1e9:.2f} GB that the plan uses.")


def _examples(folder: Path, options: argparse.Namespace) -> tuple[Settings, list[Example]]:
    real = os.environ.get("AIDD_REAL_DATA")
    changes = {
        "dataset_path": f"{real}/pdbbind" if real else str(write_demo(folder / "demo").parents[1]),
        "processed_data_dir": str(folder / "cache"),
        "visnet_hidden_channels": options.hidden,
        "visnet_num_layers": options.layers,
        "visnet_lmax": options.lmax,
    }
    settings = read_settings({**CONFIG, **changes}, root=ROOT)
    settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, dropout=0.0))
    return settings, list(load_dataset(settings.data, settings.graph, settings.processing).examples)


if __name__ == "__main__":
    main()
