"""main.py with processes of its own, and under torchrun: whatever ends one of them, the same command goes on."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.checkpoint import load_checkpoint
from tests.complexes import write_dataset
from tests.faults.launcher import POLL_S, Ended, Launcher, Patch, Process
from tests.training_runs import CODES, ROOT, Run, fingerprints, finish

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="POSIX processes, found by /proc")

TAG = "AIDD_TEST_RANKS"
LIMIT_S = 180.0
TWO = {"epochs": 6, "batch_size": 3, "checkpoint_every_batches": 2, "cpu_processes": 2}
BATCH = "src.optimization.gradients.WindowGradient._backward"  # called once for each batch of the training set


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TAG, str(os.getpid()))  # by which the ranks of these runs are found
        with Launcher() as one:
            yield one


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, launcher: Launcher) -> tuple[dict, dict]:
    """Settings that name the data, and what a run by two processes leaves that nothing ever stopped."""
    run = Run(tmp_path_factory.mktemp("whole"))
    write_dataset(run.folder / "data", CODES)
    first = ended(launcher.start(run.options(**TWO), folder=run.folder))
    assert first.code == 0, first.err
    assert first.err.count("epoch   6/6") == 1  # the other rank says nothing
    assert load_checkpoint(run.checkpoints / "checkpoint.pth.tar")["processes"] == 2
    data = {"dataset_path": str(run.folder / "data"), "processed_data_dir": str(run.folder / "processed")}
    return {**TWO, **data}, fingerprints(run)


def ended(process: Process) -> Ended:
    return process.wait(timeout_s=LIMIT_S)


def others() -> list[int]:
    """The process ids of the ranks that main.py has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            is_rank = b"RANK=1" in environment and f"{TAG}={os.getpid()}".encode() in environment
            if is_rank and (folder / "stat").read_text().rsplit(")")[-1].split()[0] != "Z":
                found.append(int(folder.name))
        except OSError:  # it has just ended, or is somebody else's
            continue
    return found


def none_is_left(within_s: float) -> bool:
    end = time.monotonic() + within_s
    while others() and time.monotonic() < end:
        time.sleep(POLL_S)
    return not others()


@pytest.mark.fault("L2", "L3", "L6")
@pytest.mark.parametrize(
    ("action", "code"),
    [
        pytest.param("SIGTERM", 143, marks=pytest.mark.slow),
        ("SIGKILL", -9),
        pytest.param("group SIGINT", 130, marks=pytest.mark.slow),
        pytest.param("RuntimeError", 1, marks=pytest.mark.slow),
    ],
)
def test_what_ends_the_first_process_ends_all_and_the_same_command_goes_on(
    launcher: Launcher, tmp_path: Path, whole: tuple[dict, dict], action: str, code: int
) -> None:
    settings, wanted = whole
    run = Run(tmp_path)
    patch = Patch(action, "before", BATCH, call=7)
    first = ended(launcher.start(run.options(**settings), patch, folder=tmp_path))
    assert first.code == code, first.err
    assert none_is_left(within_s=5.0)
    second = ended(launcher.start(run.options(**settings), folder=tmp_path))
    assert second.code == 0, second.err
    assert fingerprints(run) == wanted


@pytest.mark.fault("L3")
def test_another_process_that_is_killed_is_named_and_the_same_command_goes_on(
    launcher: Launcher, tmp_path: Path, whole: tuple[dict, dict]
) -> None:
    settings, wanted = whole
    run = Run(tmp_path)
    hold = tmp_path / "hold"
    process = launcher.start(run.options(**settings), Patch(f"hold {hold}", "before", BATCH, 7), folder=tmp_path)
    while not hold.exists():
        time.sleep(POLL_S)
    (other,) = others()
    os.kill(other, signal.SIGKILL)
    hold.unlink()
    first = ended(process)
    assert first.code == 1
    assert "rank 1: worker died with signal SIGKILL" in first.err
    assert "Traceback" not in first.err
    assert ended(launcher.start(run.options(**settings), folder=tmp_path)).code == 0
    assert fingerprints(run) == wanted


@pytest.mark.slow
def test_members_under_torchrun_are_trained_one_after_the_other_by_all_ranks(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_dataset(tmp_path / "data", CODES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command = [*torchrun, str(ROOT / "main.py"), *run.options(members=2, epochs=1, device="cpu")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("2 processes") == 2
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["seed_42", "seed_43"]
    assert "2 runs together" in found.stdout


@pytest.mark.fault("L2", "L6")
def test_torchrun_stops_at_one_step_and_another_way_to_start_goes_on(
    launcher: Launcher, tmp_path: Path, whole: tuple[dict, dict]
) -> None:
    settings, wanted = whole
    run = Run(tmp_path)
    flag = tmp_path / "SAVE_NOW.flag"
    flag.touch()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    process = subprocess.Popen(
        [*torchrun, str(ROOT / "main.py"), *run.options(**{**settings, "cpu_processes": "auto"})],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while flag.exists() and process.poll() is None:
        time.sleep(POLL_S)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process, LIMIT_S)
    assert code == 1, err  # whatever it was, torchrun ends with 1
    assert err.count("stopped by SIGTERM; nothing is lost") == 1
    assert (run.checkpoints / "INTERRUPTED.pth.tar").exists()
    second = ended(launcher.start(run.options(**settings), folder=tmp_path))
    assert second.code == 0, second.err
    assert fingerprints(run) == wanted


FAKES = {
    "srun": 'exec "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo localhost; else echo "$@" >> requeued; fi',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
}


def sbatch_script(folder: Path, options: list[str]) -> list[str]:
    """The command that SLURM would run of the script in docs/clusters.md, with our options."""
    text = (ROOT / "docs/clusters.md").read_text(encoding="utf-8").split("```bash\n")[1].split("```")[0]
    assert "--signal=B:USR1@90" in text
    assert text.count(" main.py &") == 1
    script = folder / "job.sh"
    script.write_text(text.replace(" main.py &", f" {shlex.join([str(ROOT / 'main.py'), *options])} &"))
    (folder / "bin").mkdir()
    for name, what in FAKES.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{what}\n")
        (folder / "bin" / name).chmod(0o755)
    return ["bash", str(script)]


@pytest.mark.slow
def test_the_slurm_script_goes_back_into_the_queue_and_then_ends(tmp_path: Path, whole: tuple[dict, dict]) -> None:
    settings, wanted = whole
    run = Run(tmp_path)
    command = sbatch_script(tmp_path, run.options(**settings))
    of_slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost"}
    of_slurm |= {"SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2"}
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    flag, requeued = tmp_path / "SAVE_NOW.flag", tmp_path / "requeued"
    flag.touch()
    for is_first in (True, False):
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, **of_slurm, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while is_first and flag.exists() and process.poll() is None:
            time.sleep(POLL_S)
        if is_first:
            process.send_signal(signal.SIGUSR1)
        _, _, err = finish(process, LIMIT_S)
        assert requeued.read_text() == f"requeue {os.getpid()}\n", err
        assert (run.checkpoints / "INTERRUPTED.pth.tar").exists()
    assert fingerprints(run) == wanted
