"""Microseconds of short tensor operations under ways in which torch's threads can wait for each other.

python benchmarks/waiting_threads.py [--repeats 3]

Each way is measured alone on the machine and beside another program that keeps one core busy; the ways take turns, and
the median of the repeats is printed. `GOMP_SPINCOUNT` is what `src/__init__.py` sets where the user has not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

WAYS = {
    "default of OpenMP": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
}
STEPS = """
import time, torch
x, w, nodes = torch.randn(512, 128), torch.randn(256, 128), torch.zeros(300, 256)
index = torch.randint(0, 300, (512,))
def step():
    y = torch.nn.functional.silu(x @ w.t())
    nodes.index_add_(0, index, y * nodes.index_select(0, index))
for _ in range(100): step()
started = time.perf_counter()
for _ in range(2000): step()
print((time.perf_counter() - started) / 2000 * 1e6)
"""
BUSY = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    print(f"{'':<26}{'alone':>12}{'beside another program':>26}   microseconds")
    times: dict[tuple[str, bool], list[float]] = {(way, busy): [] for way in WAYS for busy in (False, True)}
    for busy in (False, True):
        other = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
        try:
            for way in list(WAYS) * options.repeats:
                command = [sys.executable, "-c", STEPS]
                done = subprocess.run(
                    command, env={**environment, **WAYS[way]}, capture_output=True, text=True, check=True
                )
                times[way, busy].append(float(done.stdout))
        finally:
            if other is not None:
                other.kill()
    for way in WAYS:
        alone, beside = (statistics.median(times[way, busy]) for busy in (False, True))
        print(f"{way:<26}{alone:>12.0f}{beside:>26.0f}")


if __name__ == "__main__":
    main()
