"""Supervised workers: each way to die costs one task, and nothing is left running."""

from __future__ import annotations

import faulthandler
import functools
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from src.system.workers import WorkerFault, WorkerStartError, run_supervised

posix = pytest.mark.skipif(os.name != "posix", reason="signals and memory limits of POSIX")
ROOT = Path(__file__).resolve().parents[2]


def act(task):
    """What a task can do to its worker; any other value comes back with the worker's process id."""
    if task == "segfault":
        faulthandler.disable()  # in a fork it would print the stack of the tests
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "exit":
        os._exit(3)
    if task == "deaf":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # so that only the parent can end it
    if task in ("hang", "deaf"):
        time.sleep(60)
    if task == "hog":
        return len(bytearray(3_000_000_000))
    if task == "torch hog":
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    if task == "bug":
        return 1 // 0
    if task == "unpicklable":
        return lambda: None
    if task == "threads":
        return os.environ["OMP_NUM_THREADS"]
    if task in ("SIGINT", "SIGUSR1"):
        blocked = signal.Signals[task] in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        ignored = signal.getsignal(signal.Signals[task]) == signal.SIG_IGN
        return task, f"{blocked=} {ignored=}"
    if task == "save":
        os.kill(os.getpid(), signal.SIGUSR1)
    return task, os.getpid()


def add(task, constant):
    return task + constant


def large(task):
    return bytes(task)


class DiesOnArrival:
    """A function that ends every process that unpickles it."""

    def __reduce__(self):
        return os._exit, (7,)


class StartsEveryThirdTime:
    """`act`, but two of three processes end while they unpickle it; a file counts them."""

    def __init__(self, counter):
        self.counter = counter

    def __setstate__(self, state):
        self.counter = state["counter"]
        with open(self.counter, "a") as file:
            file.write("x")
        if self.counter.stat().st_size % 3:
            os._exit(7)

    def __call__(self, task):
        return act(task)


def collect(tasks, function=act, *, num_workers=2, timeout_s=20.0, memory_gb=None, forked=False):
    settings = {"num_workers": num_workers, "timeout_s": timeout_s, "memory_gb": memory_gb, "forked": forked}
    outcomes = list(run_supervised(function, tasks, **settings))
    assert sorted(index for index, _ in outcomes) == list(range(len(tasks)))  # each task exactly once
    return dict(outcomes)


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_every_task_is_answered_once(num_workers, forked):
    function = functools.partial(add, constant=100)
    outcomes = collect(list(range(50)), function, num_workers=num_workers, forked=forked)
    assert outcomes == {index: index + 100 for index in range(50)}


def test_no_tasks_start_no_workers():
    assert collect([], DiesOnArrival()) == {}


def test_messages_larger_than_a_pipe():
    assert collect([3_000_000, 1, 5_000_000], large)[2] == bytes(5_000_000)


@pytest.mark.fault("F5", "E4")
@posix
@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize(
    ("fault", "reason", "limits"),
    [
        ("segfault", "worker died with signal SIGSEGV", {}),
        ("exit", "worker exited with code 3", {}),
        ("hang", "took longer than 1 s", {"timeout_s": 1.0}),
        ("deaf", "took longer than 1 s", {"timeout_s": 1.0}),
        ("hog", "ran out of memory (limit 2 GB)", {"memory_gb": 2.0}),
        ("torch hog", "ran out of memory", {}),
    ],
)
def test_a_fault_costs_its_own_task_only(fault, reason, limits, forked):
    tasks = ["a", fault, "b", "c", "d"]
    outcomes = collect(tasks, num_workers=1, forked=forked, **limits)
    assert outcomes.pop(1) == WorkerFault(reason)
    assert [answer for answer, _ in outcomes.values()] == ["a", "b", "c", "d"]
    processes = [process for _, process in outcomes.values()]
    assert processes[0] != processes[1]  # replaced after the fault ...
    assert len(set(processes[1:])) == 1  # ... and only then


