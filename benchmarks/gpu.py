"""What the repository says of GPUs, tried on the one that is here: a table in Markdown and the same as JSON.

python benchmarks/gpu.py [--out results/gpu] [--data $AIDD_REAL_DATA/pdbbind] [--minutes 8] [--parts machine equality]

Writes gpu.md and gpu.json, anew after each part, and prints what it finds at once. A part that fails or runs out of
time becomes a row with the reason, and the others go on: they run in another process, which is replaced when it hangs,
dies or has made the GPU unusable. Without a GPU all of it runs on the CPU, on smaller networks and fewer complexes, in
2 to 3 minutes of one core. Needs what requirements.txt names and no network. Complexes are made here, unless --data
names a folder in the PDBbind layout, or one with graphs of the cache (processed_data/VERSION-FINGERPRINT), whose labels
are then made up. With exit code 0 all that was tried holds, with 1 something does not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

Row = dict[str, object]

# Part -> its share of the time; what one leaves goes to those after it. What may hang for long stands last.
SHARES = {
    "machine": 5,
    "equality": 20,
    "determinism": 5,
    "speed": 20,
    "launches": 8,
    "waits": 5,
    "memory": 8,
    "full-memory": 10,
    "epoch": 10,
    "screening": 8,
    "resume": 8,
    "low-precision": 8,
    "speed-of-compiled-PyG": 15,
}
# For all parts together, the first start apart; a busy CPU may take twice as long as a quiet one.
MINUTES = {"cuda": 7.5, "cpu": 5.0}
START_S = 120  # seconds that a process may take to load the libraries, on a slow disk
GRACE_S = 10  # seconds that a part has, when its time is up, to end by itself


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    report = measure(options)
    faults = faults_of(report)
    print(f"\n{options.out / 'gpu.md'}: {len(faults)} of {sum(map(len, _rows(report)))} rows are faults")
    for part, row in faults:
        print(f"  {part}: {_line(row)}")
    return 1 if faults else 0


def measure(options: argparse.Namespace) -> dict:
    """All parts, one process after the other while there are some left; the report is written as it grows."""
    report: dict = {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python benchmarks/gpu.py", *sys.argv[1:]]),
        "parts": {},
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        data, parts = options.data and options.data.resolve(), tuple(options.parts)
        task = _Task(options.out, data, options.minutes, parts, Path(folder))
        while task.left:
            task = _watch(report, task)
    return report


def rows_of(part: Callable[[object], Iterator[Row]], bench: object, until: float) -> Iterator[Row]:
    """The rows of a part until a time, and one more where it fails or has to end early."""
    try:
        for row in part(bench):
            yield row
            if time.time() > until:
                yield {"error": "out of time: what would come now is left out"}
                return
    except Exception as error:  # whatever it is, the other parts can still say something
        yield {"error": first_line(error)}


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


def faults_of(report: dict) -> list[tuple[str, Row]]:
    """Rows that are errors, or what does not hold, each with its part."""
    parts = report["parts"].items()
    return [(name, row) for name, part in parts for row in part["rows"] if "error" in row or row.get("holds") is False]


def markdown(report: dict) -> str:
    """The report as a page: a table for each part."""
    lines = [f"{report['date']}, `{report['command']}`", ""]
    for name, part in report["parts"].items():
        columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
        lines += [f"## {name}", "", f"{part['seconds']:.0f} s", ""]
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)] if columns else ["Nothing."]
        for row in part["rows"]:
            lines.append("| " + " | ".join(_text(row[key]) if key in row else "" for key in columns) + " |")
        lines.append("")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Task:
    """What a process is to do."""

    out: Path
    data: Path | None
    minutes: float | None
    left: tuple[str, ...]  # parts
    folder: Path  # for what is made on the way
    began: float | None = None  # seconds since 1970 at which the first process had started
    without: frozenset[str] = frozenset()  # forms that make the GPU unusable

    def deadlines(self, device: str) -> dict[str, float]:
        """When each part that is left has to be done, in seconds since 1970, from now on."""
        now, shares = time.time(), [SHARES[name] for name in self.left]
        seconds = 60 * (self.minutes or MINUTES[device]) - (now - (self.began or now))
        ends = [now + seconds * done / sum(shares) for done in accumulate(shares)]
        return dict(zip(self.left, ends, strict=True))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu", help="folder of gpu.md and gpu.json")
    parser.add_argument(
        "--data", type=Path, default=None, help="folder of complexes, or of graphs; default: they are made here"
    )
    parser.add_argument("--minutes", type=float, help=f"for all parts together (GPU: {MINUTES['cuda']:g})")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES), metavar="PART", help=str([*SHARES]))
    return parser.parse_args(arguments)


def _watch(report: dict, task: _Task) -> _Task:
    """Let a process do the parts that are left, as far as it comes; what is left then, for the next one."""
    context = multiprocessing.get_context("spawn")  # a copy of a process that uses CUDA cannot use it
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, task))
    process.start()
    sender.close()
    started = time.time()
    deadlines = dict.fromkeys(task.left, started + START_S)
    try:
        while task.left:
            name, *others = task.left
            part = report["parts"].setdefault(name, {"seconds": 0.0, "rows": []})
            kind, value = _heard(receiver, process, deadlines[name] + GRACE_S)
            if kind == "device":
                task = replace(task, began=task.began or time.time())
                deadlines, started = task.deadlines(value), time.time()
                continue
            if kind == "broken":
                task = replace(task, without=task.without | {value})
                kind, value = "lost", {"error": f"the GPU cannot be used after {value}, which is left out from here on"}
            if kind != "end":
                part["rows"].append(value)
                print(f"{name}: {_line(value)}", flush=True)
            if kind != "row":
                part["seconds"], started = time.time() - started, time.time()
                task = replace(task, left=tuple(others))
            _write(report, task.out)
            if kind == "lost":
                break
    finally:
        _end(process)
    return task


def _heard(receiver: Connection, process: BaseProcess, until: float) -> tuple[str, object]:
    """What the process says next: its device, a row, the end of a part, or that nothing more will come."""
    if not receiver.poll(max(0.0, until - time.time())):
        return "lost", {"error": "out of time: stopped"}
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return "lost", {"error": f"the process ended with exit code {process.exitcode}"}


def _end(process: BaseProcess) -> None:
    """With all processes that it has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):  # it has not come so far as to have a group of its own
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _work(sender: Connection, task: _Task) -> None:
    """The process that measures."""
    if hasattr(os, "setsid"):
        os.setsid()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    import torch  # here and not above, so that the process that watches starts at once and holds no GPU

    from benchmarks.gpu_bench import make_bench
    from benchmarks.gpu_parts import PARTS, is_usable

    bench = make_bench(task.folder, task.data, without=task.without)
    if not bench.is_gpu:
        torch.set_num_threads(1)
    sender.send(("device", bench.device.type))
    deadlines = task.deadlines(bench.device.type)
    for name in task.left:
        torch.manual_seed(0)  # the same weights, whichever parts are run
        for row in rows_of(PARTS[name], bench, deadlines[name]):
            sender.send(("row", row))
            if "error" in row and not is_usable(bench.device):
                sender.send(("broken", str(row.get("form", name))))
                return
        sender.send(("end", None))


def _write(report: dict, folder: Path) -> None:
    for name, text in (("gpu.json", json.dumps(report, indent=1, default=str)), ("gpu.md", markdown(report))):
        (folder / f"{name}.tmp").write_text(text, encoding="utf-8")
        os.replace(folder / f"{name}.tmp", folder / name)


def _rows(report: dict) -> list[list[Row]]:
    return [part["rows"] for part in report["parts"].values()]


def _line(row: Row) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in row.items())


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "-" if value is None else str(value).replace("|", "/").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
