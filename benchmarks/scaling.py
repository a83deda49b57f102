"""Seconds of an epoch by the number of processes on this computer, and of the start of a run by that of complexes.

python benchmarks/scaling.py --processes 1 2 [--busy] [--epochs 3] [--rounds 2]
python benchmarks/scaling.py --complexes 2000 20000

The first trains with main.py, one thread a process, turn by turn, on the demo set and, where AIDD_REAL_DATA is set, on
a tenth of the complexes of $AIDD_REAL_DATA/pdbbind; with --busy beside a process of the lowest priority. The second
starts a run on copies of the demo set, twice: the graphs are built, then they are there. What both printed stands in
SCALING.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from string import ascii_lowercase, digits

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import machine  # noqa: E402
from src.data.demo import write_demo  # noqa: E402

SPIN = "while True: pass"
REAL = {"train_split": 0.1, "validation_split": 0.02, "split": "random"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[])
    parser.add_argument("--complexes", type=int, nargs="+", default=[])
    parser.add_argument("--busy", action="store_true", help="beside a process of the lowest priority")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    print(machine(), f"load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.processes:
            with _busy(options.busy):
                _epochs(Path(folder), options.processes, options.epochs, options.rounds)
        for count in options.complexes:
            _starts(Path(folder) / str(count), count)


def _epochs(folder: Path, processes: list[int], epochs: int, rounds: int) -> None:
    sets: dict[str, dict[str, object]] = {"demo": {}}
    if "AIDD_REAL_DATA" in os.environ:
        sets["real"] = {"dataset_path": Path(os.environ["AIDD_REAL_DATA"]) / "pdbbind", **REAL}
    for name, settings in sets.items():
        best = dict.fromkeys(processes, float("inf"))
        for _ in range(rounds):
            for number in processes:
                run = folder / f"{name}-{number}"
                shutil.rmtree(run, ignore_errors=True)
                _train(run, folder / "graphs", cpu_processes=number, epochs=epochs, **settings)
                rows = map(json.loads, (run / "results" / "history.jsonl").read_text().splitlines())
                best[number] = min(best[number], *(row["seconds"] for row in rows))
        for number, seconds in best.items():
            ratio = best[processes[0]] / seconds
            print(f"{name}: {number} processes, {seconds:7.2f} s an epoch, {ratio:.2f} of the first", flush=True)


def _starts(folder: Path, count: int) -> None:
    """Seconds from the command to the first step, and the memory that the process then has."""
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
    for what in ("graphs built", "graphs there", "graphs there"):
        shutil.rmtree(folder / "run", ignore_errors=True)
        seconds, gigabytes = _until_first_step(folder / "run", folder / "graphs", data)
        print(f"{count} complexes, {what}: first step after {seconds:.1f} s, {gigabytes:.2f} GB", flush=True)


def _until_first_step(run: Path, graphs: Path, data: Path) -> tuple[float, float]:
    command = _command(run, graphs, dataset_path=data, cpu_processes=1, epochs=1)
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        for line in process.stderr:
            if line.startswith("ViSNet with"):
                break
        seconds = time.monotonic() - started
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.kill()
    return seconds, int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1e6


def _train(run: Path, graphs: Path, **settings: object) -> None:
    settings = {"gaussian_process": False, "message_passing": "fast", **settings}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(_command(run, graphs, **settings), cwd=ROOT, env=environment, check=True, capture_output=True)


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