@pytest.mark.fault("F5")
@posix
def test_all_tasks_fatal():
    outcomes = collect(["segfault"] * 4)
    assert set(outcomes.values()) == {WorkerFault("worker died with signal SIGSEGV")}


def test_an_exception_is_a_bug_and_carries_the_workers_traceback():
    with pytest.raises(ZeroDivisionError) as caught:
        collect(["a", "bug", "b"])
    note = "\n".join(caught.value.__notes__)
    assert "task 1" in note
    assert "return 1 // 0" in note


def test_an_answer_that_cannot_be_pickled_is_a_bug():
    with pytest.raises(Exception, match="lambda"):
        collect(["unpicklable"])


def test_in_this_process_exceptions_propagate():
    with pytest.raises(ZeroDivisionError):
        collect(["bug"], num_workers=0)


@pytest.mark.fault("F5")
def test_workers_that_cannot_start_raise_instead_of_being_replaced_for_ever():
    with pytest.raises(WorkerStartError, match=r"^3 workers in a row .* code 7"):
        collect(["a", "b"], DiesOnArrival())


def test_failed_starts_are_forgotten_once_a_worker_runs(tmp_path):
    outcomes = collect(["a", "exit", "b"], StartsEveryThirdTime(tmp_path / "count"), num_workers=1)
    assert [outcomes[0][0], outcomes[1], outcomes[2][0]] == [
        "a",
        WorkerFault("worker exited with code 3"),
        "b",
    ]


@posix
def test_a_caller_that_takes_its_time_costs_no_worker():
    iterator = run_supervised(act, ["a", "b", "c"], num_workers=1, timeout_s=0.5, memory_gb=None)
    _, (_, process) = next(iterator)
    time.sleep(1.5)  # longer than a hanging task would be allowed
    assert [outcome for _, outcome in iterator] == [("b", process), ("c", process)]


