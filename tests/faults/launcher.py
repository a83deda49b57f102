"""Runs of main.py with faults that are injected from outside, in processes of their own.

Importing torch costs seconds, so it is done once, by a server, and each run is a fork of that. Nothing has been
computed there and torch has no second thread before the fork, so a fork is what a fresh process is; test_kills.py
compares both.

    with Launcher() as launcher:
        process = launcher.start(run.options(), Patch("SIGKILL", "before", "os.replace", call=5), folder=run.folder)
        code, out, err = process.wait()
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import io
import json
import math
import os
import pkgutil
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.002


@dataclass(frozen=True)
class Patch:
    """At one call of a function of the program, or at every one, something happens that is not in the program.

    Attributes:
        action: one of
            "SIGKILL" or another signal, to the process itself; "group SIGINT", to its group;
            "RuntimeError" or another exception of Python; "sleep 0.5";
            "nan", which spoils the tensor that is returned in training;
            "overflow", which lets its gradient be too large for half precision, where that is used;
            "record FILE", which appends the codes of each list of batches among the arguments as a line;
            "hold FILE", which makes the file and waits until somebody removes it.
        when: "before" or "after" the call, or for torch.save "halfway", when half of the file is written.
        function: where it is looked up, as in "src.optimization.saving.save_checkpoint".
        call: which call, from 1 on; 0 for every one.
        matching: a pattern; calls whose arguments (texts, paths, open files, codes of a batch) it is not found in do
            not count.
    """

    action: str
    when: str
    function: str
    call: int = 1
    matching: str = ""


class Ended(NamedTuple):
    code: int  # negative: the signal that ended it
    out: str
    err: str


class Process:
    """A run that has been started; it leads a process group of its own."""

    def __init__(self, launcher: Launcher, pid: int, folder: Path):
        self.pid, self._launcher, self._folder = pid, launcher, folder

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = 60.0) -> Ended:
        code = self._launcher._ask(wait=self.pid, timeout_s=timeout_s)
        if code is None:
            raise TimeoutError(f"still running after {timeout_s:g} s: {self._read('err')}")
        return Ended(code, self._read("out"), self._read("err"))

    def send_to_group(self, number: int, held_by: Path) -> None:
        """Send a signal to all processes of the run when a patch holds it, and let it go on."""
        end = time.monotonic() + 60.0
        while not held_by.exists():
            if time.monotonic() > end:
                raise TimeoutError(f"{held_by} does not come: {self._read('err')}")
            time.sleep(POLL_S)
        os.killpg(self.pid, number)
        time.sleep(0.1)  # a worker that it ends has ended before the run asks for a batch
        held_by.unlink()

    def wait_for_line(self, start: str, timeout_s: float = 60.0) -> None:
        """Until standard error has a line that begins so."""
        end = time.monotonic() + timeout_s
        while not any(line.startswith(start) for line in self._read("err").splitlines()):
            if time.monotonic() > end:
                raise TimeoutError(f"no line {start!r}: {self._read('err')}")
            time.sleep(POLL_S)

    def _read(self, name: str) -> str:
        path = self._folder / f"{name}.txt"
        return path.read_text(encoding="utf-8", errors="backslashreplace") if path.is_file() else ""


class Launcher:
    """The test's side of the server; at its end the server kills what still runs."""

    def __enter__(self) -> Launcher:
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launcher"],
            cwd=ROOT,
            env={**os.environ, **threads},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()

    def start(self, options: Sequence[str], *patches: Patch, folder: Path) -> Process:
        """Run main.py with these options; what it prints goes to out.txt and err.txt in the folder."""
        pid = self._ask(options=list(options), patches=[asdict(patch) for patch in patches], folder=str(folder))
        return Process(self, pid, folder)

    def run(self, options: Sequence[str], *patches: Patch, folder: Path) -> Ended:
        return self.start(options, *patches, folder=folder).wait()

    def _ask(self, **request: object) -> Any:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server ended with code {self._server.wait(30)}")
        return json.loads(answer)


