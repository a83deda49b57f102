"""Seconds of an epoch by processes, of a step by atoms and edges, and of the start of a run by complexes.

python benchmarks/scaling.py --processes 1 2 [--busy] [--epochs 3] [--rounds 2]
python benchmarks/scaling.py --steps
python benchmarks/scaling.py --complexes 2000 20000

The first trains with main.py, one thread a process, turn by turn, on the demo set and, where AIDD_REAL_DATA is set, on
some 320 complexes of $AIDD_REAL_DATA/pdbbind; with --busy beside a process of the lowest priority. The second
takes batches of real complexes where there are any, with all near pairs and with a third of them, on one thread. The
third starts runs on copies of the demo set: the graphs are built, then they are there, then a cluster split is made.
Processor seconds are those of all processes, whatever else a computer does. What all printed stands in SCALING.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from string import ascii_lowercase, digits

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import machine  # noqa: E402
from config import CONFIG  # noqa: E402
from src.data.batching import collate  # noqa: E402
from src.data.dataset import Example  # noqa: E402
from src.data.demo import write_demo  # noqa: E402
from src.model import build_model  # noqa: E402
from src.pdbbind.index import find_index  # noqa: E402
from src.settings import read_settings  # noqa: E402

SPIN = "while True: pass"
NUM_REAL, REAL = 320, {"train_split": 0.85, "validation_split": 0.1, "split": "random"}
STARTS = ({"graphs": "built"}, {"graphs": "there"}, {"graphs": "there", "split": "cluster"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[])
    parser.add_argument("--complexes", type=int, nargs="+", default=[])
    parser.add_argument("--steps", action="store_true", help="a training step by atoms and edges")
    parser.add_argument("--busy", action="store_true", help="beside a process of the lowest priority")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    print(machine(), f"load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.processes:
            with _busy(options.busy):
                _epochs(Path(folder), options.processes, options.epochs, options.rounds)
        if options.steps:
            _steps()
        if options.complexes:
            print("| Complexes | Graphs | Split | First step, s | Processor s | Memory, GB | Cache, MB |")
            print("|---|---|---|---|---|---|---|", flush=True)
        for count in options.complexes:
            _starts(Path(folder) / str(count), count)


def _epochs(folder: Path, processes: list[int], epochs: int, rounds: int) -> None:
    sets: dict[str, dict[str, object]] = {"demo": {}}
    if "AIDD_REAL_DATA" in os.environ:
        data = Path(os.environ["AIDD_REAL_DATA"]) / "pdbbind"
        lines = [line for line in find_index(data).read_text().splitlines(keepends=True) if not line.startswith("#")]
        index = folder / "INDEX_some.2020R1.lst"
        index.write_text("".join(lines[:: len(lines) // NUM_REAL]))
        sets["real"] = {"dataset_path": data, "index_file": index, **REAL}
    print("| Complexes | Processes | s an epoch | Of the first | Largest process, GB |\n|---|---|---|---|---|")
    for name, settings in sets.items():
        best, memory = dict.fromkeys(processes, float("inf")), dict.fromkeys(processes, 0.0)
        for _ in range(rounds):
            for number in processes:
                run = folder / f"{name}-{number}"
                shutil.rmtree(run, ignore_errors=True)
                memory[number] = _train(run, folder / "graphs", cpu_processes=number, epochs=epochs, **settings)
                rows = map(json.loads, (run / "results" / "history.jsonl").read_text().splitlines())
                best[number] = min(best[number], *(row["seconds"] for row in rows))
        for number, seconds in best.items():
            ratio = best[processes[0]] / seconds
            print(f"| {name} | {number} | {seconds:.2f} | {ratio:.2f} | {memory[number]:.2f} |", flush=True)


def _steps() -> None:
    """Forward and backward pass of the network of config.py, the least of three, and the plane through the table."""
    from benchmarks.workload import pocket_graphs  # which needs torch-geometric

    torch.set_num_threads(1)
    settings = read_settings(CONFIG, root=ROOT)
    where, graphs = pocket_graphs(16, settings.graph)
    model = build_model(settings.model)
    table = []
    print(f"{where}\n| Complexes | Atoms | Edges | Processor ms |\n|---|---|---|---|")
    for count, every in product((1, 4, 16), (1, 3)):
        thinned = [replace(graph, near_pairs=graph.near_pairs[:, ::every]) for graph in graphs[:count]]
        batch = collate([Example(graph, 6.0) for graph in thinned])
        seconds = []
        for _ in range(3):
            model.zero_grad()
            started = time.process_time()
            model(batch).sum().backward()
            seconds.append(time.process_time() - started)
        table.append((1, len(batch.pos), len(batch.source), 1000 * min(seconds)))
        print("| {} | {:,} | {:,} | {:.0f} |".format(count, *table[-1][1:]), flush=True)
    rows = np.array(table)
    fixed, per_atom, per_edge = np.linalg.lstsq(rows[:, :3], rows[:, 3], rcond=None)[0]
    print(
        f"\nms of a step: {fixed:.0f} + {1000 * per_atom:.1f} a thousand atoms + {1000 * per_edge:.1f} a thousand edges"
    )


def _starts(folder: Path, count: int) -> None:
    """What it takes from the command to the first step."""
    data = _copies(folder, count)
    for start in STARTS:
        shutil.rmtree(folder / "run", ignore_errors=True)
        split = start.get("split", "random")
        seconds, processor, gigabytes = _until_first_step(folder / "run", folder / "graphs", data, split)
        size = sum(path.stat().st_size for path in (folder / "graphs").rglob("*") if path.is_file()) / 1e6
        row = f"{seconds:.1f} | {processor:.1f} | {gigabytes:.2f} | {size:.0f}"
        print(f"| {count:,} | {start['graphs']} | {split} | {row} |", flush=True)


def _copies(folder: Path, count: int) -> Path:
    """A data set of links to the files of the demo set, under other codes."""
    source = folder / "demo"
    index = write_demo(source)
    lines = [line for line in index.read_text().splitlines() if line and not line.startswith("#")]
    data, listed = folder / "data", []
    codes = product("123456789", ascii_lowercase, ascii_lowercase + digits, ascii_lowercase + digits)
    for number in range(count):
        code, rest = lines[number % len(lines)].split(maxsplit=1)
        new = "".join(next(codes))
        (data / new).mkdir(parents=True)
        for path in (source / code).iterdir():
            os.link(path, data / new / path.name.replace(code, new))
        listed.append(f"{new}  {rest}")
    (data / "index").mkdir()
    (data / "index" / "INDEX_copies.2020R1.lst").write_text("\n".join(listed) + "\n")
    return data


def _until_first_step(run: Path, graphs: Path, data: Path, split: str) -> tuple[float, float, float]:
    """Seconds, processor seconds of all processes, and the most memory (GB) of the first one."""
    command = _command(run, graphs, dataset_path=data, cpu_processes=1, epochs=1, split=split)
    started, used = time.monotonic(), _processor_seconds()
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        for line in process.stderr:
            if line.startswith("ViSNet with"):
                break
        seconds = time.monotonic() - started
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.kill()
    return seconds, _processor_seconds() - used, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1e6


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _train(run: Path, graphs: Path, **settings: object) -> float:
    """Run main.py; returns the memory (GB) of its largest process."""
    settings = {"gaussian_process": False, "message_passing": "fast", **settings}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(_command(run, graphs, **settings), cwd=ROOT, env=environment, **quiet)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"main.py ended with {process.returncode}")
    return usage.ru_maxrss / 1e6


def _command(run: Path, graphs: Path, **settings: object) -> list[str]:
    folders = {"checkpoint_dir": run / "checkpoints", "results_dir": run / "results", "processed_data_dir": graphs}
    changes = {**folders, "manual_save_trigger_file": run / "SAVE_NOW.flag", **settings}
    return [sys.executable, str(ROOT / "main.py"), *(x for k, v in changes.items() for x in ("--set", f"{k}={v}"))]


@contextlib.contextmanager
def _busy(is_busy: bool) -> Iterator[None]:
    if not is_busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", SPIN], preexec_fn=lambda: os.nice(19))
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