def test_workers_use_one_thread_and_the_environment_here_is_unchanged(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert collect(["threads"]) == {0: "1"}
    assert "OMP_NUM_THREADS" not in os.environ


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR1"])
def test_workers_hear_nothing_that_is_meant_for_the_parent_neither_while_they_import_nor_later(parent, name):
    assert parent("attentive", "spawned", name).stdout.readline() == "blocked=True ignored=True\n"
    collect(["a"])
    assert signal.Signals[name] not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.fault("A5")
@posix
@pytest.mark.parametrize("forked", [False, True])
def test_a_worker_outlives_what_a_job_queue_sends_to_the_group(forked):
    outcomes = collect(["a", "save", "b"], num_workers=1, forked=forked)
    assert [answer for answer, _ in outcomes.values()] == ["a", "save", "b"]
    assert len({process for _, process in outcomes.values()}) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_process_that_multiprocessing_starts_beside_the_workers_outlives_it_too(parent):
    process = parent("blocked", "spawned", "a", "b")
    worker = int(process.stdout.readline())
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (tracker,) = {int(child) for child in children} - {worker}
    os.kill(tracker, signal.SIGUSR1)
    time.sleep(0.2)
    assert is_running(tracker)


def test_closing_the_iterator_kills_the_workers():
    iterator = run_supervised(act, ["a", "hang", "hang"], num_workers=1, timeout_s=60, memory_gb=None)
    _, (_, process) = next(iterator)
    assert is_running(process)
    start = time.monotonic()
    iterator.close()
    assert time.monotonic() - start < 5
    assert not is_running(process)


HELD = []


@pytest.mark.skipif(sys.platform != "linux", reason="copies of this process")
def test_the_cap_of_a_copy_is_on_what_it_adds(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "HELD", [bytearray(1_500_000_000)])
    assert collect(["a"], memory_gb=1.0, forked=True)[0][0] == "a"
    assert collect(["hog"], memory_gb=1.0, forked=True) == {0: WorkerFault("ran out of memory (limit 1 GB)")}


@pytest.mark.skipif(sys.platform != "linux", reason="copies of this process")
def test_a_copy_has_what_is_here_and_none_of_its_signal_handlers():
    here = threading.Lock()  # nobody can pickle it
    numbers = [signal.SIGTERM, signal.SIGHUP]
    handlers = {number: signal.signal(number, lambda *_: pytest.fail("heard")) for number in numbers}

    def look(number):
        return here.locked(), signal.getsignal(number) == signal.SIG_DFL

    try:
        with here:
            assert collect(numbers, look, forked=True) == {0: (True, True), 1: (True, True)}
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


SCRIPT = """
import sys
from src.system.workers import run_supervised
from tests.system.test_workers import act
if __name__ == "__main__":
    blocked, forked, *tasks = sys.argv[1:]
    limits = {"timeout_s": 1.0, "memory_gb": None, "forked": forked == "forked"}
    try:
        for _, answer in run_supervised(act, tasks, num_workers=1, **limits):
            print(answer[1], flush=True)
            if blocked == "blocked":
                sys.stdin.read()
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture
def parent(tmp_path):
    """Start a script with one worker; its standard output gives the process id of the worker."""
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT)
    started = []

    def start(*arguments):
        started.append(
            subprocess.Popen(
                [sys.executable, str(script), *arguments],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[0]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.fault("F1")
@posix
@pytest.mark.parametrize("forked", ["spawned", "forked"])
@pytest.mark.parametrize("next_task", ["b", "hang"])
def test_no_orphans_when_the_parent_is_killed(parent, next_task, forked):
    process = parent("blocked", forked, "a", next_task, "c")
    worker = int(process.stdout.readline())
    assert is_running(worker)
    process.kill()
    process.wait()
    is_gone = ends_within(worker, seconds=10)
    if not is_gone:
        os.kill(worker, signal.SIGKILL)  # or it would hold the pipe that the fixture reads to its end
    assert is_gone


@posix
@pytest.mark.parametrize("forked", ["spawned", "forked"])
def test_ctrl_c_reaches_the_parent_only(parent, forked):
    process = parent("attentive", forked, "a", "hang")
    worker = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == ""  # no traceback of a worker
    assert ends_within(worker, seconds=2)


def is_running(process_id):
    """False for a process that is gone or a zombie nobody has waited for."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends_within(process_id, seconds):
    limit = time.monotonic() + seconds
    while is_running(process_id) and time.monotonic() < limit:
        time.sleep(0.05)
    return not is_running(process_id)


def test_of_any_number_of_tasks_only_a_few_are_taken_ahead():
    """A stream that never ends is worked on as its results are asked for."""
    taken = []

    def stream():
        for number in itertools.count():
            taken.append(number)
            yield number

    results = run_supervised(functools.partial(add, constant=1), stream(), num_workers=2, timeout_s=20, memory_gb=None)
    found = dict(itertools.islice(results, 20))
    results.close()
    assert found == {index: index + 1 for index in found}
    assert len(taken) <= len(found) + 2 * 2


@pytest.mark.parametrize("work", ["main.main(['--check-data'])", "list(run_supervised(abs, [-1], **LIMITS))"])
def test_a_script_without_a_guard_is_told_so_at_once(tmp_path: Path, work: str) -> None:
    script = tmp_path / "own.py"
    root = Path(__file__).resolve().parents[2]
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(root)!r})\nimport main\nfrom src.system.workers import run_supervised\n"
        "LIMITS = {'num_workers': 1, 'timeout_s': 60, 'memory_gb': None}\n"
        f"main.CONFIG['processed_data_dir'] = {str(tmp_path)!r}\n"
        f"sys.exit({work})\n"
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100)
    assert found.returncode in (1, 2)
    assert 'put what it does below a line if __name__ == "__main__":' in found.stderr