def arm(patch: Patch) -> None:
    owner_name, _, name = patch.function.rpartition(".")
    owner = pkgutil.resolve_name(owner_name)
    real, count = getattr(owner, name), 0
    act = _action(patch.action)

    def patched(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        if patch.matching and not re.search(patch.matching, _described(arguments)):
            return real(*arguments, **options)
        count += 1
        if patch.call not in (0, count):
            return real(*arguments, **options)
        if patch.when == "halfway":
            return _save_in_halves(real, act, *arguments, **options)
        if patch.when == "before":
            act(arguments)
            return real(*arguments, **options)
        result = real(*arguments, **options)
        if patch.action in ("nan", "overflow"):
            return _spoiled(result, patch.action)
        act(arguments)
        return result

    setattr(owner, name, patched)


def _action(text: str) -> Callable[[Sequence[Any]], None]:
    kind, _, value = text.partition(" ")
    if kind == "group":
        return lambda _: os.killpg(0, signal.Signals[value])
    if kind == "sleep":
        return lambda _: time.sleep(float(value))
    if kind == "hold":
        return lambda _: _hold(Path(value))
    if kind == "record":
        return lambda arguments: _record(Path(value), arguments)
    if kind in signal.Signals.__members__:
        return lambda _: os.kill(os.getpid(), signal.Signals[kind])
    if kind in ("nan", "overflow"):
        return lambda _: None

    def fail(_: Sequence[Any]) -> None:
        raise getattr(builtins, kind)("injected by the test")

    return fail


def _spoiled(tensor: Any, action: str) -> Any:
    import torch

    if not tensor.requires_grad:  # validation
        return tensor
    if action == "nan":
        return tensor * math.nan
    if torch.is_autocast_enabled("cpu"):
        tensor.register_hook(lambda gradient: gradient * math.inf)
    return tensor


def _hold(path: Path) -> None:
    path.touch()
    while path.exists():
        time.sleep(POLL_S)


def _save_in_halves(real: Callable, act: Callable, value: Any, file: Any) -> None:
    written = io.BytesIO()
    real(value, written)
    content = written.getvalue()
    file.write(content[: len(content) // 2])
    file.flush()
    act((value, file))
    file.write(content[len(content) // 2 :])


def _record(path: Path, arguments: Sequence[Any]) -> None:
    windows = [argument for argument in arguments if isinstance(argument, list) and argument]
    with open(path, "a", encoding="ascii") as file:
        file.writelines(" ".join(code for batch in window for code in batch.codes) + "\n" for window in windows)


def _described(arguments: Sequence[Any]) -> str:
    """Texts, paths, open files and codes of batches of a call, a line each."""
    lines = []
    for argument in arguments:
        argument = getattr(argument, "name", argument) if not isinstance(argument, Path) else argument
        if type(argument) is int:  # a descriptor of an open file, as os.fsync takes it
            with contextlib.suppress(OSError):
                argument = os.readlink(f"/proc/self/fd/{argument}")
        if isinstance(argument, str | Path):
            lines.append(str(argument))
        lines += getattr(argument, "codes", ())
    return "\n".join(lines)


def _serve() -> None:
    """Answer requests, a line each, until they end; in a fork, run main.py instead."""
    sys.modules["matplotlib"] = None  # as if it were not installed: figures take longer than the rest of a run

    import torch
    import torch._dynamo  # Adam imports it

    import main

    torch.set_num_threads(1)
    gc.freeze()  # so that no fork has to copy the pages that its garbage collector would write to
    running: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = _wait(request["wait"], request["timeout_s"], running)
        elif answer := _fork():
            running.add(answer)
        else:
            _become(request)
            _end(main.main(request["options"]))
        print(json.dumps(answer), flush=True)
    for pid in list(running):
        _wait(pid, 0.0, running)


def _fork() -> int:
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads: a fork would have one of them and the locks of all"
    return os.fork()


def _become(request: dict) -> None:
    """Make this fork what a fresh process would be, and arm its faults."""
    os.setsid()
    folder = Path(request["folder"])
    for number, path in ((0, Path(os.devnull)), (1, folder / "out.txt"), (2, folder / "err.txt")):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Those of the server remember whether its files could be rewound.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, encoding="utf-8") for number in (1, 2))
    sys.argv = ["main.py", *request["options"]]
    for patch in request["patches"]:
        arm(Patch(**patch))


def _end(code: int) -> None:
    """End this fork as sys.exit does, but for the freeing of all that was imported: it takes as long as a short run."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(pid: int, timeout_s: float, running: set[int]) -> int | None:
    """The exit code, or None for a run that had to be killed because its time is up."""
    end, late = time.monotonic() + timeout_s, False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            running.discard(pid)
            return None if late else os.waitstatus_to_exitcode(status)
        if not late and time.monotonic() >= end:
            late = True
            os.killpg(pid, signal.SIGKILL)
        time.sleep(POLL_S)


if __name__ == "__main__":
    _serve()
